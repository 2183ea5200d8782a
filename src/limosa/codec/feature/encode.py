"""Tensors to features, each alone or predicted from the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.config import Lossless, thread_count
from limosa.codec.constants import FLOAT_DTYPES, core_dtype
from limosa.codec.feature.channels import PROFILED_DTYPES, row_units, to_coded
from limosa.codec.feature.chunks import Held, copies_of, decode_chunks, feature_digest, restored
from limosa.codec.feature.source import FeatureSource
from limosa.codec.feature.wire import FeatureHeader, write_feature
from limosa.codec.quality import Step, Target
from limosa.codec.quantize import Levels
from limosa.errors import ConfigError
from limosa.limits import Limits
from limosa.tensors import Tensor, TensorMap, TensorSpec, check_specs

FeatureQuality = Lossless | Step | Target
# Encodings that a target may take, and how near is near enough.
_ATTEMPTS = 8
_TOLERANCE = 0.02
# The weight of a bit of a difference, in squares of the step: with it, predicted features are as
# good as others at the same step, and smaller.
_PREDICTED_LAMBDA = 0.2
# The same for features that stand alone and have both signs, and what does not count as such: a sum
# of so much of the sum of magnitudes.
_BALANCED_LAMBDA, _ONE_SIDED = 0.05, 0.5
# Of the mean magnitude: differences below are coded as such without a look at the alternative,
# and features whose differences are above are coded alone.
_SURELY, _HARDLY = 0.5, 1.5
# Without loss the last bits of what moved at all are noise.
_STILL = 0.02


class FeatureEncoder:
    """Encodes the features of one source, one after another.

    Args:
        source: which model and cut they are of.
        quality: :class:`Lossless`; :class:`Step`, whose size is the distance of two levels in the
            unit of the feature; or :class:`Target` with bits (of the whole message an element) or
            snr. Every tensor of floating-point numbers loses, whatever its shape.
        key_every: a feature that decodes alone comes at least so often; 1: all do.
        threads: how many to use; None for all processors.

    Raises:
        ConfigError: the quality is of another kind.

    >>> import numpy as np
    >>> from limosa import FeatureDecoder, FeatureSource, Step, Tensor
    >>> source = FeatureSource(bytes(32), "relu")
    >>> encoder, decoder = FeatureEncoder(source, quality=Step(0.1)), FeatureDecoder(source)
    >>> x = np.random.default_rng(0).normal(size=(1, 8, 16, 16)).astype(np.float32)
    >>> sizes = [len(encoder.encode({"x": Tensor.from_numpy(x + i / 100)})) for i in range(3)]
    >>> sizes[1] < sizes[0]
    True
    """

    def __init__(
        self,
        source: FeatureSource,
        *,
        quality: FeatureQuality | None = None,
        key_every: int = 30,
        threads: int | None = 1,
    ) -> None:
        self.source = source
        self._quality = _checked(quality or Lossless())
        if not isinstance(key_every, int) or key_every < 1:
            raise ConfigError(
                "bad interval", where="key_every", found=repr(key_every), allowed="≥ 1"
            )
        self._key_every = key_every
        self._threads = thread_count(threads)
        self._number = 0
        self._since_key = 0
        self._held: Held | None = None
        self._step = 0.0  # that reached the target last

    def request_key(self) -> None:
        """Let the next feature decode alone: the receiver has lost one, or has just come."""
        self._held = None

    def encode(self, tensors: TensorMap) -> bytes:
        """One feature.

        Args:
            tensors: what crosses the cut; for maps the axes are (n, channels, height, width), for
                vectors the last axis is that of the channels.

        Raises:
            ConfigError: there are none, or the profile is of other channels.
        """
        if not tensors:
            raise ConfigError("a feature of no tensors")
        specs = tuple(tensor.spec(name) for name, tensor in tensors.items())
        check_specs(specs, Limits())
        base = self._base(specs)
        coded = self._coded(tensors)
        data, held = self._smallest(specs, coded, base)
        self._since_key = self._since_key + 1 if held.predicted else 0
        self._number += 1
        self._held = held
        return data

    def _base(self, specs: Sequence[TensorSpec]) -> Held | None:
        held = self._held
        if held is None or self._since_key + 1 >= self._key_every:
            return None
        same = tuple(tensor.spec(name) for name, tensor in held.coded.items()) == tuple(specs)
        return held if same else None

    @property
    def _profiled(self) -> bool:
        return self.source.profile is not None and not isinstance(self._quality, Lossless)

    def _coded(self, tensors: TensorMap) -> TensorMap:
        if not self._profiled:
            return tensors
        assert self.source.profile is not None
        out = {}
        for name, tensor in tensors.items():
            known = self.source.profile.channels.get(name)
            if known is not None and tensor.dtype in PROFILED_DTYPES:
                known.check(name, tensor.shape)
                tensor = to_coded(tensor, known)
            out[name] = tensor
        return out

    def _smallest(
        self, specs: tuple[TensorSpec, ...], coded: TensorMap, base: Held | None
    ) -> tuple[bytes, Held]:
        """The smaller of both ways to code a feature, where it is not clear which one that is."""
        near = np.inf if base is None else _distance(coded, base.coded)
        surely, hardly = (_SURELY, _HARDLY)
        if isinstance(self._quality, Lossless):
            surely = hardly = _STILL
        found = []
        if near < hardly:
            found.append(self._to_quality(specs, coded, base))
        if not found or near > surely:
            found.append(self._to_quality(specs, coded, None))
        return min(found, key=lambda one: len(one[0]))

    def _to_quality(
        self, specs: tuple[TensorSpec, ...], coded: TensorMap, base: Held | None
    ) -> tuple[bytes, Held]:
        quality = self._quality
        if not isinstance(quality, Target):
            return self._write(specs, coded, base, quality)
        if base is not None and self._step:
            # Features of one sequence have one step, found at their key.
            return self._write(specs, coded, base, Step(self._step, quality.effort))
        data, held, self._step = _to_target(
            quality, coded, lambda step: self._write(specs, coded, base, step)
        )
        return data, held

    def _write(
        self,
        specs: tuple[TensorSpec, ...],
        coded: TensorMap,
        base: Held | None,
        quality: Lossless | Step,
    ) -> tuple[bytes, Held]:
        out = _core.OutputBuffer()
        full = [(spec, coded[spec.name]) for spec in specs if spec.nbytes]
        lossy = isinstance(quality, Step)
        if full:
            _core.encode_tensors(
                [tensor.data for _, tensor in full],
                [None if base is None else base.coded[spec.name].data for spec, _ in full],
                [core_dtype(spec.dtype) for spec, _ in full],
                digits=-1,
                threads=self._threads,
                levels=[_levels(*one, quality, base is not None) for one in full],
                columns=[row_units(spec, lossy=lossy) for spec, _ in full],
                out=out,
            )
        chunks = out.take()
        raw = len(chunks) > sum(spec.nbytes for spec in specs)
        if raw:
            chunks = b"".join(tensor.data.tobytes() for tensor in coded.values())
        name = None if base is None or raw else base.digest
        header = FeatureHeader(self.source.id, self._number, name, self._profiled, raw, specs, b"")
        if lossy and not raw:
            held = None if base is None else base.coded
            decoded = decode_chunks(header, memoryview(chunks), held, self._threads)
        else:
            decoded = copies_of(coded)  # the caller may reuse its memory
        digest = feature_digest(restored(header, decoded, self.source))
        return write_feature(replace(header, digest=digest), chunks), Held(
            digest, decoded, name is not None
        )


def _checked(quality: FeatureQuality) -> FeatureQuality:
    good = isinstance(quality, (Lossless, Step, Target))
    if isinstance(quality, Target) and quality.size is not None:
        good = False
    if isinstance(quality, Step) and (quality.by_row or quality.rounded):
        good = False
    if not good:
        raise ConfigError(
            "no quality for features", found=str(quality),
            allowed="Lossless, Step(size), Target(bits=…), Target(snr=…)",
        )  # fmt: skip
    return quality


def _levels(
    spec: TensorSpec, tensor: Tensor, quality: Lossless | Step, predicted: bool
) -> Levels | None:
    """How a tensor is quantized; None: not at all.

    A weight on bits moves small values towards zero. Where they are of both signs, as differences
    from the last feature are, that costs little. Activations of one sign it would move together,
    and the sums of the next layer with them.
    """
    if spec.dtype not in FLOAT_DTYPES or isinstance(quality, Lossless):
        return None
    weight = 0.0
    if quality.effort > 1:
        if predicted:
            weight = _PREDICTED_LAMBDA
        elif _is_balanced(tensor):
            weight = _BALANCED_LAMBDA
    return Levels(quality.size_of(spec.name), quality.effort > 1, weight, quality.effort == 9)


def _is_balanced(tensor: Tensor) -> bool:
    """Whether positive and negative values weigh much the same."""
    values = _values(tensor)
    size = float(np.abs(values).sum(dtype=np.float64)) if values.size else 0.0
    if not 0 < size < np.inf:
        return False
    return abs(float(values.sum(dtype=np.float64))) < _ONE_SIDED * size


def _values(tensor: Tensor) -> NDArray[Any]:
    values = tensor.numpy()
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def _distance(new: TensorMap, old: TensorMap) -> float:
    """The mean difference of two features over the mean magnitude around their mean."""
    moved = size = 0.0
    for name, tensor in new.items():
        if not tensor.data.size or tensor.dtype not in FLOAT_DTYPES:
            continue
        a, b = _values(tensor), _values(old[name])
        moved += float(np.abs(a - b).sum())
        size += float(np.abs(a - a.mean()).sum())
    if not np.isfinite(moved) or not np.isfinite(size):
        return np.inf
    return moved / size if size else (np.inf if moved else 0.0)


def _to_target(
    target: Target, coded: TensorMap, write: Callable[[Step], tuple[bytes, Held]]
) -> tuple[bytes, Held, float]:
    """The coarsest of a few steps that keeps *target*, found by bisection of its logarithm."""
    floats = [_values(one) for one in coded.values() if one.dtype in FLOAT_DTYPES]
    total = sum(int(np.prod(one.shape)) for one in coded.values())
    scale = float(np.sqrt(np.mean([np.square(a).mean() for a in floats if a.size] or [0.0])))
    scale = scale if np.isfinite(scale) and scale > 0 else 1.0
    low, high = -14.0, 4.0  # log2 of the step over the scale
    best: tuple[bytes, Held, float] | None = None
    for _ in range(_ATTEMPTS):
        middle = (low + high) / 2
        step = scale * 2.0**middle
        data, held = write(Step(step, target.effort))
        if target.bits is not None:
            good = 8 * len(data) <= target.bits * total
            near = good and 8 * len(data) > (1 - _TOLERANCE) * target.bits * total
            finer = good
        else:
            assert target.snr is not None
            found = _snr(coded, held.coded)
            good = found >= target.snr
            near = good and found < target.snr + 0.2
            finer = not good
        if good:
            best = data, held, step
        if near:
            break
        low, high = (low, middle) if finer else (middle, high)
    if best is None:
        step = scale * 2.0 ** (high if target.bits is not None else low)
        data, held = write(Step(step, target.effort))
        best = data, held, step
    return best


def _snr(original: TensorMap, decoded: TensorMap) -> float:
    signal = noise = 0.0
    for name, tensor in original.items():
        if tensor.dtype in FLOAT_DTYPES:
            code = core_dtype(tensor.dtype)
            one, other, _ = _core.distortion(tensor.data, decoded[name].data, code)
            signal, noise = signal + one, noise + other
    return float(10 * np.log10(signal / noise)) if noise else np.inf
