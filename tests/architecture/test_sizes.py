"""A room that wants to grow past 400 lines wants to become two."""

from pathlib import Path

MAX_LINES = 400


def test_no_source_file_is_too_long(repository: Path):
    sources = [
        path
        for folder in ("src", "core", "reference", "benchmarks", "scripts")
        for path in (repository / folder).rglob("*")
        if path.suffix in {".py", ".pyi", ".cpp", ".hpp", ".h"}
    ]
    assert sources
    too_long = {}
    for path in sources:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        # The slow decoder is one file on purpose: it is read beside docs/format.md.
        if lines > MAX_LINES and path.name != "limosa_reference.py":
            too_long[path.relative_to(repository).as_posix()] = lines
    assert too_long == {}
