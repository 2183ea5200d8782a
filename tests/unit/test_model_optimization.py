"""The benchmark of models made smaller: what it writes is what it measured."""

import csv

import pytest
from benchmarks.papers.model_optimization import Row, alone, entropy_row, recipes, trained, write
from benchmarks.papers.updates.data import digits


def test_rows_are_measured_and_written(tmp_path):
    subject = trained("vgg-tiny", digits(), 1)
    rows = [*alone(subject), *recipes(subject, (0.8,))]
    plain = rows[0]
    assert plain.way == "without loss"
    assert plain.lost == 0
    assert plain.accuracy > 60
    by_way = {row.way: row for row in rows}
    assert by_way["90 % pruned"].nonzeros < 0.15 * plain.nonzeros
    assert by_way["half of the channels"].mflop < plain.mflop / 2
    assert by_way["low rank, 40 %"].parameters < plain.parameters / 2
    assert by_way["recipe: 80% pruned, 4 bits"].nbytes < plain.nbytes / 8
    searched = next(row for row in rows if row.way.startswith("search"))
    asked = int(searched.way.split()[-3].replace(",", ""))
    assert 0.95 * asked < searched.nbytes <= asked
    entropy = entropy_row(subject)
    assert entropy[0] == pytest.approx(entropy[1] / entropy[2])
    write(tmp_path, rows, {"vgg-tiny": entropy})
    text = (tmp_path / "model_optimization.md").read_text(encoding="utf-8")
    assert f"| {plain.nbytes:,} |" in text
    assert "entropy of the symbols" in text
    with (tmp_path / "model_optimization.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [Row.__dataclass_fields__.keys() == row.keys() for row in written]
    assert [int(row["nbytes"]) for row in written] == [row.nbytes for row in rows]
