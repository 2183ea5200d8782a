"""Several models in one stream, each coded from the cheapest of the others or from nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from limosa.codec.arborescence import cheapest_tree
from limosa.codec.base import Base
from limosa.codec.config import Lossless, thread_count
from limosa.codec.decoder import Reader
from limosa.codec.encoder import EncodeResult, encode
from limosa.codec.inputs import FileAt, pour
from limosa.codec.measure import Slice, coded_bytes, sample
from limosa.codec.plan import match_names
from limosa.codec.quality import Quality
from limosa.codec.set_table import MAX_CHAIN, Member, write_set_header, write_set_index
from limosa.errors import ConfigError
from limosa.files.bundle import Bundle


@dataclass(frozen=True)
class SetResult:
    """What came of coding a set.

    Attributes:
        bytes_in: bytes of all tensors of all models.
        bytes_out: bytes of the stream.
        bases: model -> the model that it was coded against, or None.
        digests: model -> the state digest of what decoding gives.
    """

    bytes_in: int
    bytes_out: int
    bases: Mapping[str, str | None]
    digests: Mapping[str, bytes]


@dataclass(frozen=True)
class Choice:
    """Which of several bases is the cheapest, and what a sample took against each.

    Attributes:
        number: the place of the cheapest.
        sampled: bytes of the sample against each base.
        intra: bytes of the sample without a base.
        raw: bytes of the sample as it is.
    """

    number: int
    sampled: tuple[int, ...]
    intra: int
    raw: int


def choose_base(
    bundle: Bundle,
    bases: Sequence[Base],
    *,
    quality: Quality | None = None,
    threads: int | None = None,
) -> Choice:
    """The base against which *bundle* takes the fewest bytes, by a spread sample of its chunks.

    Raises:
        ConfigError: there is no base, or *bundle* reads from a pipe.
    """
    if not bases:
        raise ConfigError("no base to choose from", remedy="pass one or more")
    slices = sample(bundle)
    used = quality or Lossless()
    count = thread_count(threads)
    sampled = tuple(
        sampled_bytes(bundle, slices, base, quality=used, threads=count) for base in bases
    )
    return Choice(
        min(range(len(bases)), key=sampled.__getitem__),
        sampled,
        coded_bytes(slices, None, None, used, count),
        sum(piece.end - piece.begin for piece in slices),
    )


def encode_set(
    models: Mapping[str, Bundle],
    sink: Callable[[bytes], object],
    *,
    quality: Quality | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SetResult:
    """Encode several models jointly; the names become those of the set's members.

    The tree of bases is the one with the fewest bytes, as measured by samples of every model
    against every other. With a lossy *quality* a model is coded against what decoding its base
    gives, so errors do not add up.

    Raises:
        ConfigError: there is no model, or one reads from a pipe.
    """
    if not models or not all(bundle.random_access for bundle in models.values()):
        raise ConfigError(
            "a set needs models in files", found=f"{len(models)} models", remedy="pass paths"
        )
    with ExitStack() as stack:
        return _SetEncoding(models, sink, quality or Lossless(), thread_count(threads), stack).run(
            progress
        )


class _SetEncoding:
    def __init__(
        self,
        models: Mapping[str, Bundle],
        sink: Callable[[bytes], object],
        quality: Quality,
        threads: int,
        stack: ExitStack,
    ) -> None:
        self._names = list(models)
        self._bundles = list(models.values())
        self._sink = sink
        self._quality = quality
        self._threads = threads
        self._stack = stack
        self._bases = [Base.from_bundle(bundle, threads=threads) for bundle in self._bundles]
        self._written = 0

    def run(self, progress: Callable[[int], None] | None) -> SetResult:
        parents = self._choose_parents()
        order = _base_first(parents)
        places = {model: place for place, model in enumerate(order)}
        members = [
            Member(self._names[model], None if parent is None else places[parent])
            for model in order
            for parent in [parents[model]]
        ]
        self._write(write_set_header(members))
        results = {}
        for model in order:
            parent = parents[model]
            base = None if parent is None else self._bases[parent]
            results[model] = self._encode_one(model, base, model in parents, progress)
        sizes = [results[model].bytes_out for model in order]
        self._write(write_set_index(sizes, self._written))
        return SetResult(
            sum(result.bytes_in for result in results.values()),
            self._written,
            {
                self._names[model]: None if parent is None else self._names[parent]
                for model, parent in enumerate(parents)
            },
            {self._names[model]: results[model].digest for model in range(len(parents))},
        )

    def _choose_parents(self) -> list[int | None]:
        samples = [sample(bundle) for bundle in self._bundles]
        against = [
            [
                0.0 if base is self._bases[j] else self._estimate(j, samples[j], base)
                for j in range(len(samples))
            ]
            for base in self._bases
        ]
        intra = [self._estimate(j, slices, None) for j, slices in enumerate(samples)]
        return _shortened(cheapest_tree(intra, against))

    def _estimate(self, model: int, slices: Sequence[Slice], base: Base | None) -> float:
        """Bytes that the whole model would take, from its sample."""
        bundle = self._bundles[model]
        took = sampled_bytes(bundle, slices, base, quality=self._quality, threads=self._threads)
        return took * bundle.nbytes / max(1, sum(piece.end - piece.begin for piece in slices))

    def _encode_one(
        self,
        model: int,
        base: Base | None,
        is_base: bool,
        progress: Callable[[int], None] | None,
    ) -> EncodeResult:
        spool: IO[bytes] | None = None
        if is_base and not isinstance(self._quality, Lossless):
            spool = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        result = encode(
            self._bundles[model],
            self._write if spool is None else spool.write,
            base=base,
            quality=self._quality,
            threads=self._threads,
            progress=progress,
        )
        if spool is not None:
            pour(spool, self._write)
            reader = Reader(FileAt(spool), base=base, threads=self._threads)
            self._bases[model] = reader.as_base()
        return result

    def _write(self, piece: bytes) -> None:
        self._sink(piece)
        self._written += len(piece)


def sampled_bytes(
    bundle: Bundle,
    slices: Sequence[Slice],
    base: Base | None,
    *,
    quality: Quality | None = None,
    threads: int | None = None,
) -> int:
    """Bytes that *slices* of *bundle* take against *base*, or against nothing."""
    quality, threads = quality or Lossless(), thread_count(threads)
    if base is None:
        return coded_bytes(slices, None, None, quality, threads)
    names = match_names(bundle, base, quality, threads)
    if names is not None:
        by_name = dict(zip([spec.name for spec in bundle.specs], names, strict=True))
        names = tuple(by_name[piece.spec.name] for piece in slices)
    return coded_bytes(slices, base, names, quality, threads)


def _base_first(parents: Sequence[int | None]) -> list[int]:
    """The models in an order in which each comes after its base."""
    order: list[int] = []
    placed: set[int | None] = {None}
    while len(order) < len(parents):
        for model, parent in enumerate(parents):
            if model not in placed and parent in placed:
                order.append(model)
                placed.add(model)
    return order


def _shortened(parents: Sequence[int | None]) -> list[int | None]:
    """The tree with chains cut where they would be longer than a decoder follows."""
    cut = list(parents)
    depths: dict[int, int] = {}
    for model in _base_first(parents):
        parent = parents[model]
        depths[model] = 1 if parent is None else depths[parent] + 1
        if depths[model] > MAX_CHAIN:
            cut[model], depths[model] = None, 1
    return cut
