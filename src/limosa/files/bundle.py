"""A bundle: the tensors of one file, of a folder or of a pipe, and what is left beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from limosa.errors import ConfigError
from limosa.limits import Limits
from limosa.tensors import Bytes, Tensor, TensorSpec, check_specs

KINDS = ("safetensors", "npz", "torch", "onnx", "bytes")


@dataclass(frozen=True)
class Source:
    """One file of a bundle.

    Attributes:
        path: ``""`` for a single file, otherwise a relative POSIX path.
        kind: one of :data:`KINDS`.
        skeleton: all that is needed, beside the tensors, to write the file again.
        tensors: the names of its tensors in the bundle, in the order of their data.
    """

    path: str
    kind: str
    skeleton: bytes
    tensors: tuple[str, ...]


class Bundle:
    """Tensors in a fixed order, read when they are asked for.

    ``load(i)`` gives the bytes of ``specs[i]``. A bundle over a pipe (``random_access`` false)
    calls it once for each tensor, in order, and holds one tensor at a time.

    Raises:
        CorruptError, LimitError: the specs are malformed or exceed *limits*.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        specs: Sequence[TensorSpec],
        load: Callable[[int], Bytes],
        *,
        limits: Limits | None = None,
        random_access: bool = True,
        close: Callable[[], None] | None = None,
    ) -> None:
        self.sources = list(sources)
        self.specs = list(specs)
        self.random_access = random_access
        self.nbytes = check_specs(self.specs, limits or Limits())
        self._load = load
        self._close = close
        self._index = {spec.name: i for i, spec in enumerate(self.specs)}
        self._started = False

    def __iter__(self) -> Iterator[tuple[TensorSpec, Bytes]]:
        """The tensors in order; a bundle over a pipe can be iterated once.

        Raises:
            TruncatedError: the file or the pipe ends before its tensors do.
            ConfigError: a pipe is read a second time.
        """
        if self._started and not self.random_access:
            raise ConfigError("a pipe can be read once", remedy="write it to a file first")
        self._started = True
        for i, spec in enumerate(self.specs):
            yield spec, self._load(i)

    def __len__(self) -> int:
        return len(self.specs)

    def get(self, name: str) -> Tensor:
        """The tensor *name*.

        Raises:
            ConfigError: the bundle has no such tensor, or reads from a pipe.
        """
        if not self.random_access:
            raise ConfigError(
                "a pipe gives its tensors in order only", remedy="write it to a file first"
            )
        try:
            i = self._index[name]
        except KeyError:
            raise ConfigError("no such tensor", where=f"tensor {name!r}") from None
        spec = self.specs[i]
        return Tensor(spec.dtype, spec.shape, self._load(i))

    def close(self) -> None:
        """Release the files. Arrays that were handed out stay valid."""
        if self._close is not None:
            self._close()
            self._close = None

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Namer:
    """Hands out unique tensor names over several files.

    The first to ask for a name gets it; later ones get it behind their file's path, so that
    the names of two versions of a folder agree as far as they can.

    >>> name = Namer()
    >>> name("w", "a.npz"), name("w", "b.npz"), name("w", "b.npz")
    ('w', 'b.npz:w', 'b.npz:w#2')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, name: str, path: str = "") -> str:
        """A name like *name* that nobody has yet."""
        stem = name
        if stem in self._taken and path:
            stem = f"{path}:{name}"
        unique, count = stem, 1
        while unique in self._taken:
            count += 1
            unique = f"{stem}#{count}"
        self._taken.add(unique)
        return unique
