"""A decoded version on a hub's disk: its tensors in one file, and beside them what makes the
receiver's files of them. So it can be encoded again exactly, whatever kind of files it came from.

In that file tensors have numbers for names: other kinds of files allow names that it does not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limosa.codec.base import Base
from limosa.codec.opening import Model
from limosa.errors import ConfigError, CorruptError
from limosa.files import Bundle, Restorer
from limosa.files.bundle import Source
from limosa.files.safetensors import bundle_from_tensors, read_file
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec

_TENSORS, _SOURCES = "tensors.safetensors", "sources.json"


def unpack(model: Model, folder: Path, limits: Limits) -> None:
    """Decode all of *model* into *folder*, which is made; digests are compared if the model does.

    Raises:
        FormatError: it is damaged.
        FileExistsError: there is such a folder.
    """
    model.check_ready()
    with model:
        write_unpacked(model, folder, limits)


def write_unpacked(model: Model | Bundle, folder: Path, limits: Limits) -> None:
    """Write all tensors of *model* into *folder*, which is made, and what stands beside them."""
    folder.mkdir()
    numbered = [replace(spec, name=str(i)) for i, spec in enumerate(model.specs)]
    plain = bundle_from_tensors({}).sources[0]
    source = replace(plain, tensors=tuple(spec.name for spec in numbered))
    with Restorer([source], numbered, folder / _TENSORS, limits) as restorer:
        for spec, (_, data) in zip(numbered, model, strict=True):
            restorer.write(spec, data)
        restorer.finish()
    records = {
        "names": [spec.name for spec in model.specs],
        "sources": [
            {
                "path": source.path,
                "kind": source.kind,
                "skeleton": base64.b64encode(source.skeleton).decode(),
                "tensors": list(source.tensors),
            }
            for source in model.sources
        ],
    }
    (folder / _SOURCES).write_text(json.dumps(records), encoding="utf-8")


def open_unpacked(folder: Path, limits: Limits) -> Bundle:
    """The bundle that was decoded into *folder*; it is to be closed.

    Raises:
        FormatError: somebody changed it.
    """
    try:
        records = json.loads((folder / _SOURCES).read_text(encoding="utf-8"))
        names, sources = list(records["names"]), [_source(one) for one in records["sources"]]
        tensors = read_file(folder / _TENSORS, limits)
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise _changed(folder, str(error)) from error
    if len(names) != len(tensors):
        tensors.close()
        raise _changed(folder, f"{len(tensors)} tensors, {len(names)} names")
    return _named(tensors, names, sources, limits)


def _named(
    tensors: Bundle, names: Sequence[str], sources: Sequence[Source], limits: Limits
) -> Bundle:
    numbered = tensors.specs
    specs: list[TensorSpec] = [
        replace(spec, name=name) for spec, name in zip(numbered, names, strict=True)
    ]

    def load(number: int) -> Bytes:
        return tensors.get(numbered[number].name).data

    return Bundle(sources, specs, load, limits=limits, close=tensors.close)


def _source(record: Any) -> Source:
    skeleton = base64.b64decode(record["skeleton"])
    return Source(record["path"], record["kind"], skeleton, tuple(record["tensors"]))


def _changed(folder: Path, found: str) -> CorruptError:
    return CorruptError(
        "a decoded version was changed", where=folder.name, found=found[:200],
        remedy="remove the folder: it is decoded again when it is needed",
    )  # fmt: skip


def base_of(folder: Path | None, limits: Limits, threads: int | None) -> Base | None:
    """What was decoded into *folder*, as a base; its digest is computed anew."""
    if folder is None:
        return None
    return Base.from_bundle(open_unpacked(folder, limits), threads=threads)
