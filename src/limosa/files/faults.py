"""What is wrong with the files of a folder, which comes back as it was all the same.

A folder is kept byte for byte, whatever it holds, so a pointer of Git LFS or half a download in
it is no error of reading. Whoever sends it wants to know: at the other side it is no model.
"""

from __future__ import annotations

import os
import posixpath
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from limosa.errors import FormatError, LimitError, TruncatedError
from limosa.files.beginnings import POINTER, head_of, is_pointer
from limosa.files.folder import INDEX_SUFFIX, files_of, shards_of
from limosa.files.paths import check_paths
from limosa.files.safetensors import MappedFile
from limosa.limits import MIB, Limits

_WEIGHTS: Final = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".onnx")
_ZIPPED: Final = (".npz", ".pt", ".pth", ".bin", ".ckpt")
# Weights in a format that limosa does not know are no smaller; notes and settings are.
_LARGE: Final = MIB


@dataclass(frozen=True)
class Fault:
    """A file that is not what its name promises.

    Attributes:
        path: of the file in its folder; ``""`` for the whole.
        why: what is wrong, and where it helps what to do.
    """

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}" if self.path else self.why


def find_faults(model: str | os.PathLike[str], limits: Limits | None = None) -> list[Fault]:
    """What is wrong with a folder, an index and its shards, or a safetensors file.

    Headers are read and no tensors. Of another file nothing is said: reading it tells.

    Args:
        model: the path.
        limits: what a header may ask for.

    Raises:
        ConfigError, CorruptError, LimitError: as for reading the folder.
        FormatError: *model* is a single file that is no model.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "model.safetensors").write_bytes(b"1234")
    ...     [fault.path for fault in find_faults(folder)]
    ['model.safetensors', '']
    """
    root, limits = Path(model), limits or Limits()
    if root.is_dir():
        paths = files_of(root, limits)
        missing = list(_missing_shards(root, paths, limits))
    elif root.name.endswith(INDEX_SUFFIX):
        # That all of them are there is asked, and refused, by the reader.
        root, paths, missing = root.parent, shards_of(root, limits), []
    elif root.suffix == ".safetensors":
        specs = MappedFile(root, limits).header.specs
        return [] if specs else [Fault("", "the model has no tensors")]
    else:
        return []
    check_paths(paths, limits)  # before any of them is opened
    found = [_look_at(root / path, path, limits) for path in paths if (root / path).is_file()]
    faults = [*missing, *(Fault(path, why) for path, why, _ in found if why)]
    if not any(has_tensors for _, _, has_tensors in found):
        faults.append(Fault("", "no file holds tensors"))
    return faults


def _look_at(file: Path, path: str, limits: Limits) -> tuple[str, str, bool]:
    """The path, what is wrong or ``""``, and whether it may hold tensors."""
    if is_pointer(file):
        return path, f"{POINTER.name}; {POINTER.remedy}", False
    if path.endswith(".safetensors"):
        try:
            return path, "", bool(MappedFile(file, limits).header.specs)
        except LimitError:
            raise
        except FormatError as error:
            cut = "truncated: " if isinstance(error, TruncatedError) else ""
            values = f"found {error.found}" + (f", allowed {error.allowed}" if cut else "")
            return path, f"{cut}{error.problem}; {values}", False
    size = file.stat().st_size
    if path.endswith(_WEIGHTS) and size == 0:
        return path, "the file is empty", False
    zipped = path.endswith(_ZIPPED) and head_of(file)[:4] == b"PK\x03\x04"
    if zipped and not zipfile.is_zipfile(file):
        return path, "truncated: a zip archive without its end", False
    return path, "", path.endswith(_WEIGHTS) or size > _LARGE


def _missing_shards(root: Path, paths: Sequence[str], limits: Limits) -> Iterator[Fault]:
    known = set(paths)
    for path in paths:
        if not path.endswith(".index.json"):
            continue
        ours = path.endswith(INDEX_SUFFIX)
        try:
            shards = shards_of(root / path, limits)
        except FormatError as error:
            if ours and not is_pointer(root / path):
                yield Fault(path, f"not an index of shards: {error.problem}")
            continue
        folder = posixpath.dirname(path)
        missing = [name for name in shards if posixpath.join(folder, name) not in known]
        # Many fetch the one form of a model and the index of the other one along with it.
        if ours or len(missing) < len(shards):
            yield from (Fault(path, f"the shard {name} is missing") for name in missing)
