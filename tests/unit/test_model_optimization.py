"""The benchmark of models made smaller: what it writes is what it measured."""

import csv
from dataclasses import replace

import pytest
from benchmarks.papers.optimization import report, rivals, ways
from benchmarks.papers.optimization.subjects import LITE0, Row, digits_net
from benchmarks.papers.updates.data import digits


def test_rows_are_measured_and_written(tmp_path):
    subject = digits_net("vgg-tiny", digits(), 1)
    rows = [*rivals.rows(subject), *ways.alone(subject), *ways.recipes(subject, (0.8,))]
    by_way = {row.way: row for row in rows}
    assert len(by_way) == len(rows)
    plain = by_way["without loss"]
    assert plain.lost == 0
    assert plain.metric > 60
    assert by_way["near-lossless"].nbytes < plain.nbytes
    assert by_way["90 % pruned"].nonzeros < 0.15 * plain.nonzeros
    assert by_way["90 % pruned, zip"].nonzeros < 0.15 * plain.nonzeros
    assert by_way["half of the channels"].mflop < plain.mflop / 2
    assert by_way["low rank, 40 % of the parameters"].parameters < plain.parameters / 2
    assert by_way["low rank, 40 % of the FLOPs"].mflop < 0.6 * plain.mflop
    assert by_way["int8 of linear layers, zstd"].receiver_needs == "torchao"
    recipe = by_way["recipe: 80% pruned, 4 bits"]
    assert recipe.nbytes < plain.nbytes / 8
    assert recipe.lost < 15
    for row in rows:
        if row.way.startswith("search"):
            asked = int(row.way.split()[-3].replace(",", ""))
            assert row.nbytes <= asked
            assert "not trained" not in row.way or row.nbytes > 0.95 * asked
    (known,) = [row for row in rows if row.levels]
    assert 0.98 * known.entropy < known.levels < known.nbytes
    report.write(tmp_path, rows)
    again = report.read(tmp_path)
    assert [row.way for row in again] == [row.way for row in rows]
    assert again[-1] == rows[-1]
    text = (tmp_path / "model_optimization.md").read_text(encoding="utf-8")
    assert f"| {plain.nbytes:,} |" in text
    assert "entropy of the symbols" in text
    assert (tmp_path / "model_optimization.png").stat().st_size > 10_000
    with (tmp_path / "model_optimization.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [Row.__dataclass_fields__.keys() == row.keys() for row in written]
    assert [int(row["nbytes"]) for row in written] == [row.nbytes for row in rows]


def test_verdicts_say_what_is_missed():
    def row(way, whose, nbytes, lost, faster=1.0):
        return Row("net", way, whose, nbytes, 1e5 / nbytes, 97 - lost, lost, 9, 9, 1.0, faster)

    rows = [
        row("without loss", "limosa", 80_000, 0.0), row("recipe", "limosa", 4_000, 0.4),
        row("too much", "limosa", 1_000, 9.0), row("int8", "others", 7_000, 0.6),
        row("norms into layers", "limosa", 80_000, 0.0, 0.9),
        replace(row("zeros", "limosa", 9_000, 9.0), levels=1040, entropy=1000.0),
    ]  # fmt: skip
    found = report.verdicts(rows)
    assert "25.0 × (20 asked): reached" in found[0]
    assert "1.75 × its bytes (2 asked): **missed**" in found[1]
    assert "1.040 × the entropy" in found[2]
    assert "**missed**" in found[2]
    assert "0.90 × as fast" in found[3]
    free = report.verdicts([replace(one, network=LITE0) for one in rows])
    assert free[0].endswith("25.0 ×.")
    assert free[1].endswith("1.75 × its bytes.")
    with pytest.raises(StopIteration):
        report.verdicts(rows[1:])
