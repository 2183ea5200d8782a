"""Edges that are made while they are sent: one makes, any number read along."""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from limosa.errors import LimosaError, TransportError

_PIECE = 2**20
Sink = Callable[[bytes], object]


class Making:
    """A file that grows, and those who read it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0
        self._error: BaseException | None = None
        self._done = False
        self._changed = threading.Condition()
        self._file = path.open("xb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        """Append *data*, for all to read."""
        rest = memoryview(data)
        while len(rest):
            rest = rest[self._file.write(rest) :]
        with self._changed:
            self._written += len(data)
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing more comes; with *error*, what came is worth nothing."""
        self._file.close()
        with self._changed:
            self._error, self._done = error, True
            self._changed.notify_all()

    def read(self) -> Iterator[bytes]:
        """All bytes, as they come.

        Raises:
            LimosaError: what went wrong while they were made.
        """
        # Opened at once, not at the first piece: the file loses its name when it is done.
        return self._pieces(self._path.open("rb", buffering=0))

    def _pieces(self, file: io.FileIO) -> Iterator[bytes]:
        with file:
            offset = 0
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._written > offset or self._done)  # noqa: B023
                    if self._written == offset:
                        self._raise()
                        return
                    end = self._written
                while offset < end:
                    piece = file.read(min(_PIECE, end - offset))
                    offset += len(piece)
                    yield piece

    def _raise(self) -> None:
        if isinstance(self._error, LimosaError):
            raise self._error
        if self._error is not None:
            raise TransportError("the edge could not be made", found=str(self._error)[:200])


class Makings:
    """Edges under way in one worker; whoever asks for one that is under way reads along.

    Args:
        folder: for files that grow.
        jobs: edges that are made at once; more wait.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(jobs, "limosa-edge")
        self._under_way: dict[tuple[str, ...], Making] = {}
        self._lock = threading.Lock()

    def stream(self, key: tuple[str, ...], make: Callable[[Sink, Path], None]) -> Iterator[bytes]:
        """The bytes of what *make* writes to its sink, and keeps at the end.

        Args:
            key: equal for equal bytes.
            make: is given where to write, and the path of all that it wrote; who started it may
                go away, it runs to its end.
        """
        with self._lock:
            found = self._under_way.get(key)
            if found is None:
                path = self._folder / f"edge-{secrets.token_hex(8)}.limosa"
                found = Making(path)
                self._begin(key, found, make, path)
            return found.read()

    def _begin(
        self,
        key: tuple[str, ...],
        making: Making,
        make: Callable[[Sink, Path], None],
        path: Path,
    ) -> None:
        try:
            work = self._pool.submit(self._run, key, making, make, path)
        except RuntimeError:
            making.finish()
            path.unlink()
            raise _stops() from None
        self._under_way[key] = making
        work.add_done_callback(lambda done: self._give_up(making, path, done))

    def _give_up(self, making: Making, path: Path, work: Future[None]) -> None:
        """Whoever waits for work that will never begin is told so."""
        if work.cancelled():
            making.finish(_stops())
            path.unlink(missing_ok=True)

    def _run(
        self,
        key: tuple[str, ...],
        making: Making,
        make: Callable[[Sink, Path], None],
        path: Path,
    ) -> None:
        error: BaseException | None = None
        try:
            make(making.write, path)
        except BaseException as found:
            error = found
        finally:
            with self._lock:
                self._under_way.pop(key, None)
                making.finish(error)
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let what is under way end; what has not begun never does."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _stops() -> TransportError:
    return TransportError("the hub stops", remedy="ask again in a moment")
