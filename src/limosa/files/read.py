"""The one way in: a path or a pipe to a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from limosa.errors import ConfigError, FormatError
from limosa.files import folder, npz, onnx, safetensors, torch_pickle
from limosa.files.beginnings import refuse_pointer
from limosa.files.bundle import Bundle
from limosa.limits import Limits

_SUFFIXES = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
    ".onnx": "onnx",
}

_READERS: dict[str, Callable[[Path, Limits], Bundle]] = {
    "safetensors": safetensors.read_file,
    "npz": npz.read_file,
    "torch": torch_pickle.read_file,
    "onnx": onnx.read_file,
    "index": folder.read_index,
    "folder": folder.read_folder,
}


def kind_of(path: str | os.PathLike[str]) -> str:
    """What *path* is taken for: ``folder``, ``index`` or a kind of file, by its suffix.

    >>> kind_of("model.safetensors.index.json")
    'index'

    Raises:
        FormatError: the suffix is unknown.
    """
    path = Path(path)
    if path.is_dir():
        return "folder"
    if path.name.endswith(folder.INDEX_SUFFIX):
        return "index"
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise FormatError(
            "unknown kind of file",
            where=str(path),
            found=f"suffix {path.suffix!r}",
            allowed=f"{', '.join(_SUFFIXES)}, *{folder.INDEX_SUFFIX} or a folder",
            remedy="rename it, or say its kind",
        )
    return kind


def read(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    kind: str | None = None,
    limits: Limits | None = None,
) -> Bundle:
    """The bundle of a file, a folder or a binary stream.

    Args:
        source: a path, or a stream of a safetensors file, which is read as it comes.
        kind: ``safetensors``, ``npz``, ``torch``, ``onnx``, ``index`` or ``folder``; told from
            the name of a path where it is not given.
        limits: caps on what the file may ask for.

    Raises:
        ConfigError: there is no such path, or the kind is unknown or does not fit a stream.
        FormatError: the file is not what it should be; see the readers for which.
        MissingExtraError: the kind needs an extra that is not installed.

    >>> import io
    >>> header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    >>> bundle = read(io.BytesIO(len(header).to_bytes(8, "little") + header + b"a"))
    >>> [(spec.name, data.tobytes()) for spec, data in bundle]
    [('w', b'a')]
    """
    limits = limits or Limits()
    if not isinstance(source, str | os.PathLike):
        if kind not in (None, "safetensors"):
            raise ConfigError(
                "only safetensors can be read from a pipe",
                found=repr(kind),
                remedy="write it to a file first",
            )
        return safetensors.read_stream(source, limits)
    path = Path(source)
    if not path.exists():
        raise ConfigError("no such file or folder", where=str(path))
    if path.is_file():
        refuse_pointer(path)
    kind = kind or kind_of(path)
    if kind not in _READERS:
        raise ConfigError("unknown kind", found=repr(kind), allowed=", ".join(_READERS))
    if path.is_dir() != (kind == "folder"):
        raise ConfigError(f"not a {kind}", where=str(path), remedy="leave the kind out")
    return _READERS[kind](path, limits)
