"""What this machine holds: models by path, and their digests as long as the files stay the same."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limosa.exchange.forms import manifest_of
from limosa.hub.digest import version_digest
from limosa.hub.manifest import Manifest
from limosa.limits import Limits

_FILE = "held.json"


@dataclass(frozen=True)
class Held:
    """A model on this machine.

    Attributes:
        path: where, absolute.
        stamp: of its files: sizes and times; another one means that somebody changed them.
        state, form: as of a manifest.
        reference: what it was pulled or pushed as; "" if nobody said.
    """

    path: str
    stamp: str
    state: str
    form: str
    reference: str = ""

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
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> Held:
        """What a model is; its bytes are read only if it is new, or has changed.

        Raises:
            FormatError: it is damaged.
            ConfigError: there is no such model.
        """
        place = os.path.abspath(path)
        stamp = stamp_of(Path(place))
        for one in self._read():
            if one.path == place and one.stamp == stamp:
                if reference and one.reference != reference:
                    self._put(Held(place, stamp, one.state, one.form, reference))
                return one
        manifest = manifest_of(place, limits=limits, threads=threads)
        return self.remember(place, manifest, reference=reference, stamp=stamp)

    def remember(
        self,
        path: str | os.PathLike[str],
        manifest: Manifest,
        *,
        reference: str = "",
        stamp: str | None = None,
    ) -> Held:
        """Note a model whose manifest is known."""
        place = os.path.abspath(path)
        found = Held(
            place, stamp or stamp_of(Path(place)), manifest.state, manifest.form, reference
        )
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
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def stamp_of(path: Path) -> str:
    """Sizes and times of a file, or of all files of a folder; "" if there is none.

    >>> stamp_of(Path("/nowhere"))
    ''
    """
    try:
        if not path.is_dir():
            found = path.stat()
            return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
        inside = sorted(one for one in path.rglob("*") if one.is_file())
        count, size = len(inside), sum(one.stat().st_size for one in inside)
        latest = max((one.stat().st_mtime_ns for one in inside), default=0)
        return f"{count}-{size}-{latest}-{path.stat().st_ino}"
    except OSError:
        return ""
