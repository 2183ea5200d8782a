"""The rivals: one file each, all behind ``Rival`` (see interface.py)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from benchmarks.rivals.interface import Rival

# In the order of the tables. A file may hold several settings of one codec.
_FILES = (
    "zlib_", "bzip2", "lzma_", "zstd", "blosc2_", "pcodec_", "openzl_", "zipnn_",
    "xor_zstd", "xor_planes", "xor_zipnn", "bsdiff", "patch_from", "index_value",
)  # fmt: skip


def load_rivals() -> tuple[list[type[Rival]], dict[str, str]]:
    """Return the rivals that can run here, and the reason for every file that cannot."""
    classes: list[type[Rival]] = []
    missing: dict[str, str] = {}
    for file in _FILES:
        try:
            module = importlib.import_module(f"benchmarks.rivals.{file}")
        except ImportError as error:
            missing[file.strip("_")] = str(error)
        else:
            classes.extend(_rivals_in(vars(module), module.__name__))
    return classes, missing


def _rivals_in(names: dict[str, object], module: str) -> Iterator[type[Rival]]:
    for value in names.values():
        if not (isinstance(value, type) and issubclass(value, Rival)):
            continue
        # A class counts once, in the file that defines it, and only when it has a name.
        if value.__module__ == module and "name" in vars(value):
            yield value
