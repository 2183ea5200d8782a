"""Models as they lie on this machine: which kind of file they are, and what that means for them.

A name tells the kind of a file that somebody made. It does not tell that of what was pulled to a
name without an ending, and it does not tell a compressed file from a model.
"""

from __future__ import annotations

import os
from pathlib import Path

from limosa.codec.base import Base
from limosa.codec.constants import MAGIC, REFINEMENT_MAGIC, SET_MAGIC
from limosa.codec.decoder import Reader
from limosa.codec.opening import first_bytes, open_model
from limosa.errors import ConfigError, FormatError
from limosa.exchange.forms import make_manifest
from limosa.files import Bundle, read
from limosa.files.bundle import Source
from limosa.files.read import kind_of
from limosa.hub.manifest import Manifest
from limosa.limits import Limits

#: A ``.limosa`` file of a whole model: one may start from it, but it is not the model.
COMPRESSED = "limosa"
#: What comes back the same when its one file, or its folder, is copied. The others have files
#: beside them that their names do not tell.
COPIED = ("safetensors", "npz", "torch", "folder")

_ZIP = b"PK\x03\x04"
_HEAD = 30 + 255
# Of a ModelProto: ir_version, then producer_name, opset_import, graph or what else may be next.
_ONNX, _ONNX_NEXT = 0x08, (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)


def kind_here(path: str | os.PathLike[str], hint: str = "") -> str:
    """The kind of a model: of its first bytes where these tell, else *hint*, else of its name.

    Args:
        path: of a file or a folder.
        hint: what it was when somebody last knew.

    Raises:
        ConfigError: there is no such path, or it is an update or a set, from which nothing starts.
        FormatError: neither bytes nor name tell.
    """
    place = Path(path)
    if place.is_dir():
        return "folder"
    first = first_bytes(place)
    if first in (SET_MAGIC, REFINEMENT_MAGIC) or (first == MAGIC and _needs_base(place)):
        raise ConfigError(
            "an update or a set of models is no model to start from", where=os.fspath(path),
            remedy="apply or decompress it first, and name what that gives",
        )  # fmt: skip
    if first == MAGIC:
        return COMPRESSED
    with place.open("rb") as file:
        head = file.read(_HEAD)
    told = _told_by(head)
    if told is None and hint not in ("", "folder", COMPRESSED):
        told = hint
    if told is not None:
        return told
    try:
        return kind_of(place)
    except FormatError:
        if len(head) > 2 and head[0] == _ONNX and head[1] < 0x80 and head[2] in _ONNX_NEXT:
            return "onnx"
        raise


def _told_by(head: bytes) -> str | None:
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return "safetensors"
    if head.startswith(_ZIP):
        # The first name of the archive: numpy and torch each have endings of their own.
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        if name.endswith(b".npy"):
            return "npz"
        if name.endswith(b"/data.pkl"):
            return "torch"
    return None


def _needs_base(path: Path) -> bool:
    with open_model(path) as model:
        return model.base_digest is not None


def kind_of_sources(sources: tuple[Source, ...] | list[Source]) -> str:
    """The kind of what these files are written to.

    >>> kind_of_sources([Source("", "npz", b"", ())])
    'npz'
    >>> kind_of_sources([Source("config.json", "bytes", b"", ())])
    'folder'
    """
    return sources[0].kind if is_one_file(sources) else "folder"


def is_one_file(sources: tuple[Source, ...] | list[Source]) -> bool:
    """Whether they are written to a file, and not to a folder."""
    return len(sources) == 1 and sources[0].path == ""


def check_pushable(path: str | os.PathLike[str]) -> None:
    """Refuse what was compressed: a version is the model itself.

    Raises:
        FormatError: it is a ``.limosa`` file, an update or a set.
        ConfigError: there is no such file.
    """
    if first_bytes(path) in (MAGIC, REFINEMENT_MAGIC, SET_MAGIC):
        raise FormatError(
            "a compressed file is no model", where=os.fspath(path), found="a .limosa file",
            allowed="the model that it was made of",
            remedy="decompress or apply it, and push what that gives; a push compresses by itself",
        )  # fmt: skip


def read_here(path: str | os.PathLike[str], kind: str, *, limits: Limits | None = None) -> Bundle:
    """The bundle of a model of a known kind, which is not compressed.

    Raises:
        FormatError: it is damaged.
        ConfigError: there is no such path.
    """
    return read(path, kind=kind, limits=limits)


def open_here(
    path: str | os.PathLike[str],
    kind: str = "",
    *,
    limits: Limits | None = None,
    threads: int | None = None,
) -> Base:
    """A model as what one starts from.

    Args:
        path: of a file or a folder.
        kind: as :func:`kind_here` gave it; looked at again where it is not known, or where a
            compressed file took the place of what it was.
        limits: for reading it.
        threads: for its digests.

    Raises:
        FormatError: it is damaged.
        ConfigError: there is no such path, or nothing starts from it.
    """
    kind = kind_here(path, kind)
    if kind != COMPRESSED:
        return Base.from_bundle(read_here(path, kind, limits=limits), threads=threads)
    model = open_model(path, limits=limits, threads=threads)
    assert isinstance(model, Reader)  # a refinement has no kind
    return model.as_base()


def manifest_here(
    path: str | os.PathLike[str],
    kind: str = "",
    *,
    limits: Limits | None = None,
    threads: int | None = None,
) -> Manifest:
    """The manifest of a model; see :func:`open_here`.

    Of a compressed file it is what the file says of itself.
    """
    base = open_here(path, kind, limits=limits, threads=threads)
    return make_manifest(base.digest, list(base.specs.values()), base.digests, base.sources)


def state_here(
    path: str | os.PathLike[str],
    kind: str = "",
    *,
    limits: Limits | None = None,
    threads: int | None = None,
) -> str:
    """The state of a model, of which every byte is read; of a compressed file, decoded.

    Raises:
        FormatError: it is damaged.
        ConfigError: as for :func:`open_here`.
    """
    if kind_here(path, kind) != COMPRESSED:
        return open_here(path, kind, limits=limits, threads=threads).digest.hex()
    with open_model(path, limits=limits, threads=threads, verify=True) as model:
        for _ in model:
            pass
        return model.digest.hex()
