"""What any store of blobs must do, as tests to inherit.

A store of your own passes if this collects and passes under pytest::

    class TestMine(BlobStoreSuite):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(tmp_path)

Each call of ``open_store`` opens the same storage, empty at the first call of a test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from limosa.errors import ConfigError, NotFoundError, TransportError
from limosa.hub.store.blobs import BlobStore, blob_key, part_key

_MIB = 2**20
_KEY = blob_key("ab" * 32)

#: What ``open_store`` gives.
Opener = Callable[[], BlobStore]


class BlobStoreSuite:
    """Inherit it, and give a fixture ``open_store``."""

    def test_what_is_put_comes_back(self, open_store: Opener) -> None:
        """Bytes come back in whole, through another opening of the same storage."""
        store = open_store()
        store.put_bytes(_KEY, b"0123456789")
        assert store.size(_KEY) == 10
        assert b"".join(store.stream(_KEY)) == b"0123456789"
        assert store.get_range(_KEY, 0, 10) == b"0123456789"

    def test_another_opening_sees_it(self, open_store: Opener) -> None:
        """A store keeps what another one of the same address has put."""
        open_store().put_bytes(_KEY, b"kept")
        assert open_store().get_range(_KEY, 0, 4) == b"kept"

    def test_ranges_are_slices(self, open_store: Opener) -> None:
        """A range gives what a slice of the bytes would, at every edge."""
        store, data = open_store(), b"0123456789"
        store.put_bytes(_KEY, data)
        for start, end in [(0, 1), (3, 7), (9, 10), (4, 4), (8, 20), (10, 12), (20, 30)]:
            assert store.get_range(_KEY, start, end) == data[start:end], (start, end)
            assert b"".join(store.stream(_KEY, start, end)) == data[start:end], (start, end)
        assert b"".join(store.stream(_KEY, 4)) == data[4:]

    def test_an_empty_blob_is_a_blob(self, open_store: Opener, tmp_path: Path) -> None:
        """No bytes are not the same as no blob."""
        store, path = open_store(), tmp_path / "empty"
        path.touch()
        store.put_file(_KEY, path)
        assert store.size(_KEY) == 0
        assert list(store.stream(_KEY)) == []
        assert store.get_range(_KEY, 0, 5) == b""
        assert [(key, size) for key, size, _ in store.list("blobs/")] == [(_KEY, 0)]

    def test_large_files(self, open_store: Opener, tmp_path: Path) -> None:
        """A file of several parts comes back the same, in pieces no larger than asked for."""
        store, path, back = open_store(), tmp_path / "large", tmp_path / "back"
        data = b"".join(hashlib.sha256(bytes([at])).digest() * 2**15 for at in range(40))
        path.write_bytes(data)
        store.put_file(_KEY, path)
        pieces = list(store.stream(_KEY, chunk=3 * _MIB))
        assert b"".join(pieces) == data
        assert max(map(len, pieces)) <= 3 * _MIB
        assert store.get_range(_KEY, 17 * _MIB - 5, 17 * _MIB + 5) == data[17 * _MIB - 5 :][:10]
        store.fetch(_KEY, back)
        assert back.read_bytes() == data

    def test_a_second_put_replaces(self, open_store: Opener) -> None:
        """The last writer's bytes are there, in whole."""
        store = open_store()
        store.put_bytes(_KEY, b"a long first one")
        store.put_bytes(_KEY, b"short")
        assert b"".join(store.stream(_KEY)) == b"short"

    def test_what_is_missing(self, open_store: Opener, tmp_path: Path) -> None:
        """Reading what is not there says so and leaves nothing; deleting it is no mistake."""
        store, path = open_store(), tmp_path / "none"
        assert store.size(_KEY) is None
        store.delete(_KEY)
        for read in (
            lambda: store.get_range(_KEY, 0, 1),
            lambda: store.get_range(_KEY, 0, 0),
            lambda: list(store.stream(_KEY)),
            lambda: list(store.stream(_KEY, 2, 4)),
            lambda: store.fetch(_KEY, path),
        ):
            assert isinstance(_raised(read), NotFoundError)
        assert list(tmp_path.glob("none*")) == []

    def test_a_missing_source_is_no_missing_blob(self, open_store: Opener, tmp_path: Path) -> None:
        """Who puts a file that is not there gets the system's word, and nothing is stored."""
        store = open_store()
        assert isinstance(
            _raised(lambda: store.put_file(_KEY, tmp_path / "none")), FileNotFoundError
        )
        assert store.size(_KEY) is None

    def test_delete(self, open_store: Opener) -> None:
        """What is deleted is gone, and its neighbours are not."""
        store, other = open_store(), blob_key("ac" * 32)
        store.put_bytes(_KEY, b"1")
        store.put_bytes(other, b"2")
        store.delete(_KEY)
        assert store.size(_KEY) is None
        assert [key for key, _, _ in store.list("blobs/")] == [other]

    def test_list(self, open_store: Opener) -> None:
        """All below a prefix, with bytes and a time, and nothing beside it."""
        store = open_store()
        wanted = {part_key("7f", at): at % 7 for at in range(0, 1100, 100)}
        for key, size in wanted.items():
            store.put_bytes(key, b"x" * size)
        for beside in (part_key("7f0", 0), part_key("7", 0), _KEY):
            store.put_bytes(beside, b"y")
        found = list(store.list("uploads/7f/"))
        assert {key: size for key, size, _ in found} == wanted
        now = datetime.now(timezone.utc)
        assert all(abs(now - modified) < timedelta(minutes=10) for _, _, modified in found)
        assert list(store.list("uploads/none/")) == []
        assert len(list(store.list(""))) == len(wanted) + 3

    def test_keys_stay_inside(self, open_store: Opener) -> None:
        """No key reaches out of the store, or names a file that is being written."""
        store = open_store()
        for key in ("../x", "/etc/passwd", "a//b", "blobs/../../x", "blobs/x#1", ".x", "a/", ""):
            assert isinstance(_raised(partial(store.put_bytes, key, b"x")), ConfigError), key
            assert isinstance(_raised(partial(store.local_path, key)), ConfigError), key

    def test_local_paths_hold_the_bytes(self, open_store: Opener) -> None:
        """Where a store is a folder, the file is what another program may send."""
        store = open_store()
        store.put_bytes(_KEY, b"sent by nginx")
        path = store.local_path(_KEY)
        assert path is None or path.read_bytes() == b"sent by nginx"

    def test_threads(self, open_store: Opener) -> None:
        """Writers of the same key never mix their bytes, and readers see one of them."""
        store = open_store()
        choices = [bytes([at]) * 200_000 for at in range(8)]
        store.put_bytes(_KEY, choices[0])

        def write_and_read(data: bytes) -> bytes:
            store.put_bytes(_KEY, data)
            return b"".join(store.stream(_KEY))

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(write_and_read, choices)) <= set(choices)
        assert [size for _, size, _ in store.list("blobs/")] == [200_000]

    def test_it_answers(self, open_store: Opener) -> None:
        """A check of storage that is there passes, before anything is in it."""
        store = open_store()
        store.check()
        assert list(store.list("blobs/")) == []


def _raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except (NotFoundError, TransportError, ConfigError, OSError) as error:
        return error
    return None
