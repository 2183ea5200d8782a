"""Run the codecs on a work and say what came out: points of size, quality and speed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import images, ours
from .nncodec import NNCodec
from .quality import lite0_network, torch_version, weight_snr
from .works import Work

NNCODEC = "NNCodec"
Tell = Callable[[str], None]
# Where limosa is measured when NNCodec is not there to say it, dB.
RATIOS = (40.0, 32.0, 22.0, 15.0)


@dataclass
class Point:
    """One codec at one setting. Times are seconds, sizes bytes; None: not timed.

    Attributes:
        snr: Of the tensors of two dimensions or more, dB.
        level: Number of NNCodec's setting that this one is compared with, from 0.
    """

    work: str
    codec: str
    setting: str
    level: int
    raw_bytes: int
    bytes: int
    snr: float
    quality: dict[str, float]
    encode_s: float | None = None
    decode_s: float | None = None

    def speed(self, seconds: float | None) -> float | None:
        """Return MB of raw tensors a second."""
        return None if seconds is None else self.raw_bytes / 1e6 / seconds


@dataclass(frozen=True)
class Search:
    """What asking for a result gave: ``found`` beside ``wanted``, and the time in encodes."""

    target: str
    wanted: float
    found: float
    encodes: float


@dataclass
class Results:
    """All that one run found. ``not_run`` says why something is not there."""

    points: list[Point] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    measures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    axes: dict[str, tuple[str, Callable[[float], float]]] = field(default_factory=dict)
    verdicts: list[Any] = field(default_factory=list)


def nncodec_points(work: Work, rival: NNCodec, tell: Tell) -> list[Point]:
    """Return NNCodec's points.

    Raises:
        NotAvailableError: it cannot be run and the cache does not hold what it gives.
    """
    points = []
    recipe = f"{work.name} {work.recipe} {torch_version()}"
    for level, coded in enumerate(rival.code(work.state, work.qps)):
        decoded = {**work.state, **rival.decoded(work.state, coded.qp)}
        if recipe not in coded.quality:
            coded.quality[recipe] = work.quality(decoded)
            rival.keep(work.state, coded)
        points.append(
            Point(
                work.name, NNCODEC, f"qp {coded.qp}", level, work.raw_bytes, coded.bytes,
                weight_snr(work.state, decoded), coded.quality[recipe],
                coded.encode_s, coded.decode_s,
            )
        )  # fmt: skip
        _tell(tell, points[-1])
    return points


def our_points(
    work: Work, ratios: Sequence[float], efforts: Sequence[int], rounds: int, tell: Tell
) -> list[Point]:
    """Return limosa's points at the same signal-to-noise ratios, or hardly more."""
    points, settings = [], []
    for level, ratio in enumerate(ratios):
        step = None
        for effort in efforts:
            # Where the effort before ended is near.
            step = ours.step_for_snr(work.state, ratio, effort, step)
            point = _our_point(work, ours.NAMES[effort], level, step, effort)
            points.append(point)
            settings.append((step, effort))
            _tell(tell, point)
    # After all searches, in turns: what slows the machine for a while meets all of them.
    for _ in range(rounds):
        for point, (step, effort) in zip(points, settings, strict=True):
            _time(work, point, step, effort)
    for point in points:
        _tell(tell, point)
    return points


def _our_point(work: Work, codec: str, level: int, step: float, effort: int) -> Point:
    return _point(work, codec, f"step {step:.6g}", level, ours.encode(work.state, step, effort))


def _point(work: Work, codec: str, setting: str, level: int, coded: bytes) -> Point:
    decoded = ours.decode(coded)
    return Point(
        work.name, codec, setting, level, work.raw_bytes, len(coded),
        weight_snr(work.state, decoded), work.quality(decoded),
    )  # fmt: skip


def _time(work: Work, point: Point, step: float, effort: int) -> None:
    coded, encode_s = _timed(lambda: ours.encode(work.state, step, effort))
    if len(coded) != point.bytes:
        raise ValueError(f"{point.codec} at {point.setting} gave other bytes than before")
    _, decode_s = _timed(lambda: ours.decode(coded))
    point.encode_s = min(point.encode_s or encode_s, encode_s)
    point.decode_s = min(point.decode_s or decode_s, decode_s)


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        result = function()
        return result, time.perf_counter() - start
    finally:
        gc.enable()


def searches(work: Work, tell: Tell) -> list[Search]:
    """Ask for a size, for bits and for a ratio, and compare the time with that of one encode."""
    step = ours.step_for_snr(work.state, 22.0, 5)
    _, once = min((_timed(lambda: ours.encode(work.state, step, 5)) for _ in range(3)),
                  key=lambda pair: pair[1])  # fmt: skip
    elements = sum(array.size for array in work.state.values())
    found = []
    for target, wanted in (("size", 0.1 * work.raw_bytes), ("bits", 4.0), ("snr", 30.0)):
        asked: Any = round(wanted) if target == "size" else wanted
        coded, seconds = _timed(lambda t=target, a=asked: ours.encode_target(work.state, **{t: a}))
        given = {
            "size": float(len(coded)),
            "bits": 8 * len(coded) / elements,
            "snr": weight_snr(work.state, ours.decode(coded)),
        }[target]
        found.append(Search(target, wanted, given, seconds / once))
        tell(f"asked for {target} {wanted:g}: {given:.4g} in {seconds / once:.1f} encodes' time")
    return found


def calibrated_points(work: Work, theirs: Sequence[Point], kept: Path, tell: Tell) -> list[Point]:
    """Return calibrated points at the divergences that NNCodec has, Lite0 only.

    Calibration sees other photographs' halves than the task measures on.
    """
    crops = images.calibration_crops(512)
    network = lite0_network(work.state)
    points = []
    for level, rival in enumerate(theirs):
        tried: dict[float, Point] = {}

        def kl_of(asked: float, level: int = level, tried: dict[float, Point] = tried) -> float:
            coded = ours.calibrate(network, crops.split(32), asked, kept)
            tried[asked] = _point(work, ours.CALIBRATED, f"divergence {asked:.3g}", level, coded)
            _tell(tell, tried[asked])
            return tried[asked].quality["kl"]

        points.append(tried[ours.divergence_for_kl(kl_of, rival.quality["kl"])])
    return points


def _tell(tell: Tell, point: Point) -> None:
    quality = ", ".join(f"{name} {value:.4g}" for name, value in point.quality.items())
    speeds = ""
    if point.encode_s and point.decode_s:
        encode, decode = (point.speed(s) for s in (point.encode_s, point.decode_s))
        speeds = f", {encode:.1f} and {decode:.1f} MB/s"
    tell(
        f"{point.work:7} {point.codec:18} {point.setting:16} {point.bytes:9} bytes, "
        f"{point.snr:.2f} dB, {quality}{speeds}"
    )
