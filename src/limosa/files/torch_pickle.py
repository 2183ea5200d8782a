"""PyTorch files (.pt, .pth, .bin, .ckpt): restored tensor for tensor in the same structure.

They are pickles, and are read with ``torch.load(weights_only=True)`` alone, which runs no code of
the file's. The structure travels as JSON (see ``tree.py``), never as a pickle: the skeleton is a
packed object with ``root``, ``leaves`` and ``views`` (see ``torch_storage.py``).
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, BinaryIO

import numpy as np

from limosa.errors import CorruptError, FormatError, LimitError
from limosa.files.beginnings import head_of, recognise
from limosa.files.bundle import Bundle, Namer, Source
from limosa.files.header import unique_keys
from limosa.files.pack import pack, unpack
from limosa.files.torch_storage import (
    Rebuilder,
    View,
    check_tensor,
    check_views,
    dtype_name,
    import_torch,
    lay_out,
)
from limosa.files.tree import TreeDecoder, TreeEncoder
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec

# What torch says that it did not load, in any of its sentences.
_GLOBAL = re.compile(r"(?:GLOBAL|unsupported class|Unsupported class) ([\w.]{1,200})")
_OPERAND = re.compile(r"Unsupported operand (\d{1,3})")
# A sequence for a terminal.
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read_file(path: str | os.PathLike[str], limits: Limits) -> Bundle:
    """The bundle of a state dict or of a whole checkpoint.

    Raises:
        MissingExtraError: torch is not installed.
        FormatError: the file is malformed, asks to run code, or holds what cannot be kept.
        LimitError: it holds more than *limits* allow.
    """
    value = _load(path, limits)
    collector = _Collector()
    root = TreeEncoder(collector.leaf).encode(value)
    blocks, views = lay_out(collector.tensors)
    skeleton = {"root": root, "leaves": collector.leaves, "views": [astuple(v) for v in views]}
    try:
        text = json.dumps(skeleton, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise FormatError("cannot be kept", where=str(path), found=str(error)) from None
    if len(text) > limits.max_header_bytes:
        raise LimitError(
            "the structure beside the tensors is too large",
            where=str(path),
            found=f"{len(text)} bytes",
            allowed=f"max_header_bytes {limits.max_header_bytes}",
            remedy="pass a larger Limits to read it",
        )
    specs = [block.spec for block in blocks]
    source = Source("", "torch", pack(text), tuple(spec.name for spec in specs))
    return Bundle([source], specs, lambda i: blocks[i].data, limits=limits)


def _load(path: str | os.PathLike[str], limits: Limits) -> Any:
    torch = import_torch("reading a PyTorch file")
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_archive(path, limits)
    try:
        with warnings.catch_warnings():
            # torch warns of forms of pickles that it then refuses: one message is enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise _refused(str(error), path) from None
    except MemoryError:
        raise LimitError("the file asks for more memory than there is", where=str(path)) from None
    # A malformed file can make torch raise anything; it stays this file's fault.
    except Exception as error:
        raise CorruptError(
            "torch cannot read the file",
            where=str(path),
            found=_known(path) or _one_line(f"{type(error).__name__}: {error}"),
            remedy="fetch it again, or save it again with torch.save",
        ) from None


def _refused(said: str, path: str | os.PathLike[str]) -> CorruptError:
    """The error for a pickle that torch does not load safely, from what torch says of it.

    Torch's own words go on for ten lines with ways to load the file all the same, which is no
    advice for a file of somebody else's.
    """
    name = _GLOBAL.search(said)
    if name is not None:
        return CorruptError(
            "the file asks for something that could run code, and was not loaded",
            where=str(path),
            found=name[1],
            allowed="tensors, numbers and strings in dicts, lists and tuples",
            remedy="save model.state_dict() instead of the model",
        )
    operand = _OPERAND.search(said)
    return CorruptError(
        "not a PyTorch file, or one that asks to run code",
        where=str(path),
        found=_known(path) or ("a pickle" + (f" with operand {operand[1]}" if operand else "")),
        allowed="what torch.save writes of tensors, numbers and strings",
        remedy="save model.state_dict() with torch.save",
    )


def _known(path: str | os.PathLike[str]) -> str | None:
    """What the file is by its first bytes, where these are not those of a PyTorch file."""
    head = head_of(path)
    known = None if head.startswith(b"PK") else recognise(head)
    return None if known is None else known.name


def _one_line(text: str) -> str:
    """The beginning of what torch says, without line ends and what moves a cursor."""
    return " ".join(_ESCAPE.sub("", text).split())[:160]


def _check_archive(path: str | os.PathLike[str], limits: Limits) -> None:
    """The sizes after decompression, before torch allocates them."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CorruptError("not a zip archive", where=str(path), found=str(error)[:160]) from None
    if total > limits.max_total_bytes:
        raise LimitError(
            "too many bytes in all",
            where=str(path),
            found=str(total),
            allowed=f"max_total_bytes {limits.max_total_bytes}",
            remedy="pass a larger Limits to read it",
        )


class _Collector:
    """Numbers the leaves of a tree: tensors, and the few plain types of torch's."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, Any]] = []
        self.leaves: list[list[Any]] = []
        self._name = Namer()

    def leaf(self, value: Any, path: tuple[str, ...]) -> int:
        torch = import_torch("reading a PyTorch file")
        where = f"entry {'.'.join(path)[:80]!r}"
        if isinstance(value, torch.Tensor):
            check_tensor(value, where)
            self.leaves.append(["view", len(self.tensors)])
            plain = value.resolve_conj().resolve_neg()
            self.tensors.append((self._name(".".join(path) or "tensor"), plain))
        elif isinstance(value, torch.dtype):
            self.leaves.append(["dtype", dtype_name(value)])
        elif isinstance(value, torch.device):
            self.leaves.append(["device", str(value)])
        elif isinstance(value, torch.Size):
            self.leaves.append(["size", *value])
        else:
            raise FormatError(
                "a value that cannot be kept",
                where=where,
                found=type(value).__qualname__,
                allowed="tensors, numbers and strings in dicts, lists and tuples",
                remedy="remove it from the checkpoint",
            )
        return len(self.leaves) - 1


class TorchWriter:
    """Collects the tensors, then writes the file with ``torch.save``."""

    def __init__(
        self, file: BinaryIO, source: Source, specs: Sequence[TensorSpec], limits: Limits
    ) -> None:
        import_torch("restoring a PyTorch file")
        self._file = file
        self._specs = list(specs)
        self._blocks: list[Bytes] = []
        text = unpack(source.skeleton, limits.max_header_bytes)
        self._root, self._leaves, self._views = _parse_skeleton(text)
        check_views(self._views, self._specs)

    def write(self, spec: TensorSpec, data: Bytes) -> None:
        """Keep a copy: the caller may reuse *data*."""
        self._blocks.append(np.array(data, dtype=np.uint8, copy=True))

    def finish(self) -> None:
        """Rebuild the structure and write it."""
        torch = import_torch("restoring a PyTorch file")
        rebuilder = Rebuilder(self._specs, self._blocks)
        leaves = self._leaves

        def leaf(n: int) -> Any:
            tag, *args = leaves[n]
            if tag == "view":
                return rebuilder.build(self._views[args[0]])
            if tag == "dtype" and isinstance(getattr(torch, args[0], None), torch.dtype):
                return getattr(torch, args[0])
            if tag == "device":
                try:
                    return torch.device(args[0])
                except RuntimeError as error:
                    raise CorruptError("bad device", where="skeleton", found=str(error)) from None
            if tag == "size":
                return torch.Size(args)
            raise CorruptError("unknown leaf", where="skeleton", found=repr(leaves[n])[:80])

        value = TreeDecoder(leaf).decode(self._root)
        try:
            torch.save(value, self._file)
        except (RuntimeError, TypeError, ValueError) as error:
            raise CorruptError(
                "torch cannot write the value", where="skeleton", found=str(error)[:160]
            ) from None


def _parse_skeleton(text: bytes) -> tuple[Any, list[list[Any]], list[View]]:
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
        root, leaves, rows = value["root"], value["leaves"], value["views"]
        views = [_parse_view(*row) for row in rows]
        if not isinstance(leaves, list) or not all(isinstance(leaf, list) for leaf in leaves):
            raise ValueError("leaves are not lists")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError("bad skeleton", where="skeleton", found=str(error)[:120]) from None
    return root, leaves, views


def _parse_view(
    block: int,
    whole: bool,
    dtype: str,
    shape: list[int],
    strides: list[int],
    offset: int,
    requires_grad: bool,
    parameter: bool,
) -> View:
    numbers = (block, offset, *shape, *strides)
    flags = (whole, requires_grad, parameter)
    if not all(type(n) is int for n in numbers) or not all(type(f) is bool for f in flags):
        raise ValueError("a view of other types")
    if not isinstance(dtype, str):
        raise ValueError("a dtype that is no string")
    return View(block, whole, dtype, tuple(shape), tuple(strides), offset, requires_grad, parameter)
