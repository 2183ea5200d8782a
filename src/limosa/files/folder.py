"""A model folder, or a sharded model: many files, each of which comes back byte for byte."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

from limosa.errors import ConfigError, CorruptError, FormatError, LimitError
from limosa.files import opaque, safetensors
from limosa.files.bundle import Bundle, Namer, Source
from limosa.files.header import unique_keys
from limosa.files.mapped import map_file
from limosa.files.paths import check_paths
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec, check_specs

INDEX_SUFFIX = ".safetensors.index.json"

log = logging.getLogger("limosa.files")

# SHA-256 of a large file, SHA-1 of git of a small one.
_BLOB = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")

# Folders within folders: more than any model has, less than Python's stack.
_MAX_DEPTH = 64


def read_folder(root: str | os.PathLike[str], limits: Limits) -> Bundle:
    """The bundle of every file below *root*, in the order of their paths.

    Symbolic links to files inside *root* are read as those files, and those of a snapshot in the
    cache of huggingface_hub to the blobs beside it; other links are refused. Folders without files
    are not kept, nor is what :func:`is_left_out` names, which is said once.

    Raises:
        ConfigError: a link leaves *root*, or something is neither a file nor a folder.
        CorruptError: a path would not be safe to write elsewhere.
        LimitError: there are more files or tensors than *limits* allow.
    """
    return _join(Path(root).resolve(), files_of(root, limits), limits)


def files_of(root: str | os.PathLike[str], limits: Limits) -> list[str]:
    """The paths, below *root* and in order, of the files that :func:`read_folder` reads.

    Raises:
        ConfigError, LimitError: as for :func:`read_folder`.
    """
    base = Path(root).resolve()
    left_out: list[str] = []
    paths = sorted(_walk(base, base, limits, 0, left_out))
    if left_out:
        _say_left_out(os.fspath(root), ", ".join(sorted(left_out)))
    return paths


def is_left_out(path: str | PurePath) -> bool:
    """Whether a path in a folder is of ``.git`` or of ``.cache/huggingface``, at any depth.

    Tools put them around a model. They differ from machine to machine, and ``.git/config`` may
    hold a password, so they go nowhere; ``hf upload`` leaves out the same.

    >>> [is_left_out(path) for path in (".git/config", "a/.cache/huggingface/x", ".gitignore")]
    [True, True, False]
    """
    parts = PurePath(path).parts
    return ".git" in parts or (".cache", "huggingface") in pairwise(parts)


@lru_cache(maxsize=64)  # a folder is read several times by one command
def _say_left_out(root: str, names: str) -> None:
    log.warning("%s: left out, as it is no part of the model: %s", root, names)


def read_index(index: str | os.PathLike[str], limits: Limits) -> Bundle:
    """The bundle of a ``*.safetensors.index.json`` and of the shards that it names.

    Raises:
        CorruptError: the index is malformed, or names a path out of its folder.
        ConfigError: a shard is missing.
    """
    path = Path(index)
    base = path.parent.resolve()
    shards = shards_of(path, limits)
    check_paths(shards, limits)  # before any of them is opened
    for shard in shards:
        file = base / shard
        if not file.is_file():
            raise ConfigError(
                "a shard of the index is missing", where=str(file), remedy="fetch it as well"
            )
        _check_inside(file, base)
    return _join(base, sorted({path.name, *shards}), limits)


def shards_of(index: str | os.PathLike[str], limits: Limits) -> list[str]:
    """The distinct files named by the weight map of an index; whether they are there is not asked.

    Raises:
        CorruptError: the index is malformed.
        LimitError: it is longer than *limits* allow.
    """
    path = Path(index)
    if path.stat().st_size > limits.max_header_bytes:
        raise LimitError(
            "the index is too long",
            where=str(path),
            found=f"{path.stat().st_size} bytes",
            allowed=f"max_header_bytes {limits.max_header_bytes}",
            remedy="pass a larger Limits to read it",
        )
    try:
        value: Any = json.loads(path.read_bytes(), object_pairs_hook=unique_keys)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise CorruptError("not JSON", where=str(path), found=str(error)[:120]) from None
    weights = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(v, str) for v in weights.values()):
        raise CorruptError(
            "no weight_map", where=str(path), allowed="a map from tensor names to file names"
        )
    return sorted(set(weights.values()))


def _walk(
    folder: Path, base: Path, limits: Limits, depth: int, left_out: list[str]
) -> Iterator[str]:
    """The relative paths of the files below *folder*, in no particular order."""
    if depth > _MAX_DEPTH:
        raise LimitError(
            "folders are nested too deeply", where=str(folder), allowed=str(_MAX_DEPTH)
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            relative = path.relative_to(base).as_posix()
            if is_left_out(relative):
                left_out.append(relative)
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path, base, limits, depth + 1, left_out)
                continue
            if entry.is_symlink():
                _check_inside(path, base)
            # Never open a pipe or a device: reading it might not end.
            if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
                raise ConfigError(
                    "neither a file nor a folder of files",
                    where=str(path),
                    remedy="remove it, or replace a link by what it points to",
                )
            yield relative


def _check_inside(path: Path, base: Path) -> None:
    target = path.resolve()
    if base not in target.parents and not _is_blob(target, base):
        raise ConfigError(
            "a symbolic link leaves the folder",
            where=str(path),
            found=str(target),
            allowed=f"files below {base}",
            remedy="copy the folder with its links resolved (cp -rL)",
        )


def _is_blob(target: Path, base: Path) -> bool:
    """Whether *target* is a blob of the cache of huggingface_hub in which *base* is a snapshot.

    There a snapshot is a folder of links, ``models--X/snapshots/REVISION/FILE`` to
    ``models--X/blobs/HASH``. Blobs are of that one model, and named by what they hold.
    """
    for snapshot in (base, *base.parents):
        snapshots = snapshot.parent
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
            blobs = snapshots.parent / "blobs"
            return target.parent == blobs and _BLOB.fullmatch(target.name) is not None
    return False


def _join(base: Path, paths: Sequence[str], limits: Limits) -> Bundle:
    """One bundle of many files, tensors in the order of the files."""
    check_paths(paths, limits)
    name = Namer()
    sources: list[Source] = []
    specs: list[TensorSpec] = []
    loads: list[Callable[[], Bytes]] = []
    for path in paths:
        source, own, load = _read_one(base / path, path, name, limits)
        sources.append(source)
        specs += own
        loads += [lambda load=load, i=i: load(i) for i in range(len(own))]  # type: ignore[misc]
    return Bundle(sources, specs, lambda i: loads[i](), limits=limits)


def _read_one(
    file: Path, path: str, name: Namer, limits: Limits
) -> tuple[Source, list[TensorSpec], Callable[[int], Bytes]]:
    if path.endswith(".safetensors"):
        try:
            mapped = safetensors.MappedFile(file, limits)
            check_specs(mapped.header.specs, limits)
        except LimitError:
            raise
        except FormatError:
            # A pointer of Git LFS, a broken download, a file of somebody else's with that
            # suffix: a folder comes back as it was, whatever it holds. See faults.py.
            pass
        else:
            source, specs = safetensors.describe(mapped.header, path, name)
            return source, specs, mapped.load
    data = map_file(file)
    source, specs = opaque.describe(data, path, name, limits)
    if not specs:  # packed already: let go of the mapping
        return source, specs, _no_tensor
    return source, specs, lambda _: data


def _no_tensor(i: int) -> Bytes:
    raise IndexError(i)
