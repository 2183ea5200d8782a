"""What this machine holds: models by path, and their digests as long as the files stay the same."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from limosa.exchange.on_disk import kind_here, manifest_here
from limosa.files.folder import INDEX_SUFFIX, is_left_out
from limosa.hub.digest import version_digest
from limosa.limits import Limits

_FILE = "held.json"
# Each has two names, and a plan takes 10,000 (docs/hub-protocol.md).
_MOST_NAMED = 5000


@dataclass(frozen=True)
class Held:
    """A model on this machine.

    Attributes:
        path: where, absolute.
        stamp: of its files: sizes and times; another one means that somebody changed them.
        state, form: as of a manifest.
        reference: what it was pulled or pushed as; "" if nobody said.
        hub: address of the hub of that reference.
        kind: of the file or the folder (:func:`limosa.exchange.on_disk.kind_here`); "" if an
            older limosa noted it, which looked at names alone.
    """

    path: str
    stamp: str
    state: str
    form: str
    reference: str = ""
    hub: str = ""
    kind: str = ""

    @property
    def digest(self) -> str:
        """The digest of the version."""
        return version_digest(self.state, self.form)


class Inventory:
    """The models that were pulled, pushed or looked at; shared by all processes of a user.

    Args:
        cache: folder for the list.
    """

    def __init__(self, cache: Path) -> None:
        self._path = cache / _FILE

    def look(
        self,
        path: str | os.PathLike[str],
        *,
        reference: str = "",
        hub: str = "",
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> Held:
        """What a model is; its bytes are read only if it is new, or has changed.

        Raises:
            FormatError: it is damaged.
            ConfigError: there is no such model, or it is an update, from which nothing starts.
        """
        place = os.path.abspath(path)
        stamp, hint = stamp_of(Path(place)), ""
        for one in self._read():
            if one.path != place:
                continue
            hint = one.kind
            if one.stamp == stamp and one.kind:
                named = replace(one, reference=reference, hub=hub) if reference else one
                if named != one:
                    self._put(named)
                return named
        kind = kind_here(place, hint)
        manifest = manifest_here(place, kind, limits=limits, threads=threads)
        found = Held(place, stamp, manifest.state, manifest.form, reference, hub, kind)
        self._put(found)
        return found

    def remember(
        self,
        path: str | os.PathLike[str],
        state: str,
        form: str,
        *,
        kind: str = "",
        reference: str = "",
        hub: str = "",
    ) -> Held:
        """Note a model that was just written, so that it need not be read again."""
        place = os.path.abspath(path)
        found = Held(place, stamp_of(Path(place)), state, form, reference, hub, kind)
        self._put(found)
        return found

    def all(self) -> list[Held]:
        """Those whose files are as they were; the list forgets the others."""
        with self._locked():
            listed = self._read()
            good = [one for one in listed if stamp_of(Path(one.path)) == one.stamp]
            if len(good) != len(listed):
                self._write(good)
        return good

    def of_states(self, states: Collection[str]) -> dict[str, Held]:
        """One model of each of these states that is here."""
        return {one.state: one for one in self.all() if one.state in states}

    def forget(self, path: str | os.PathLike[str]) -> None:
        """Do not mention a model again; its files stay."""
        place = os.path.abspath(path)
        with self._locked():
            self._write([one for one in self._read() if one.path != place])

    def _put(self, held: Held) -> None:
        with self._locked():
            rest = [one for one in self._read() if one.path != held.path]
            self._write([*rest, held])

    def _read(self) -> list[Held]:
        try:
            found: list[dict[str, Any]] = json.loads(self._path.read_text(encoding="utf-8"))
            return [Held(**one) for one in found]
        except (OSError, ValueError, TypeError):
            return []  # it can be made again, by looking at the files

    def _write(self, listed: list[Held]) -> None:
        beside = self._path.with_name(f".{_FILE}-{secrets.token_hex(4)}")
        beside.write_text(json.dumps([asdict(one) for one in listed]), encoding="utf-8")
        os.replace(beside, self._path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".lock")):
            yield


def names_of(held: Sequence[Held]) -> list[str]:
    """The digests and states by which a hub may know models: of the newest ones, as a hub listens
    to so many."""
    newest = held[-_MOST_NAMED:]
    return sorted({one.digest for one in newest} | {one.state for one in newest})


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time. A killed one holds nothing up."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(cache: Path, what: str) -> Iterator[None]:
    """One process of this user at a time with an output, or with what is fetched or sent of a
    version."""
    folder = cache / "locks"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(os.fsencode(what)).hexdigest()[:32]
    with locked(folder / name):
        yield


def stamp_of(path: Path) -> str:
    """Sizes and times of a model's files: of all that are of it in a folder, and of what belongs to
    an index of shards or may belong to an ONNX model beside it; "" if there is none.

    >>> stamp_of(Path("/nowhere"))
    ''
    """
    try:
        if not path.is_dir():
            beside = _beside(path)
            if not beside:
                return _stamp(path)
            # Another training changes the shards, and not the index that names them.
            named = [(Path(one.name), one) for one in (path, *beside)]
            return _joined(named)
        inside = sorted(one for one in path.rglob("*") if one.is_file())
        named = [(one.relative_to(path), one) for one in inside]
        return _joined([(name, one) for name, one in named if not is_left_out(name)])
    except OSError:
        return ""


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


def _joined(named: Iterable[tuple[Path, Path]]) -> str:
    each = [f"{name} {_stamp(path)}" for name, path in named]
    return hashlib.sha256("\n".join(each).encode(errors="surrogateescape")).hexdigest()


def _beside(path: Path) -> list[Path]:
    """Files that a model of one name consists of as well, as exporters name them."""
    patterns: tuple[str, ...]
    if path.name.endswith(INDEX_SUFFIX):
        patterns = ("*.safetensors",)
    elif path.suffix == ".onnx":
        stem, name = escape(path.stem), escape(path.name)
        patterns = (f"{name}?*", f"{stem}.data", f"{stem}.bin", f"{stem}.weights")
    else:
        return []
    found = {one for pattern in patterns for one in path.parent.glob(pattern)}
    return sorted(one for one in found if one.is_file())
