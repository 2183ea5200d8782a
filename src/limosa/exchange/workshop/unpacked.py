"""A decoded version on a hub's disk: its tensors in one file, and beside them what makes the
receiver's files of them. So it can be encoded again exactly, whatever kind of files it came from.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

from limosa.codec.base import Base
from limosa.codec.opening import Model
from limosa.files import Bundle, Restorer
from limosa.files.bundle import Source
from limosa.files.safetensors import bundle_from_tensors, read_file
from limosa.limits import Limits
from limosa.tensors import Bytes

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
    plain = bundle_from_tensors({}).sources[0]
    source = replace(plain, tensors=tuple(spec.name for spec in model.specs))
    with Restorer([source], model.specs, folder / _TENSORS, limits) as restorer:
        for spec, data in model:
            restorer.write(spec, data)
        restorer.finish()
    records = [
        {
            "path": source.path,
            "kind": source.kind,
            "skeleton": base64.b64encode(source.skeleton).decode(),
            "tensors": list(source.tensors),
        }
        for source in model.sources
    ]
    (folder / _SOURCES).write_text(json.dumps(records), encoding="utf-8")


def open_unpacked(folder: Path, limits: Limits) -> Bundle:
    """The bundle that was decoded into *folder*; it is to be closed.

    Raises:
        FormatError: somebody changed it.
    """
    tensors = read_file(folder / _TENSORS, limits)
    records = json.loads((folder / _SOURCES).read_text(encoding="utf-8"))
    sources = [
        Source(
            record["path"], record["kind"], base64.b64decode(record["skeleton"]),
            tuple(record["tensors"]),
        )
        for record in records
    ]  # fmt: skip
    specs = tensors.specs

    def load(number: int) -> Bytes:
        return tensors.get(specs[number].name).data

    return Bundle(sources, specs, load, limits=limits, close=tensors.close)


def base_of(folder: Path | None, limits: Limits, threads: int | None) -> Base | None:
    """What was decoded into *folder*, as a base; its digest is computed anew."""
    if folder is None:
        return None
    return Base.from_bundle(open_unpacked(folder, limits), threads=threads)
