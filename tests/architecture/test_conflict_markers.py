"""A merge that was not finished: nobody reads a table of options with two versions of a row."""

import re
import subprocess
from pathlib import Path

# The middle one by itself underlines headings in some formats, so it counts beside another only.
_MARKER = re.compile(rb"^(?:<{7}|>{7}|\|{7})(?: |\r?$)", re.MULTILINE)


def test_no_tracked_text_holds_conflict_markers(repository: Path):
    done = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True)
    names = done.stdout.decode().split("\0")[:-1]
    # Of an unpacked archive there is no list; all that may hold text is looked at then.
    paths = [repository / name for name in names] or [
        path
        for folder in ("docs", "src", "tests", "core", "scripts", "reference", "benchmarks")
        for path in (repository / folder).rglob("*")
    ]
    texts = {path: path.read_bytes() for path in paths if path.is_file()}
    assert len(texts) > 100
    marked = {
        path.relative_to(repository).as_posix()
        for path, content in texts.items()
        if b"\0" not in content[:8192] and _MARKER.search(content)
    }
    assert marked == set()


def test_a_marker_is_found_where_it_begins_a_line():
    assert _MARKER.search(b"a\n<<<<<<" + b"< HEAD\nb")
    assert _MARKER.search(b"a\n>>>>>>" + b"> 869be83\r\n")
    assert not _MARKER.search(b"a <<<<<<" + b"< HEAD\n=======\n<<<<<<<<<<\n")
