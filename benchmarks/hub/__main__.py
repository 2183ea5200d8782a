"""What a hub delivers, plans and serves.

    python -m benchmarks.hub --out docs/results

Needs the packages of both requirements files, the extras ``hub`` and ``test``, and nginx
(``apt-get install nginx-light``). Writes ``hub-MACHINE.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.finetune import default_cache
from benchmarks.hub import planning, series, serving

_TITLE = """# A hub beside files, gzip, nginx and an S3

By `python -m benchmarks.hub`. {machine}; load of the machine {load}.
"""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write the page")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="of the fine-tune")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller; for a look only")
    options = parser.parse_args()
    quick = options.quick
    load = f"{os.getloadavg()[0]:.1f}"
    with tempfile.TemporaryDirectory(prefix="limosa-hub-") as folder:
        place = Path(folder)
        for name in ("series", "planning", "serving"):
            (place / name).mkdir()
        parts = [_TITLE.format(machine=machine.describe(), load=load)]
        parts.append(_series(series.run(place / "series", options.cache)))
        versions, plans = (1_000, 20) if quick else (10_000, 200)
        parts.append(_plans(planning.plan(place / "planning", versions, plans, 3 if quick else 10)))
        nbytes, rounds = (10**7, 5) if quick else (10**8, 60)
        rates = serving.serve(place / "serving", nbytes, rounds, (1, 4))
        parts.append(_rates(rates, nbytes, rounds))
    text = "\n".join(parts)
    print(text)
    if options.out is not None:
        (options.out / f"hub-{machine.slug()}.md").write_text(text, "utf-8")


def _judged(found: float, target: float, at_most: bool) -> str:
    reached = found <= target if at_most else found >= target
    return "reached" if reached else "**missed**"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _series(found: series.Series) -> str:
    pulled, raw = found.pulled, found.others["the file"]
    update, stranger = pulled["v1-v3"], pulled["stranger"]
    sent = [one for one in found.pushed if one.base]
    worst = max((one.up + one.down) / one.nbytes for one in sent)
    most = max(
        max(p.nbytes for k, p in pulled.items() if k != "stranger") / found.whole,
        stranger.nbytes / found.stranger,
    )
    share, direct = update.nbytes / found.whole, update.nbytes / found.direct
    same = sum(one.same for one in pulled.values())
    targets = [
        ["v1 to v3, bytes / whole compressed model", "≤ 0.30", f"{share:.4f}",
         _judged(share, series.MOST_OF_WHOLE, True)],
        ["v1 to v3, bytes / v3 encoded against v1", "≤ 1.02", f"{direct:.4f}",
         _judged(direct, series.MOST_OF_DIRECT, True)],
        ["any pull, bytes / whole compressed model, at most", "≤ 1", f"{most:.4f}",
         _judged(most, 1.0, True)],
        ["push, all bytes on the wire both ways / update, at most", "≤ 1.02", f"{worst:.4f}",
         _judged(worst, series.MOST_SENT, True)],
        ["pulled files with the SHA-256 of what was pushed", "all", f"{same} of {len(pulled)}",
         "reached" if same == len(pulled) else "**missed**"],
    ]  # fmt: skip
    pushes = [
        [f"push {p.name}" + (f" against {p.base}" if p.base else ""), "1", f"{p.nbytes:,}",
         f"{p.nbytes / raw:.4f}", f"{p.up:,}", f"{p.down:,}"]
        for p in found.pushed
    ]  # fmt: skip
    pulls = [
        [f"pull: {p.name}", f"{p.hops}", f"{p.nbytes:,}", f"{p.nbytes / raw:.4f}", f"{p.up:,}",
         f"{p.down:,}"]
        for p in pulled.values()
    ]  # fmt: skip
    others = [
        [f"v3 by {name}", "", f"{nbytes:,}", f"{nbytes / raw:.4f}", "", ""]
        for name, nbytes in [
            *found.others.items(), ("limosa, alone", found.whole),
            ("limosa against v1, without a hub", found.direct),
        ]
    ]  # fmt: skip
    return "\n".join([
        "## Delivering a fine-tune",
        "",
        "EfficientNet-Lite0 as BF16: v1 is the pretrained network, v2 and v3 come after 60 and 120 "
        "steps of a fine-tune; the stranger is v3 with the values of each tensor shuffled. A real "
        "hub, real pushes and pulls, a TCP proxy between that counts all bytes but TCP's own.",
        "",
        _table(["", "target", "found", ""], targets),
        _table(
            ["", "blobs", "bytes of blobs", "of the file", "wire, to the hub", "from it"],
            pushes + pulls + others,
        ),
    ])  # fmt: skip


def _plans(found: planning.Plans) -> str:
    most = planning.MOST_S
    rows = [
        ["over HTTP, warm: median", "< 50 ms", f"{1e3 * statistics.median(found.warm):.1f} ms",
         _judged(statistics.median(found.warm), most, True)],
        ["over HTTP, warm: worst", "", f"{1e3 * max(found.warm):.1f} ms", ""],
        ["the table of edges alone, warm: median", "< 50 ms",
         f"{1e3 * statistics.median(found.inner):.1f} ms",
         _judged(statistics.median(found.inner), most, True)],
        ["the table of edges alone, warm: worst", "", f"{1e3 * max(found.inner):.1f} ms", ""],
        ["over HTTP, first after an edge was added: median", "< 50 ms",
         f"{1e3 * statistics.median(found.grown):.1f} ms",
         _judged(statistics.median(found.grown), most, True)],
        ["over HTTP, first after edges were removed: median", "< 50 ms",
         f"{1e3 * statistics.median(found.shrunk):,.0f} ms",
         _judged(statistics.median(found.shrunk), most, True)],
        ["over HTTP, first of a new hub", "< 50 ms", f"{1e3 * found.start:,.0f} ms",
         _judged(found.start, most, True)],
    ]  # fmt: skip
    return "\n".join([
        "## Planning",
        "",
        f"{found.versions:,} versions and {found.edges:,} edges in SQLite; {len(found.warm)} plans "
        "between versions chosen by chance, for receivers that hold three, with updates that could "
        f"be made and whose sizes are known. Routes have up to {max(found.hops)} blobs.",
        "",
        _table(["", "target", "found", ""], rows),
    ])  # fmt: skip


def _rates(rates: list[serving.Rate], nbytes: int, rounds: int) -> str:
    rows = []
    for one in rates:
        goal = "" if one.target is None else f"≥ {one.target:.2f}"
        verdict = "" if one.target is None else _judged(one.ratio, one.target, False)
        rows.append([
            f"{one.name}, beside {one.beside}", f"{one.clients}",
            f"{statistics.median(one.rates) / 1e6:,.0f} MB/s",
            f"{statistics.median(one.others) / 1e6:,.0f} MB/s", goal, f"{one.ratio:.2f}",
            f"{one.quiet:.2f}", verdict,
        ])  # fmt: skip
    return "\n".join([
        "## Cached blobs",
        "",
        f"One blob of {nbytes / 1e6:.0f} MB over loopback to a process that only reads, "
        f"once a client in each of {rounds} rounds (S3: a quarter). limosa is one worker, "
        "nginx has a worker a core and `sendfile`; behind limosa it runs "
        "[the guide's configuration](../guide/hub-nginx.conf). The S3 is moto, in Python, whose "
        "own speed is what limits a redirected download. Ratios are medians of the rounds'; quiet "
        "ones are of upper quartiles, of rounds that other programs on the machine slowed least.",
        "",
        _table(
            ["", "clients", "it", "the other", "target", "ratio", "quiet ratio", ""], rows
        ),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
