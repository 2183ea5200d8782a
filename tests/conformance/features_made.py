"""Features (docs/format.md 9): files that must decode, and files that must not.

A folder has ``feature.limosa``; a predicted one also ``before.limosa``, the feature before it;
a profiled one ``profile.limosa``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.features import maps, profile, source, video

from limosa import FeatureEncoder, FeatureProfile, Lossless, Step, Tensor, _core, save

Files = dict[str, bytes]
_KNOWN = profile()


def feature_cases() -> Iterator[tuple[str, Files, dict]]:
    """Name, files and what they hold."""
    plain = {"lossless": Lossless(), "levels": Step(0.2), "adaptive": Step(0.2, effort=9)}
    for name, quality in plain.items():
        data, files = _encoded([{"x": maps()}], quality)
        yield f"feature-{name}", files, _expected(data)
    for dtype in ("F64", "F16", "BF16"):
        data, files = _encoded([{"x": maps(0, (1, 12, 4, 5), dtype)}], Step(0.2), _KNOWN)
        yield f"feature-profiled-{dtype.lower()}", files, _expected(data)
    x = maps(0, (2, 12, 4, 5)).numpy().copy()
    x[0, 3, 2, :3] = np.nan, np.inf, -np.inf
    two = {"x": Tensor.from_numpy(x), "y": maps(1, (2, 5)), "n": Tensor.from_numpy(np.arange(3))}
    data, files = _encoded([two], Step(0.2, effort=9), _KNOWN)
    yield "feature-profiled-several", files, _expected(data)
    frames = [{"x": frame} for frame in video(3)]
    for name, quality in plain.items():
        held = [frames[0], frames[0]] if name == "lossless" else frames[:2]
        data, files = _encoded(held, quality)
        yield f"feature-predicted-{name}", files, _expected(data)
    data, files = _encoded([{"x": maps(s, (1, 12, 6, 6))} for s in (0, 0)], Step(0.2), _KNOWN)
    yield "feature-predicted-profiled", files, _expected(data)
    noise = np.random.default_rng(0).integers(0, 256, 64, dtype=np.uint8)
    data, files = _encoded([{"x": Tensor("F32", (4, 4), noise)}], Lossless())
    yield "feature-raw", files, _expected(data)
    data, files = _encoded([{"x": Tensor("F32", (2, 0), noise[:0])}], Lossless())
    yield "feature-empty", files, _expected(data)


def feature_error_cases() -> Iterator[tuple[str, Files, dict]]:
    """Name, files, and the error that they must give."""
    _, files = _encoded([{"x": video(3)[0]}, {"x": video(3)[1]}], Step(0.2))
    good, before = files["feature.limosa"], files["before.limosa"]
    third = _encoded([{"x": x} for x in video(4)], Step(0.2))[1]["feature.limosa"]
    _, alone = _encoded([{"x": maps()}], Lossless())
    one = alone["feature.limosa"]
    flags = 18  # behind magic, version, source and a count of one byte

    def changed(data: bytes, at: int, byte: int) -> bytes:
        body = data[:at] + bytes([byte]) + data[at + 1 : -4]
        return body + _core.crc32c(body).to_bytes(4, "little")

    def sealed(body: bytes) -> bytes:
        return body + _core.crc32c(body).to_bytes(4, "little")

    chosen = {
        "before-missing": ("base-mismatch", {"feature.limosa": good}),
        "before-other": ("base-mismatch", {"feature.limosa": third, "before.limosa": before}),
        "other-source": ("base-mismatch", {"feature.limosa": changed(one, 9, one[9] ^ 1)}),
        "magic": ("corrupt", {"feature.limosa": b"\x89LMSX" + one[5:]}),
        "version": ("unsupported", {"feature.limosa": changed(one, 8, 1)}),
        "flags": ("corrupt", {"feature.limosa": changed(one, flags, 8)}),
        "flipped": ("checksum", {"feature.limosa": one[:60] + bytes([one[60] ^ 4]) + one[61:]}),
        "digest": ("checksum", {"feature.limosa": sealed(one[:-12] + bytes(8))}),
        "no-tensors": ("corrupt", {"feature.limosa": changed(one, flags + 1, 0)}),
        "cut": ("truncated", {"feature.limosa": one[:25]}),
        "more": ("corrupt", {"feature.limosa": sealed(one[:-12] + b"\0" + one[-12:-4])}),
        "predicted-alone": ("corrupt", {"feature.limosa": _without_base(good, before)}),
    }
    for name, (error, held) in chosen.items():
        yield f"feature-{name}", held, {"error": error, "source": source().id.hex()}


def _without_base(good: bytes, before: bytes) -> bytes:
    """A predicted feature that says it decodes alone."""
    body = good[:18] + b"\0" + good[27:-4]
    return body + _core.crc32c(body).to_bytes(4, "little")


def _encoded(
    frames: list[dict[str, Tensor]], quality, known: FeatureProfile | None = None
) -> tuple[dict, Files]:
    """What the last one decodes to, and the files that it takes."""
    from limosa import FeatureDecoder

    where = source(known)
    encoder, decoder = FeatureEncoder(where, quality=quality), FeatureDecoder(where)
    sent = [encoder.encode(tensors) for tensors in frames]
    back = [decoder.decode(data) for data in sent]
    files = {"feature.limosa": sent[-1]}
    if len(sent) > 1:
        files["before.limosa"] = sent[-2]
    if known is not None:
        files["profile.limosa"] = save(known.arrays())
    return {"source": where.id.hex(), "tensors": back[-1]}, files


def _expected(held: dict) -> dict:
    rows = [
        {
            "name": name,
            "dtype": t.dtype,
            "shape": list(t.shape),
            "blake3": blake3(t.data).hexdigest(),
        }
        for name, t in held["tensors"].items()
    ]
    return {"source": held["source"], "tensors": rows}
