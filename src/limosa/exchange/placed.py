"""What pulls put into folders: only that is replaced, whatever else lies there is somebody's."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from limosa.errors import ConfigError, NotFoundError
from limosa.exchange.held import Held
from limosa.files.folder import is_left_out
from limosa.hub.client import HubClient

_REMEDY = "move it elsewhere, or name another folder with -o: a model's folder is replaced whole"


class Placed:
    """The files that pulls wrote to each folder, by sizes and times.

    The list of held models forgets a folder as soon as somebody changes it; this does not.

    Args:
        cache: folder for the lists.
    """

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "placed"

    def check(self, output: Path) -> None:
        """Refuse to replace a folder if something would be lost, or where somebody stands in it.

        Args:
            output: where a model shall be; a file, or nothing there, may always be replaced.

        Raises:
            ConfigError: it is, or holds, the current or the home folder; or a file in it was
                not put there by a pull, or has changed since.
        """
        real = Path(os.path.realpath(output))
        if not real.is_dir():
            return
        for name, place in (("the current folder", _current()), ("the home folder", _home())):
            if place is not None and (place == real or real in place.parents):
                raise ConfigError(
                    f"{name} would be replaced", where=str(output),
                    remedy="name a folder for the model alone with -o",
                )  # fmt: skip
        known = self._read(real)
        for path, stamp in sorted(_files(real).items()):
            stamps = [files.get(path) for files in known]
            if stamp in stamps:
                continue
            was = "changed since it was pulled" if any(stamps) else "not of an earlier pull"
            raise ConfigError(
                "a file in the output would be lost", where=str(output), found=f"{path}: {was}",
                allowed="a folder that holds what pull put there, or nothing", remedy=_REMEDY,
            )  # fmt: skip

    def replace(self, output: Path, place: Path) -> None:
        """Note that the folder *place* is about to become *output*, where nothing may be lost.

        What is there now stays noted beside it, as the machine may stop before the swap.

        Raises:
            ConfigError: as for :meth:`check`.
        """
        self.check(output)
        real = Path(os.path.realpath(output))
        if place.is_dir():
            self._write(real, [_files(place), _files(real)])

    def accept(self, output: Path) -> None:
        """Note that the model in *output* is elsewhere as well, and may be replaced; what is left
        out of models is here alone."""
        real = Path(os.path.realpath(output))
        kept = {path: stamp for path, stamp in _files(real).items() if not is_left_out(path)}
        self._write(real, [kept])

    def prune(self) -> None:
        """Forget folders that are gone."""
        for path in self._folder.glob("*.json"):
            with suppress(OSError, ValueError, TypeError, KeyError):
                if not os.path.isdir(json.loads(path.read_text(encoding="utf-8"))["path"]):
                    path.unlink()

    def _write(self, real: Path, files: list[dict[str, str]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(real)
        beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        beside.write_text(json.dumps({"path": str(real), "files": files}), encoding="utf-8")
        os.replace(beside, path)

    def _read(self, real: Path) -> list[Mapping[str, str]]:
        try:
            found = json.loads(self._path(real).read_text(encoding="utf-8"))
            return [dict(one) for one in found["files"]] if found["path"] == str(real) else []
        except (OSError, ValueError, TypeError, KeyError):
            return []  # then nothing is known, and nothing is replaced

    def _path(self, real: Path) -> Path:
        name = hashlib.sha256(os.fsencode(real)).hexdigest()[:32]
        return self._folder / f"{name}.json"


def check_room(
    placed: Placed,
    client: HubClient,
    repository: str,
    want: str,
    output: Path,
    here: Held | None,
) -> None:
    """Refuse to replace what would be lost, before a byte is fetched.

    Args:
        placed: what pulls put where.
        client: of the hub.
        repository, want: the version that shall be at *output*.
        output: a file or a folder, or nothing yet.
        here: what is there, if that is a model.

    Raises:
        ConfigError: *output* is a folder, and the version is a file; or as :meth:`Placed.check`.
        HubError: whatever the hub says.
    """
    if not output.is_dir():
        return
    files = client.version(repository, want)["manifest"]["files"]
    if len(files) == 1 and not files[0]["path"]:
        raise ConfigError(
            "the output is a folder, and the model is one file", where=str(output),
            remedy="name a file in it",
        )  # fmt: skip
    try:
        placed.check(output)
    except ConfigError:
        if here is None or not _is_on_hub(client, repository, here):
            raise
        # Nobody pulled it, and yet it is one of the versions: it can be had again.
        placed.accept(output)
        placed.check(output)


def _is_on_hub(client: HubClient, repository: str, here: Held) -> bool:
    try:
        client.version(repository, f"@{here.digest}")
    except NotFoundError:
        return False
    return True


def _files(folder: Path) -> dict[str, str]:
    """Sizes and times of all below that is no folder; a link is one thing, whatever it leads to.

    They stay when the folder is renamed.
    """
    found = {}
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        for name in (*files, *links):
            path = os.path.join(root, name)
            with suppress(FileNotFoundError):
                stat = os.lstat(path)
                found[os.path.relpath(path, folder)] = f"{stat.st_size}-{stat.st_mtime_ns}"
    return found


def _current() -> Path | None:
    with suppress(OSError):
        return Path(os.path.realpath(os.getcwd()))
    return None


def _home() -> Path | None:
    with suppress(RuntimeError):
        return Path(os.path.realpath(Path.home()))
    return None
