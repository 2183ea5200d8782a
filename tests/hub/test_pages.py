"""Pages and drawings from views: escaping, empty states, extreme values, one page of many rows."""

from __future__ import annotations

import dataclasses
import math
import re
import xml.etree.ElementTree as ElementTree
from datetime import date, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

import page_examples as examples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limosa.hub.pages import graph_svg, histogram_svg, links, render, saved_svg, words
from limosa.hub.pages.layout import lay_out
from limosa.hub.pages.views import (
    Asked,
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
    SavedPoint,
    SavedView,
    TensorRow,
    TokenForm,
    TokenRow,
    TokensView,
    VersionView,
    Way,
)

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\x00\u202e"
VOID = {"meta", "link", "img", "input", "br"}
HUGE = 10**400


class Checker(HTMLParser):
    """Elements that are open, attributes that run code, and ids, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        if tag == "script":
            self.scripts.append(values)
        self.bad += [name for name in values if name.startswith("on") or name == "style"]
        self.bad += [tag] if tag in ("style", "iframe", "object") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.bad.append(f"</{tag}> in {self.open[-3:]}")


def check(page: str) -> Checker:
    """*page* is well formed, runs nothing but the hub's script, and its drawings are XML."""
    page.encode()
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.bad == []
    assert checker.open == []
    assert [script["src"] for script in checker.scripts] == [render.static("limosa.js")]
    assert len(set(checker.ids)) == len(checker.ids)
    assert "\x00" not in page
    for drawing in re.findall("<svg .*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(drawing)
    return checker


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return examples.pages()


def test_every_page_is_well_formed_and_runs_nothing_of_its_own(pages: dict[str, str]):
    for page in pages.values():
        check(page)


def test_the_same_view_is_the_same_page(pages: dict[str, str]):
    assert examples.pages() == pages


def test_links_of_pages_lead_to_pages(pages: dict[str, str]):
    known = set(pages) | {links.HOME, "/docs", "/openapi.json"}
    for address in re.findall('href="([^"]+)"', pages["/"]):
        path = address.partition("?")[0]
        assert path in known or path.startswith(("/static/", "/r/", "#main")), address


def evil_pages(name: str) -> list[str]:
    """Every page with *name* wherever people may write."""
    page = Page(name, name, 0.0, True, True, notice=name)
    version = dataclasses.replace(
        examples.versions()[0], by=name, notes=name, metrics={name: 1.0}, parents=(name,),
        tags=(name,), name=name, of=name, of_name=name,
    )  # fmt: skip
    row = TensorRow(name, name, (2, 2), 16, histogram=Histogram(-1, 1, (1, 2)))
    node = GraphNode("d", "s", name, 1, bound=name, tags=(name,))
    copy = GraphNode("e", "t", "", 1, of="d", bound=name)
    graph = Graph((node, copy), (GraphEdge("", "d", 1), GraphEdge(name, "e", 2, name)))
    return [
        render.render_repositories(RepositoriesView(page, [RepositoryRow(name, name, 1, 1, 0.0)])),
        render.render_repository(
            dataclasses.replace(
                examples.repository_view(), page=page, name=name, description=name,
                versions=[version], graph=graph,
            )
        ),
        render.render_version(
            VersionView(
                page, name, version, [Way("s", name, 1, name)], [row], name, whole=row,
                asked=Asked(name, name, True, 2, name),
            )
        ),
        render.render_devices(
            DevicesView(page, [DeviceRow(name, 0.0, (HoldRow(name, name, name, name),))])
        ),
        render.render_tokens(
            TokensView(
                page, [TokenRow(1, name, name, (name,), 0.0)], TokenForm(name, name, name, name),
                name, name,
            )
        ),
        render.render_saved(
            SavedView(page, examples.saved(), {name: SavedPoint(date(2026, 1, 1), 1, 2, 3)})
        ),
        render.render_login(LoginView(page, name, name)),
        render.render_problem(404, name, name, name, page),
    ]  # fmt: skip


def test_names_are_shown_and_never_run():
    for page in evil_pages(EVIL):
        check(page)
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=40))
def test_any_name_makes_well_formed_pages(name: str):
    for page in evil_pages(name):
        check(page)


def test_what_is_empty_says_what_to_do(pages: dict[str, str]):
    assert "limosa push model.safetensors owner/name:v1" in pages["/empty"]
    assert "limosa push model.safetensors text/empty:v1" in pages["/r/text/empty"]
    assert "<table" not in pages["/r/text/empty"]
    page = Page()
    assert "Sign in" in render.render_repositories(RepositoriesView(page, ()))
    for empty in (
        render.render_devices(DevicesView(page, ())),
        render.render_tokens(TokensView(page, ())),
        render.render_saved(SavedView(page, ())),
        render.render_version(
            VersionView(page, "a/b", dataclasses.replace(examples.versions()[0], name=""))
        ),
    ):
        check(empty)


def test_numbers_of_any_size_are_drawn_and_written():
    row = TensorRow(
        "w", "F32", (10**200, 10**200), HUGE, math.nan, math.inf, -math.inf, 1e308,
        Histogram(-1e300, 1e300, (HUGE, 1)), Histogram(5.0, 5.0, (3,)), changed=HUGE,
    )  # fmt: skip
    version = dataclasses.replace(examples.versions()[0], nbytes=HUGE, created=math.inf)
    view = VersionView(Page(), "a/b", version, (), [row], whole=row)
    page = render.render_version(view)
    check(page)
    assert "NaN" in page
    points = [SavedPoint(date(2026, 1, 1), 1, HUGE, HUGE), SavedPoint(date(1, 1, 1), 1, 1, 1)]
    check(render.render_saved(SavedView(Page(), points)))
    graph = Graph((GraphNode("d", "s", "v1"),), (GraphEdge("", "d", HUGE),))
    ElementTree.fromstring(graph_svg.version_graph(graph, "a/b"))


def test_the_page_of_an_error_names_the_remedy(pages: dict[str, str]):
    assert "limosa ls vision/detector shows what there is" in pages["/problem"]
    assert 'href="/login"' in render.render_problem(401, "Who are you?")


def test_forms_carry_the_token_against_forgery(pages: dict[str, str]):
    for page in pages.values():
        forms = re.findall("<form[^>]*post.*?</form>", page, re.DOTALL)
        for form in forms:
            assert 'name="csrf"' in form
    revoke = re.findall('action="/tokens/3/revoke".*?</form>', pages["/tokens"], re.DOTALL)
    assert 'value="c5rf"' in revoke[0]


def test_pages_exist_only_for_who_may_see_them():
    page = render.render_repositories(RepositoriesView(Page("edge"), ()))
    assert 'href="/tokens"' not in page
    assert 'href="/devices"' not in page


def test_a_secret_is_shown_once(pages: dict[str, str]):
    secret = examples.tokens_view().secret
    assert secret in pages["/tokens"]
    again = dataclasses.replace(examples.tokens_view(), secret="", secret_name="")
    assert secret not in render.render_tokens(again)


def names(page: str) -> list[str]:
    return re.findall('class="name mono"[^>]*>([^<]+)<', page)


def test_tensors_are_filtered_sorted_and_paged_without_scripts():
    rows = [examples.tensor(f"layers.{i}.weight", (i + 1, 4), 0.1, None) for i in range(450)]
    view = dataclasses.replace(examples.version_view(), tensors=rows)

    def shown(**asked: object) -> list[str]:
        return names(
            render.render_version(dataclasses.replace(view, asked=Asked(**asked)))  # type: ignore[arg-type]
        )

    assert shown() == [row.name for row in rows[:200]]
    assert shown(page=3) == [row.name for row in rows[400:]]
    assert shown(sort="size", descending=True)[:2] == ["layers.449.weight", "layers.448.weight"]
    assert shown(text="S.44") == [row.name for row in rows if "s.44" in row.name]
    assert "q=a%26b&amp;sort=size&amp;page=2" in render.render_version(
        dataclasses.replace(
            view,
            tensors=[dataclasses.replace(row, name=f"a&b{row.name}") for row in rows],
            asked=Asked("a&b", "size"),
        )
    )
    assert "No tensor has" in render.render_version(
        dataclasses.replace(view, asked=Asked("nothing like it"))
    )


@pytest.mark.parametrize(
    "address",
    [
        "//e.example",
        "/\\e.example",
        "/\t/e.example",
        "\t//e.example",
        "e",
        "",
        "javascript:alert(1)",
    ],
)
def test_signing_in_leads_nowhere_else(address: str):
    assert links.onward(address) == "/"


def test_what_a_link_asks_is_what_the_page_is_asked():
    asked = Asked("a b&c", "size", True, 3, "x/é")
    query = dict(parse_qsl(urlsplit(links.tensors("/r/a/b/v1", asked)).query))
    assert links.asked(query) == asked


def test_a_tensor_without_a_value_is_last_in_both_directions():
    rows = [TensorRow("b", "F32", (1,), 4, std=math.nan), TensorRow("a", "F32", (1,), 4, std=1.0)]
    for descending in (False, True):
        view = dataclasses.replace(
            examples.version_view(Asked(sort="std", descending=descending)), tensors=rows
        )
        page = render.render_version(view)
        assert page.index(">a<") < page.index('<span class="name mono">b<')


def test_a_history_reads_from_left_to_right():
    layout = lay_out(examples.HISTORY)
    x = {box.node.name: box.x for box in layout.boxes if box.node.name}
    assert x["v1"] < x["v2"] < x["v3"] < x["v4"]
    assert x["v4"] == x["v3-night"]
    assert len(layout.lines) == len(examples.HISTORY.edges)
    assert [line.turned for line in layout.lines].count(True) == 1
    assert len(layout.copies) == 2


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 12))
    place = st.integers(0, count - 1)
    of = draw(st.lists(st.none() | place, min_size=count, max_size=count))
    nodes = tuple(
        GraphNode(
            f"d{i}", f"s{draw(place)}", "" if copy is not None else f"v{i}", i,
            "" if copy is None else f"d{copy}", parents=(f"d{draw(place)}",),
        )
        for i, copy in enumerate(of)
    )  # fmt: skip
    ends = draw(st.lists(st.tuples(st.none() | st.integers(0, count), place), max_size=30))
    kinds = st.sampled_from(["pushed", "made", "baked", "copy", "shared", "estimate", "?"])
    edges = tuple(
        GraphEdge("" if base is None else f"s{base}", f"d{target}", i, draw(kinds))
        for i, (base, target) in enumerate(ends)
    )
    return Graph(nodes, edges)


@given(graphs())
def test_boxes_of_any_graph_lie_apart_and_inside(graph: Graph):
    layout = lay_out(graph)
    known = [box for box in layout.boxes if box.known]
    assert [box.node for box in known] == list(graph.nodes)
    boxes = [(box.x, box.y, box.x + 132, box.y + box.height) for box in layout.boxes]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert right <= layout.width
        assert bottom <= layout.height
        for x1, y1, x2, y2 in boxes[:i]:
            assert right <= x1 or x2 <= left or bottom <= y1 or y2 <= top
    for line in layout.lines:
        for x, y in line.points:
            assert 0 <= x <= layout.width
            assert 0 <= y <= layout.height
    ElementTree.fromstring(graph_svg.version_graph(graph, "a/b"))


def test_a_long_history_stays_small_and_level():
    graph = examples.long_graph(200)
    layout = lay_out(graph)
    assert len(graph_svg.version_graph(graph, "text/long")) < 400_000
    assert layout.height < 600
    trunk = {round(box.middle, 6) for box in layout.boxes if box.node.tags}
    assert trunk == {round(layout.boxes[0].middle, 6)}


def test_labels_of_a_box_do_not_touch():
    lines = lay_out(examples.long_graph(60)).lines + lay_out(examples.HISTORY).lines
    places: dict[tuple[int, float], list[float]] = {}
    for line in lines:
        places.setdefault((id(line.target), line.label[0]), []).append(line.label[1])
    for heights in places.values():
        heights.sort()
        assert all(b - a >= 15 for a, b in pairwise(heights))


def heights(path: str) -> list[float]:
    return [float(y) for y in re.findall(r"V([\d.]+)", path)]


def test_both_distributions_share_an_axis():
    row = TensorRow(
        "w", "F32", (8,), 32, histogram=Histogram(-1.0, 1.0, (1, 3, 3, 1)),
        delta=Histogram(-0.5, 0.5, (0, 4, 4, 0)),
    )  # fmt: skip
    drawing = ElementTree.fromstring(histogram_svg.sparkline(row, "k"))
    weights, difference = (path.attrib["d"] for path in drawing if path.tag.endswith("path"))
    assert weights.startswith("M1 ")
    assert weights.count("H") == 4
    assert difference.startswith("M38 ")  # half as wide: from a quarter of the width on
    # All the difference within a quarter of the range is denser than the weights there.
    assert min(heights(difference)) < min(heights(weights))


def test_a_difference_narrower_than_a_pixel_is_seen():
    row = examples.tensor("w", (100, 100), 1.0, 1e-9)
    drawing = ElementTree.fromstring(histogram_svg.sparkline(row, "k"))
    difference = next(p for p in drawing if p.get("class") == "curve difference").attrib["d"]
    x = [float(value) for value in re.findall(r"[MH]([\d.]+)", difference)]
    assert x[-1] - x[0] == pytest.approx(1.5, abs=0.11)


def test_bars_are_what_was_sent_and_what_was_not():
    point = SavedPoint(date(2026, 3, 1), 100, 400, 1000)
    drawing = ElementTree.fromstring(saved_svg.saved_chart([point]))
    bars = [p for p in drawing.iter() if p.get("class") in ("sent", "by-updates", "by-coding")]
    sizes = [float(bar.attrib["height"]) for bar in bars]
    assert sizes[1] / sizes[0] == pytest.approx(3, rel=0.02)
    assert sizes[2] / sizes[0] == pytest.approx(6, rel=0.02)


def test_a_day_that_saved_nothing_is_drawn_as_what_was_sent():
    points = [SavedPoint(date(2026, 3, 1), 500, 400, 300)]
    drawing = ElementTree.fromstring(saved_svg.saved_chart(points))
    kinds = [p.get("class") for p in drawing.iter() if p.tag.endswith("rect")]
    assert kinds == ["sent"]


@given(st.lists(st.tuples(st.integers(0, 800), *[st.integers(0, 10**18)] * 3), max_size=40))
def test_any_days_make_a_chart(days: list[tuple[int, int, int, int]]):
    first = date(2025, 1, 1)
    points = [SavedPoint(first + timedelta(days=day), *sizes) for day, *sizes in days]
    drawing = saved_svg.saved_chart(points)
    if points:
        ElementTree.fromstring(drawing)


@given(st.integers(0, 10**30))
def test_sizes_for_people_are_within_a_tenth_of_their_unit(count: int):
    value, unit = words.human(count).split()
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    size = 1024 ** units.index(unit)
    assert abs(float(value.replace(",", "")) * size - count) <= 0.051 * size
    assert unit == "YiB" or float(value.replace(",", "")) < 1024


def test_static_files_are_small_and_load_nothing_from_elsewhere():
    for name, (body, _) in render.static_files().items():
        text = body.decode()
        assert not re.findall(r"(?:url\(|@import|data:|https?://(?!www\.w3\.org/2000/svg))", text)
        assert len(text.splitlines()) < (150 if name.endswith("js") else 400)
