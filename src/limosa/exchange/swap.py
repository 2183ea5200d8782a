"""A new model in the place of an old one: the old one stays until the new one is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from limosa.codec.opening import Model
from limosa.errors import ConfigError
from limosa.files import Restorer
from limosa.files.atomic import AtomicFile
from limosa.limits import Limits


def restore_into(
    output: Path,
    model: Model,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Decode *model* beside *output*, and put it in its place; digests are compared before.

    A file is replaced in one step. A folder cannot be: the old one is renamed, then the new one;
    :func:`finish_swap` mends what a crash between the two leaves.

    Raises:
        FormatError: it is damaged; *output* is as it was.
        ConfigError: a folder would take the place of a file, or the reverse.
    """
    folder = len(model.sources) != 1 or model.sources[0].path != ""
    if output.exists() and output.is_dir() != folder:
        raise ConfigError(
            "the output is a folder and the model is not, or the reverse", where=str(output),
            remedy="name another output",
        )  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    place = _new(output) if folder else output
    if folder:
        shutil.rmtree(place, ignore_errors=True)
    with model, Restorer(model.sources, model.specs, place, limits) as restorer:
        for spec, data in model:
            restorer.write(spec, data)
            if progress is not None:
                progress(data.nbytes)
        restorer.finish()
    if folder:
        _swap_folders(output)


def copy_into(output: Path, source: Path) -> None:
    """Put a copy of a model that is here in the place of *output*."""
    if source == output:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(_new(output), ignore_errors=True)
        shutil.copytree(source, _new(output))
        _swap_folders(output)
        return
    with source.open("rb") as data, AtomicFile(output) as file:
        shutil.copyfileobj(data, file.file, 2**20)
        file.commit()


def finish_swap(output: Path) -> None:
    """End, or take back, a swap of folders that was cut off."""
    old = _old(output)
    if not old.exists():
        return
    if not output.exists():
        os.replace(_new(output) if _new(output).exists() else old, output)
    shutil.rmtree(old, ignore_errors=True)


def _swap_folders(output: Path) -> None:
    shutil.rmtree(_old(output), ignore_errors=True)
    if output.exists():
        os.replace(output, _old(output))
    os.replace(_new(output), output)
    shutil.rmtree(_old(output), ignore_errors=True)


def _new(output: Path) -> Path:
    return output.with_name(f".{output.name}.limosa-new")


def _old(output: Path) -> Path:
    return output.with_name(f".{output.name}.limosa-old")
