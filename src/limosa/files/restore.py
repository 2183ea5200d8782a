"""Files from tensors and skeletons: the way back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO, Protocol

from limosa.errors import ConfigError, CorruptError
from limosa.files.atomic import AtomicFile, AtomicFolder
from limosa.files.bundle import KINDS, Source
from limosa.files.npz import NpzWriter
from limosa.files.onnx import OnnxWriter
from limosa.files.opaque import OpaqueWriter
from limosa.files.paths import check_paths
from limosa.files.safetensors import SafetensorsWriter
from limosa.files.torch_pickle import TorchWriter
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec, check_specs


class Writer(Protocol):
    """Writes one file from its skeleton and from its tensors, which come in order."""

    def write(self, spec: TensorSpec, data: Bytes) -> None:
        """Take the next tensor; *data* may be reused by the caller afterwards."""

    def finish(self) -> None:
        """Write what had to wait for all tensors."""


class _WriterFactory(Protocol):
    def __call__(
        self, file: BinaryIO, source: Source, specs: Sequence[TensorSpec], limits: Limits
    ) -> Writer: ...


_WRITERS: dict[str, _WriterFactory] = {
    "safetensors": SafetensorsWriter,
    "npz": NpzWriter,
    "torch": TorchWriter,
    "onnx": OnnxWriter,
    "bytes": OpaqueWriter,
}

# These write from front to back and so fit a pipe.
_STREAMABLE = ("safetensors", "bytes")


class Restorer:
    """Writes a bundle's file or folder from its sources and, one by one, its tensors.

    *out* is a path or a binary stream. A path takes its name in :meth:`finish`; whatever happens
    before that, nothing is left. A stream gets the bytes as they come, and only from a single
    safetensors or opaque source.

    >>> import io, numpy as np
    >>> from limosa.files import bundle_from_tensors
    >>> from limosa.tensors import Tensor
    >>> bundle = bundle_from_tensors({"w": Tensor.from_numpy(np.ones(2, np.float32))})
    >>> out = io.BytesIO()
    >>> with Restorer(bundle.sources, bundle.specs, out, Limits()) as restorer:
    ...     for spec, data in bundle:
    ...         restorer.write(spec, data)
    ...     restorer.finish()
    >>> len(out.getvalue())
    72

    Raises:
        CorruptError: sources and specs do not belong together, or a path is unsafe.
        ConfigError: *out* cannot take what the sources hold.
        MissingExtraError: a source needs a library that is not installed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        specs: Sequence[TensorSpec],
        out: str | os.PathLike[str] | BinaryIO,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._sources = list(sources)
        self._specs = list(specs)
        _check_match(self._sources, self._specs, self._limits)
        self._output = _open_output(self._sources, out)
        self._written = 0  # tensors
        self._opened = 0  # sources
        self._file: BinaryIO | None = None
        self._writer: Writer | None = None
        self._due = 0  # tensors written when the current source is complete
        try:
            self._advance()
        except BaseException:
            self.discard()
            raise

    def write(self, spec: TensorSpec, data: Bytes) -> None:
        """Take the next tensor.

        Raises:
            ConfigError: it is not the next one of the specs.
            CorruptError: *data* has another length than *spec* says.
        """
        expected = self._specs[self._written] if self._written < len(self._specs) else None
        if spec != expected or self._writer is None:
            raise ConfigError(
                "tensors must be written in the order of the specs",
                where=f"tensor {spec.name!r}",
                allowed="no more tensors" if expected is None else repr(expected.name),
            )
        if data.size != spec.nbytes:
            raise CorruptError(
                "the data have another length than the tensor",
                where=f"tensor {spec.name!r}",
                found=f"{data.size} bytes",
                allowed=f"{spec.nbytes} bytes",
            )
        self._writer.write(spec, data)
        self._written += 1
        self._advance()

    def finish(self) -> None:
        """Give the output its name.

        Raises:
            ConfigError: tensors are missing.
        """
        if self._written != len(self._specs):
            raise ConfigError(
                "tensors are missing",
                found=str(self._written),
                allowed=str(len(self._specs)),
                remedy="write all of them before finish()",
            )
        if isinstance(self._output, AtomicFile | AtomicFolder):
            self._output.commit()
        else:
            self._output.flush()

    def discard(self) -> None:
        """Remove what was written; does nothing after :meth:`finish`."""
        if isinstance(self._output, AtomicFolder) and self._file is not None:
            self._file.close()
        if isinstance(self._output, AtomicFile | AtomicFolder):
            self._output.discard()

    def __enter__(self) -> Restorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def _advance(self) -> None:
        """Close the source that is complete, and open the next that waits for a tensor."""
        while self._written == self._due:
            if self._writer is not None:
                self._writer.finish()
                self._writer = None
            if isinstance(self._output, AtomicFolder) and self._file is not None:
                self._file.close()
            if self._opened == len(self._sources):
                return
            source = self._sources[self._opened]
            self._opened += 1
            self._due += len(source.tensors)
            self._file = _open_file(self._output, source)
            specs = self._specs[self._written : self._due]
            self._writer = _WRITERS[source.kind](self._file, source, specs, self._limits)


_Output = AtomicFile | AtomicFolder | BinaryIO


def _open_output(sources: Sequence[Source], out: str | os.PathLike[str] | BinaryIO) -> _Output:
    single = len(sources) == 1 and sources[0].path == ""
    if isinstance(out, str | os.PathLike):
        return AtomicFile(out) if single else AtomicFolder(out)
    if not single or sources[0].kind not in _STREAMABLE:
        raise ConfigError(
            "only a single safetensors file can be written to a pipe",
            found=sources[0].kind if single else f"{len(sources)} files",
            remedy="name an output file or folder",
        )
    return out


def _open_file(output: _Output, source: Source) -> BinaryIO:
    if isinstance(output, AtomicFolder):
        return output.open(source.path)
    return output.file if isinstance(output, AtomicFile) else output


def _check_match(sources: Sequence[Source], specs: Sequence[TensorSpec], limits: Limits) -> None:
    """Every tensor belongs to one source, in order; every path is safe to write."""
    check_specs(specs, limits)
    for source in sources:
        if source.kind not in _WRITERS:
            raise CorruptError(
                "unknown kind of file",
                where=f"path {source.path!r}",
                found=repr(source.kind),
                allowed=", ".join(KINDS),
            )
    if len(sources) != 1 or sources[0].path != "":
        check_paths((source.path for source in sources), limits)
    if [name for source in sources for name in source.tensors] != [spec.name for spec in specs]:
        raise CorruptError("the tensors of the sources are not those of the file", where="sources")
