"""Outputs that would take the place of an input, or lie inside of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypeGuard

from limosa.errors import ConfigError, LimosaError
from limosa.limits import Limits

Path = str | os.PathLike[str]


def refuse_inputs(output: object, *inputs: object, replaced: object = None) -> None:
    """Refuse an output that is an input: the original would be gone without a word.

    Links are followed. Of a folder every file is an input, and so is what would come to lie in
    it: the next run would read it. Of an index the shards are inputs as well.

    Args:
        output: where something is to be written; what is no path, and ``-``, is no place.
        inputs: what is read; the same holds.
        replaced: an input whose place the output may take, which ``apply`` promises of its base.

    Raises:
        ConfigError: the output is one of the inputs, or lies in one.

    >>> refuse_inputs("-", "model.safetensors", None)
    >>> refuse_inputs(os.__file__, os.__file__)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    limosa.errors.ConfigError: ...os.py: the output is an input, which would be lost; ...
    """
    if not _is_place(output):
        return
    for path in filter(_is_place, (*inputs, replaced)):
        if path is not replaced and any(_same(output, file) for file in _files_of(path)):
            raise ConfigError(
                "the output is an input, which would be lost",
                where=os.fspath(output),
                remedy="name another file as the output",
            )
        if os.path.isdir(path) and _is_inside(output, path):
            raise ConfigError(
                "the output lies in a folder that is an input",
                where=os.fspath(output),
                remedy=f"name a file outside of {os.fspath(path)}",
            )


def _is_place(path: object) -> TypeGuard[Path]:
    return isinstance(path, (str, os.PathLike)) and os.fspath(path) != "-"


def _files_of(path: Path) -> Iterator[Path]:
    from limosa.files.folder import INDEX_SUFFIX, shards_of

    yield path
    if os.path.isdir(path):
        # A link may lead out of it, in the cache of huggingface_hub.
        for folder, _, names in os.walk(path):
            yield from filter(os.path.islink, (os.path.join(folder, name) for name in names))
    if os.fspath(path).endswith(INDEX_SUFFIX) and os.path.isfile(path):
        try:
            shards = shards_of(path, Limits())
        except LimosaError:
            return  # what is wrong with it is told by whoever reads it
        for shard in shards:
            yield os.path.join(os.path.dirname(path), shard)


def _same(output: Path, path: Path) -> bool:
    # What does not exist yet, or any more, cannot be overwritten.
    return os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path)


def _is_inside(output: Path, folder: Path) -> bool:
    place, root = os.path.realpath(output), os.path.realpath(folder)
    return place != root and os.path.commonpath([place, root]) == root
