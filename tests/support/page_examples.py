"""Pages of a hub as it might be: the history of the first paper's figure 3, devices, tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from datetime import date, timedelta

from limosa.hub.pages import render
from limosa.hub.pages.views import (
    Asked,
    Bound,
    DeviceRow,
    DevicesView,
    Graph,
    GraphEdge,
    GraphNode,
    Histogram,
    HoldRow,
    LoginView,
    Page,
    RepositoriesView,
    RepositoryRow,
    RepositoryView,
    SavedPoint,
    SavedView,
    TensorRow,
    TokenForm,
    TokenRow,
    TokensView,
    VersionRow,
    VersionView,
    Way,
)

NOW = 1_790_000_000.0
DAY = 86_400.0
MIB = 1 << 20
PAGE = Page("ada", "c5rf", NOW, sees_devices=True, sees_tokens=True)
REPOSITORY = "vision/detector"
NOTHING_ASKED = Asked()


def digest(name: str) -> str:
    """A digest that stays the same."""
    return hashlib.sha256(name.encode()).hexdigest()


def node(name: str, **more) -> GraphNode:
    """A version of 17.9 MiB."""
    return GraphNode(
        more.pop("key", None) or digest(name), digest("state " + name), name, 18_776_488, **more
    )


def state(name: str) -> str:
    return digest("state " + name)


def copy(of: str, quality: str, snr: float) -> GraphNode:
    name = f"{of} {quality}"
    return GraphNode(
        digest(name), state(name), "", 18_776_488, of=digest(of), bound=f"{quality}, {snr} dB"
    )


#: v1 to v3 as in figure 3; v3 has lossy copies, from one of which v4 starts, too.
HISTORY = Graph(
    (
        node("v1"),
        node("v2", parents=(digest("v1"),)),
        node("v3", parents=(digest("v2"),), tags=("stable",)),
        copy("v3", "size=5%", 18.4),
        copy("v3", "snr=30", 30.1),
        node("v3-night", parents=(digest("v3"),)),
        node("v4", parents=(digest("v3"),), tags=("latest", "canary")),
    ),
    (
        GraphEdge("", digest("v1"), 15_611_904),
        GraphEdge(state("v1"), digest("v2"), 9_214_003),
        GraphEdge(state("v2"), digest("v3"), 5_120_331),
        GraphEdge(state("v1"), digest("v3"), 9_630_412, "made"),
        GraphEdge("", digest("v3"), 15_640_082, "baked"),
        GraphEdge("", digest("v3 size=5%"), 938_824, "copy"),
        GraphEdge("", digest("v3 snr=30"), 2_310_774, "copy"),
        GraphEdge(state("v3"), digest("v3-night"), 811_240),
        GraphEdge(state("v3"), digest("v4"), 2_094_771),
        GraphEdge(state("v3 size=5%"), digest("v4"), 1_204_993, "made"),
        GraphEdge(state("v1"), digest("v4"), 9_911_552, "estimate"),
        GraphEdge(state("v4"), digest("v3"), 2_101_220, "made"),
    ),
)


def versions() -> list[VersionRow]:
    """Newest first."""
    row = VersionRow("v1", digest("v1"), 18_776_488, NOW - 61 * DAY, "ada", 15_611_904)
    new = dataclasses.replace
    return [
        new(
            row, name="v4", digest=digest("v4"), created=NOW - 7300, blob_nbytes=None,
            update_nbytes=2_094_771, notes="Retrained with the rainy nights of September.",
            metrics={"map50": 0.8123, "map75": 0.6411, "loss": 0.0312}, parents=("v3",),
            tags=("latest", "canary"), devices=2,
        ),
        new(
            row, name="v3-night", digest=digest("v3-night"), created=NOW - 9 * DAY, by="grace",
            blob_nbytes=None, update_nbytes=811_240, notes="Head only.", parents=("v3",),
        ),
        new(
            row, name="", digest=digest("v3 snr=30"), created=NOW - 20 * DAY, by="hub",
            blob_nbytes=2_310_774, of=digest("v3"), of_name="v3",
            bound=Bound("snr=30", 30.1, 0.0123),
        ),
        new(
            row, name="", digest=digest("v3 size=5%"), created=NOW - 20 * DAY, by="hub",
            blob_nbytes=938_824, of=digest("v3"), of_name="v3", devices=41,
            bound=Bound("size=5%", 18.4, 0.0577),
        ),
        new(
            row, name="v3", digest=digest("v3"), created=NOW - 21 * DAY, by="grace",
            blob_nbytes=15_640_082, update_nbytes=5_120_331, tags=("stable",), devices=212,
            parents=("v2",),
        ),
        new(
            row, name="v2", digest=digest("v2"), created=NOW - 40 * DAY, blob_nbytes=None,
            update_nbytes=9_214_003, devices=3, parents=("v1",),
        ),
        new(row, devices=1, notes="ImageNet weights, as published."),
    ]  # fmt: skip


def bell(deviation: float, low: float, high: float, elements: int, bins: int = 65) -> Histogram:
    """A bell, with the peak at zero that weights have."""
    step = (high - low) / bins
    middles = [low + (i + 0.5) * step for i in range(bins)]
    shares = [
        math.exp(-0.5 * (x / deviation) ** 2) + 0.3 * math.exp(-abs(x) / deviation * 1.2)
        for x in middles
    ]
    return Histogram(low, high, tuple(int(elements * s / sum(shares)) for s in shares))


def tensor(name: str, shape: tuple[int, ...], deviation: float, moved: float | None) -> TensorRow:
    elements = math.prod(shape)
    span = 6 * deviation
    return TensorRow(
        name, "F32", shape, 4 * elements, mean=deviation / 40, std=deviation, low=-span * 0.93,
        high=span * 0.97, histogram=bell(deviation, -span, span, elements),
        delta=bell(moved, -6 * moved, 6 * moved, elements) if moved else None,
        changed=int(elements * 0.993) if moved else (0 if moved is None else None),
    )  # fmt: skip


def tensors() -> list[TensorRow]:
    rows = [tensor("backbone.conv_stem.weight", (32, 3, 3, 3), 0.42, None)]
    for block in range(7):
        for layer in range(3):
            stem = f"backbone.blocks.{block}.{layer}"
            wide, moved = 16 * (block + 2), 0.002 / (layer + 1) * (block + 1)
            rows += [
                tensor(f"{stem}.conv_dw.weight", (wide, 1, 3, 3), 0.21 / (block + 1), moved),
                tensor(f"{stem}.conv_pw.weight", (wide, wide, 1, 1), 0.11 / (layer + 1), moved / 3),
                tensor(f"{stem}.bn1.running_var", (wide,), 0.8, moved * 2),
            ]
    rows.append(TensorRow("head.anchors", "I64", (9, 2), 144, 31.4, 22.0, 10.0, 373.0, changed=0))
    rows.append(TensorRow("head.scale", "BF16", (), 2, 1.0, 0.0, 1.0, 1.0, Histogram(1, 1, (1,))))
    return rows


def whole() -> TensorRow:
    """All tensors as one."""
    return dataclasses.replace(tensor("", (4_000_000,), 0.06, 0.0016), name="all tensors")


def saved(days: int = 60, size: int = MIB) -> list[SavedPoint]:
    """Some days without pulls, more of them as time goes on."""
    first = date(2026, 7, 24)
    points = []
    for i in range(days):
        pulls = (i * 7919 % 23) * (i + 10) // 40
        if pulls:
            sent = pulls * (size + i * 7919 % 31 * size // 12)
            points.append(
                SavedPoint(
                    first + timedelta(days=i), sent, pulls * 15 * size, pulls * 18 * size, pulls
                )
            )
    return points


def repositories_view() -> RepositoriesView:
    rows = [
        RepositoryRow(
            REPOSITORY, "Finds people and vehicles in the frames of street cameras", 5, 48_304_212,
            NOW - 7300, "v4",
        ),
        RepositoryRow("vision/digits", "", 3, 812_004, NOW - 2 * DAY, "v3"),
        RepositoryRow(
            "speech/wake-word", "Says whether somebody said the word; 40 kB at the edge", 31,
            5_120_331, NOW - 12 * DAY, "2026-09-09",
        ),
        RepositoryRow(
            "text/minilm-l6", "Sentences to 384 numbers", 2, 131_204_221, NOW - 90 * DAY, "v2"
        ),
        RepositoryRow("text/empty", "Made for later", 0, 0, NOW - 200 * DAY),
    ]  # fmt: skip
    return RepositoriesView(PAGE, rows, saved())


def repository_view() -> RepositoryView:
    return RepositoryView(
        PAGE, REPOSITORY, "Finds people and vehicles in the frames of street cameras",
        versions(), HISTORY, saved(),
    )  # fmt: skip


def version_view(asked: Asked = NOTHING_ASKED) -> VersionView:
    ways = [
        Way(state("v3"), "v3", 2_094_771),
        Way(state("v3 size=5%"), "lossy copy", 1_204_993, "made"),
        Way(state("v1"), "v1", 9_911_552, "estimate"),
    ]
    return VersionView(
        PAGE, REPOSITORY, versions()[0], ways, tensors(), "v3", whole=whole(), asked=asked
    )


def devices_view() -> DevicesView:
    def hold(version: str, behind: int) -> HoldRow:
        return HoldRow(
            REPOSITORY, version, digest(version), "/var/lib/camera/model.safetensors", behind
        )

    return DevicesView(
        PAGE,
        [
            DeviceRow("camera-north-01", NOW - 40, (hold("v4", 0),)),
            DeviceRow(
                "camera-north-02", NOW - 3 * 3600,
                (hold("v3", 2), HoldRow("speech/wake-word", "", digest("w"), "/opt/wake", 4)),
            ),
            DeviceRow("camera-bridge", NOW - 45 * DAY, (hold("v1", 4),)),
            DeviceRow("bench", None),
        ],
    )  # fmt: skip


def tokens_view() -> TokensView:
    return TokensView(
        PAGE,
        [
            TokenRow(1, "ada", "user", ("admin:*",), NOW - 200 * DAY, None, NOW - 20, own=True),
            TokenRow(
                2, "training", "user", ("push:vision/*", "push:speech/*", "read:*"),
                NOW - 30 * DAY, NOW + 60 * DAY, NOW - 7300,
            ),
            TokenRow(
                3, "camera-north-01", "device", ("read:vision/detector",), NOW - 30 * DAY, None,
                NOW - 40,
            ),
            TokenRow(4, "visitor", "user", ("read:*",), NOW - 90 * DAY, NOW - DAY),
        ],
        TokenForm("", "read:*"),
        "limosa_" + digest("secret"),
        "nightly",
    )  # fmt: skip


def saved_view() -> SavedView:
    days = saved()
    some = SavedPoint(days[0].day, 812 * MIB, 6_120 * MIB, 7_301 * MIB, 420)
    few = SavedPoint(days[0].day, 12 * MIB, 40 * MIB, 48 * MIB, 31)
    return SavedView(PAGE, days, {REPOSITORY: some, "speech/wake-word": few})


def long_graph(count: int = 200) -> Graph:
    """A history of *count* versions with branches and leaps."""
    names = [f"2026-{i // 28 + 1:02}-{i % 28 + 1:02}" for i in range(count)]
    nodes, edges = [], []
    for i, name in enumerate(names):
        base = names[i - 2 if i % 9 == 8 else i - 1] if i else ""
        nodes.append(node(name, tags=("latest",) if i == count - 1 else ()))
        edges.append(GraphEdge(state(base) if base else "", digest(name), MIB + i * 1000))
        if i % 10 == 0 and i:
            edges.append(GraphEdge(state(names[i - 10]), digest(name), 3 * MIB, "baked"))
            edges.append(GraphEdge("", digest(name), 15 * MIB, "baked"))
            edges.append(GraphEdge(state(name), digest(names[i - 1]), MIB, "made"))
        if i % 25 == 0:
            nodes.append(copy(name, "size=5%", 18.4))
            edges.append(GraphEdge("", nodes[-1].digest, MIB // 2, "copy"))
    return Graph(tuple(nodes), tuple(edges))


def pages() -> dict[str, str]:
    """Every page, by its address."""
    r = f"/r/{REPOSITORY}"
    empty = dataclasses.replace(repository_view(), name="text/empty", description="Made for later")
    named = dataclasses.replace(versions()[0], name="many")
    many = [tensor(f"layers.{i}.weight", (64, 64), 0.02 + i / 1e5, 0.001) for i in range(450)]
    return {
        "/": render.render_repositories(repositories_view()),
        "/empty": render.render_repositories(RepositoriesView(PAGE, ())),
        r: render.render_repository(repository_view()),
        "/r/text/empty": render.render_repository(
            dataclasses.replace(empty, versions=(), graph=Graph(), saved=())
        ),
        "/r/text/long": render.render_repository(
            dataclasses.replace(repository_view(), name="text/long", graph=long_graph())
        ),
        f"{r}/v4": render.render_version(version_view()),
        f"{r}/v4?tensor=backbone.blocks.3.1.conv_pw.weight": render.render_version(
            version_view(Asked(tensor="backbone.blocks.3.1.conv_pw.weight"))
        ),
        f"{r}/many": render.render_version(
            dataclasses.replace(version_view(), tensors=many, version=named)
        ),
        "/saved": render.render_saved(saved_view()),
        "/devices": render.render_devices(devices_view()),
        "/tokens": render.render_tokens(tokens_view()),
        "/login": render.render_login(
            LoginView(Page(), "The hub does not know this token, or it expired.", "/")
        ),
        "/problem": render.render_problem(
            404, "No such version", f"{REPOSITORY}: no version or tag v9",
            "limosa ls vision/detector shows what there is", PAGE,
        ),
    }  # fmt: skip
