"""The document's table of footprints, beside networks that are at hand."""

from benchmarks.papers.footprints import DOCUMENT, doubts, measure, table


def test_networks_of_this_repository_have_what_the_document_says():
    rows = {cell.name: cell for cell in DOCUMENT}
    for name, parameters in (("VGG-16", 138_357_544), ("ResNet-50", 25_557_032)):
        found = measure(rows[name])
        assert found.parameters == parameters
        assert doubts(rows[name], found) == []


def test_garbled_cells_are_marked():
    rows = {cell.name: cell for cell in DOCUMENT}
    assert "no number" in doubts(rows["Inception-v3"], None)[0]
    assert "1385 million" in doubts(rows["FasterRCNN-VGG"], None)[0]
    lines = table()
    assert len(lines) == 2 + 12
    assert all(line.count("|") == 10 for line in lines)
