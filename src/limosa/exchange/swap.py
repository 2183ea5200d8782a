"""A new model in the place of an old one: the old one stays until the new one is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from limosa.codec.opening import Model
from limosa.errors import ConfigError
from limosa.exchange.on_disk import is_one_file
from limosa.files import Bundle, Restorer
from limosa.files.folder import is_left_out
from limosa.limits import Limits

Check = Callable[[Path], None]


def _let(place: Path) -> None:
    """Nothing is wrong."""


def restore_into(
    output: Path,
    model: Model | Bundle,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    check: Check = _let,
    guard: Check = _let,
) -> None:
    """Decode *model* beside *output*, and put it in its place; digests are compared before.

    A file is replaced in one step. A folder cannot be: the old one is renamed, then the new one;
    :func:`finish_swap` mends what a crash between the two leaves.

    Args:
        output: a file or a folder.
        model: what reads it.
        limits: what it may ask for.
        progress: is called with the number of tensor bytes done since the last call.
        check: is called with what was written, and raises if it is not as it should be.
        guard: is called with the same just before the swap, and raises if what is at *output*
            must stay.

    Raises:
        FormatError: it is damaged; *output* is as it was.
        ConfigError: a folder would take the place of a file, or the reverse.
    """
    folder = not is_one_file(model.sources)
    if output.exists() and output.is_dir() != folder:
        raise ConfigError(
            "the output is a folder and the model is not, or the reverse", where=str(output),
            remedy="name another output",
        )  # fmt: skip
    place = _room(output)
    with model, Restorer(model.sources, model.specs, place, limits) as restorer:
        for spec, data in model:
            restorer.write(spec, data)
            if progress is not None:
                progress(data.nbytes)
        restorer.finish()
    _install(output, place, check, guard)


def copy_into(output: Path, source: Path, check: Check, guard: Check = _let) -> None:
    """Put a copy of a model that is here in the place of *output*, if *check* lets it.

    Raises:
        ConfigError: a folder would take the place of a file, or the reverse.
    """
    if output.exists() and output.is_dir() != source.is_dir():
        raise ConfigError(
            "the output is a folder and the model is not, or the reverse", where=str(output),
            remedy="name another output",
        )  # fmt: skip
    place = _room(output)
    if source.is_dir():

        def left_out(folder: str, names: list[str]) -> list[str]:
            at = Path(folder).relative_to(source)
            return [name for name in names if is_left_out(at / name)]

        shutil.copytree(source, place, ignore=left_out)
    else:
        shutil.copyfile(source, place)
        with place.open("rb") as file:
            os.fsync(file.fileno())
    _install(output, place, check, guard)


def _install(output: Path, place: Path, check: Check, guard: Check) -> None:
    try:
        if place != output:  # what went into a device or a pipe cannot be read again
            check(place)
            guard(place)
    except BaseException:
        _remove(place)
        raise
    _swap(output, place)


def finish_swap(output: Path) -> None:
    """End, or take back, a swap of folders that was cut off, and remove what a killed pull left.

    Only whoever is alone with *output* may call it.
    """
    _drop_leftovers(output)
    old = _old(output)
    if not old.exists():
        return
    if not output.exists():
        os.replace(_new(output) if _new(output).exists() else old, os.path.realpath(output))
    shutil.rmtree(old, ignore_errors=True)


def _room(output: Path) -> Path:
    """Where the new model is written: beside the old one, or, for a device or a pipe, into it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and not output.is_file() and not output.is_dir():
        return output
    place = _new(output)
    _remove(place)
    return place


def _swap(output: Path, place: Path) -> None:
    if place == output:
        return
    # Through a link, as other programs write; the link itself stays.
    real, old = Path(os.path.realpath(output)), _old(output)
    if place.is_file():
        os.replace(place, real)
        return
    _remove(old)
    if real.exists():
        os.replace(real, old)
    os.replace(place, real)
    _remove(old)


def _drop_leftovers(output: Path) -> None:
    """What was being written when a pull was killed: its names are those of pulls alone."""
    new = _new(output)
    if not new.parent.is_dir():
        return
    starts = (new.name, f".{new.name[:200]}.tmp-")
    for left in new.parent.iterdir():
        # A new folder may be whole, and the only one: see finish_swap.
        if left.name.startswith(starts) and not (left == new and left.is_dir()):
            _remove(left)


def _remove(path: Path) -> None:
    # A link is removed, not what it leads to: in a shared folder others may have put it there.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _new(output: Path) -> Path:
    real = Path(os.path.realpath(output))
    return real.with_name(f".{real.name[:200]}.limosa-new")


def _old(output: Path) -> Path:
    real = Path(os.path.realpath(output))
    return real.with_name(f".{real.name[:200]}.limosa-old")
