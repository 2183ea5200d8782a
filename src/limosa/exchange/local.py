"""compress, decompress, diff, apply and verify: whole files and folders on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, BinaryIO, cast

from limosa.codec.encoder import EncodeResult, encode
from limosa.codec.joint import Choice, SetResult, choose_base, encode_set
from limosa.codec.layers import encode_layers
from limosa.codec.opening import BaseLike, Model, Path, open_base, open_model
from limosa.codec.quality import Quality
from limosa.errors import ConfigError
from limosa.exchange.originals import refuse_inputs
from limosa.exchange.outputs import open_output
from limosa.exchange.spool import open_stream, to_file
from limosa.files import Bundle, Restorer, read
from limosa.files.atomic import AtomicFolder
from limosa.limits import Limits
from limosa.tensors import state_digest

Progress = Callable[[int], None]
Place = Path | IO[bytes]


@dataclass(frozen=True)
class DiffResult:
    """What came of a diff.

    Attributes:
        encoded: sizes, and the digest of the new model.
        base: the place of the base that was used among the candidates.
        choice: how it was chosen; None where there was only one.
    """

    encoded: EncodeResult
    base: int
    choice: Choice | None


def compress(
    source: Place,
    destination: Place,
    *,
    base: BaseLike | None = None,
    quality: Quality | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    kind: str | None = None,
    progress: Progress | None = None,
) -> EncodeResult:
    """Compress a model: a file, a folder, or a safetensors file that comes through a pipe.

    Args:
        source: what to compress; a pipe is read a tensor at a time.
        destination: a path, which appears whole or not at all, or a binary stream.
        base: a model that the receiver has.
        quality: :class:`Lossless` unless given.
        threads: how many to use; None for all processors. The bytes do not depend on it.
        limits: what the source may ask for.
        kind: of the source, where its name does not tell.
        progress: is called with the number of tensor bytes done since the last call.

    Raises:
        FormatError: the source is damaged.
        ConfigError: a path or a setting is impossible.
        MissingExtraError: the kind of file needs an extra that is not installed.
    """
    refuse_inputs(destination, source, base)
    held = None if base is None else open_base(base, limits=limits, threads=threads)
    with _read(source, kind, limits) as bundle, open_output(destination) as output:
        result = encode(
            bundle,
            output.write,
            base=held,
            quality=quality,
            threads=threads,
            progress=progress,
        )
        output.commit()
    return result


def compress_layers(
    source: Path,
    destination: Place,
    qualities: Sequence[Quality],
    *,
    base: BaseLike | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    kind: str | None = None,
    progress: Progress | None = None,
) -> list[EncodeResult]:
    """Compress a model in layers of quality, coarse to fine.

    A prefix of the file that holds the first k layers decodes to the k-th quality, and what
    follows later is sent once. A target in bytes or bits counts all layers up to its own.

    Args:
        source, destination: paths, as for :func:`compress`, and so the rest.
        qualities: one for each layer.

    Raises:
        ConfigError: there are no layers, or one is out of reach.
        FormatError: the source is damaged.

    Returns:
        One result a layer.
    """
    refuse_inputs(destination, source, base)
    held = None if base is None else open_base(base, limits=limits, threads=threads)
    with _read(source, kind, limits) as bundle, open_output(destination) as output:
        results = encode_layers(
            bundle, output.write, qualities, base=held, threads=threads, progress=progress
        )
        output.commit()
    return results


def compress_set(
    sources: Mapping[str, Path] | Sequence[Path],
    destination: Place,
    *,
    quality: Quality | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> SetResult:
    """Compress several models jointly: each from the cheapest of the others, or alone.

    Args:
        sources: paths, by the names that they shall have in the set; from a sequence, the last
            parts of the paths are the names.
        destination: as for :func:`compress`, and so the rest.

    Raises:
        ConfigError: two models would have one name.
        FormatError: a source is damaged.
    """
    named = sources if isinstance(sources, Mapping) else _named(sources)
    refuse_inputs(destination, *named.values())
    with ExitStack() as stack:
        bundles = {
            name: stack.enter_context(_read(path, None, limits)) for name, path in named.items()
        }
        output = stack.enter_context(open_output(destination))
        result = encode_set(
            bundles, output.write, quality=quality, threads=threads, progress=progress
        )
        output.commit()
    return result


def decompress(
    source: Place,
    destination: Place,
    *,
    base: BaseLike | None = None,
    model: str | None = None,
    layers: int | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> bytes:
    """Restore what was compressed, and return the state digest.

    The digest of a set is made of its models' names and digests, as that of a state is of its
    tensors'.

    Args:
        source: a path or a binary stream.
        destination: a path, which appears whole or not at all, or a binary stream for a single
            safetensors file. All models of a set go into a folder of that name.
        base: the model that the source was coded against, if it was.
        model: of a set, restore only this one.
        layers: of a file with layers of quality, take the first so many; the rest of it need not
            be there.
        threads: how many to use; None for all processors.
        limits: what the source may ask for.
        verify: compare the digests of what was decoded with what the encoder promised.
        progress: is called with the number of tensor bytes done since the last call.

    Raises:
        FormatError: the source is damaged or hostile; nothing is left at *destination*.
        BaseMismatchError: *base* is missing or another one; nothing was written.
        ConfigError: a path or a setting is impossible.
    """
    refuse_inputs(destination, source, base)
    with ExitStack() as stack:
        opened = stack.enter_context(open_stream(source, limits=limits, threads=threads))
        held = None if base is None else open_base(base, limits=limits, threads=threads)
        models = opened.models
        if models is None:
            if model is not None:
                raise ConfigError("not a set of models", found=f"model {model!r} asked for")
            reader = open_model(
                opened.stream, layers, base=held, limits=limits, threads=threads, verify=verify
            )
            return _restore(reader, destination, limits, progress)
        if model is not None:
            chosen = models.open(model, base=held, verify=verify)
            return _restore(chosen, destination, limits, progress)
        if not isinstance(destination, (str, os.PathLike)):
            raise ConfigError("a set goes into a folder", remedy="name one, or choose a model")
        folder = AtomicFolder(destination)
        stack.callback(folder.discard)
        digests = {}
        for name in models.names:
            target = folder.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            one = models.open(name, verify=verify)
            digests[name] = _restore(one, target, limits, progress)
        folder.commit()
        return state_digest(digests)


def diff(
    bases: BaseLike | Sequence[BaseLike],
    new: Place,
    update: Place,
    *,
    quality: Quality | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> DiffResult:
    """Write the update that turns a base into *new*.

    Args:
        bases: one base, or candidates of which the one that gives the smallest update is taken,
            as measured on a sample of *new*.
        new: the model; where there are several candidates, a pipe is first written to a
            temporary file.
        update: as the destination of :func:`compress`, and so the rest.

    Raises:
        ConfigError: there is no base, or a path or a setting is impossible.
        FormatError: a file is damaged.
    """
    candidates = _as_list(bases)
    if not candidates:
        raise ConfigError("no base", remedy="pass one or more")
    refuse_inputs(update, new, *candidates)
    with ExitStack() as stack:
        if len(candidates) > 1 and not isinstance(new, (str, os.PathLike)):
            new = stack.enter_context(to_file(new, ".safetensors"))
        bundle = stack.enter_context(_read(new, None, limits))
        opened = [open_base(base, limits=limits, threads=threads) for base in candidates]
        choice = None
        if len(opened) > 1:
            choice = choose_base(bundle, opened, quality=quality, threads=threads)
        used = 0 if choice is None else choice.number
        output = stack.enter_context(open_output(update))
        encoded = encode(
            bundle,
            output.write,
            base=opened[used],
            quality=quality,
            threads=threads,
            progress=progress,
        )
        output.commit()
    return DiffResult(encoded, used, choice)


def apply(
    base: BaseLike,
    update: Place,
    new: Place,
    *,
    threads: int | None = None,
    limits: Limits | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> bytes:
    """Turn *base* into the new model by *update*, and return the new state digest.

    Raises:
        BaseMismatchError: the update was made from another base; nothing was written.
        ConfigError: *update* is a whole model, which needs no base.
        FormatError: the update is damaged; nothing is left at *new*.
    """
    refuse_inputs(new, update, replaced=base)
    with open_stream(update, limits=limits, threads=threads) as opened:
        if opened.models is not None:
            raise ConfigError("a set of models is no update", remedy="use decompress")
        held = open_base(base, limits=limits, threads=threads)
        reader = open_model(opened.stream, base=held, limits=limits, threads=threads, verify=verify)
        if reader.base_digest is None:
            raise ConfigError("this is a whole model, not an update", remedy="use decompress")
        return _restore(reader, new, limits, progress)


def verify(
    source: Place,
    *,
    base: BaseLike | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Decode everything, compare every checksum and digest, and return the state digest.

    Of a set, every model is verified; the digest is made of the names and digests of its models.

    Raises:
        FormatError: the source is damaged or hostile.
        BaseMismatchError: *base* is missing or another one.
    """
    with open_stream(source, limits=limits, threads=threads) as opened:
        held = None if base is None else open_base(base, limits=limits, threads=threads)
        if opened.models is None:
            reader = open_model(
                opened.stream, base=held, limits=limits, threads=threads, verify=True
            )
            return _drain(reader, progress)
        digests = {
            name: _drain(opened.models.open(name, verify=True), progress)
            for name in opened.models.names
        }
        return state_digest(digests)


def _restore(
    reader: Model,
    destination: Place,
    limits: Limits | None,
    progress: Progress | None,
) -> bytes:
    reader.check_ready()
    out = cast(Path | BinaryIO, destination)
    with reader, Restorer(reader.sources, reader.specs, out, limits) as restorer:
        for spec, data in reader:
            restorer.write(spec, data)
            if progress is not None:
                progress(data.nbytes)
        restorer.finish()
        return reader.digest


def _drain(reader: Model, progress: Progress | None) -> bytes:
    with reader:
        for _, data in reader:
            if progress is not None:
                progress(data.nbytes)
        return reader.digest


def _read(source: Place, kind: str | None, limits: Limits | None) -> Bundle:
    return read(cast(Path | BinaryIO, source), kind=kind, limits=limits)


def _as_list(bases: BaseLike | Sequence[BaseLike]) -> list[BaseLike]:
    if isinstance(bases, Sequence) and not isinstance(bases, str):
        return list(bases)
    return [bases]


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """The paths by their last parts, as many of them as it takes to tell all apart."""
    split = [os.path.abspath(path).split(os.sep) for path in paths]
    for depth in range(1, max(map(len, split), default=0) + 1):
        names = ["/".join(part for part in parts[-depth:] if part) for parts in split]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    raise ConfigError("a model is there twice", found=", ".join(map(str, paths)))
