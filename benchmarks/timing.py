"""Interleaved timing: every codec has its turn in every round, so that all meet the same noise."""

from __future__ import annotations

import gc
import hashlib
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.codecs import Runner


@dataclass(frozen=True)
class Record:
    """What one codec did with one work. Times are seconds, sizes bytes, speeds MB/s of raw."""

    work: str
    codec: str
    threads: int
    raw_bytes: int
    coded_bytes: int
    encode_best: float
    encode_median: float
    decode_best: float
    decode_median: float
    repetitions: int
    digest: str

    @property
    def ratio(self) -> float:
        return self.coded_bytes / self.raw_bytes

    def speed(self, seconds: float) -> float:
        return self.raw_bytes / 1e6 / seconds


@dataclass
class _Tally:
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    coded_bytes: int = 0
    digest: str = ""
    failure: str = ""


def time_all(
    work: str,
    raw_bytes: int,
    runners: Iterable[Runner],
    repetitions: int,
    tell: Callable[[str], None],
) -> tuple[list[Record], dict[str, str]]:
    """Run every runner ``repetitions`` times in turn (slow ones once) and check what they decode.

    Return the records, and what went wrong with the codecs that have none: one that raises, or
    decodes other bytes, or breaks a promise to encode alike each time, is not timed further.
    """
    tallies = [(runner, _Tally()) for runner in runners]
    for turn in range(repetitions):
        for runner, tally in tallies:
            if tally.failure or (turn > 0 and runner.slow):
                continue
            try:
                _run_once(runner, tally)
            except Exception as error:  # a rival's errors are of any class
                tally.failure = f"{type(error).__name__}: {error}"
                tell(f"{work:14} {runner.codec:26} x{runner.threads}  failed: {tally.failure}")
            else:
                _tell_once(tell, work, runner, tally, raw_bytes)
    records = [_record(work, raw_bytes, r, t) for r, t in tallies if not t.failure]
    failures = {f"{r.codec} x{r.threads} on {work}": t.failure for r, t in tallies if t.failure}
    return records, failures


def _run_once(runner: Runner, tally: _Tally) -> None:
    blob, seconds = _timed(runner.encode, runner.prepare())
    tally.encode.append(seconds)
    digest = hashlib.sha256(blob).hexdigest()
    if runner.must_repeat and tally.digest not in ("", digest):
        raise ValueError("the same input gave other bytes than before")
    tally.coded_bytes, tally.digest = len(blob), digest
    decoded, seconds = _timed(runner.decode, blob)
    tally.decode.append(seconds)
    if not runner.is_right(decoded):
        raise ValueError("the decoded tensors differ from the input")


def _timed(function: Callable[[Any], Any], argument: Any) -> tuple[Any, float]:
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        result = function(argument)
        return result, time.perf_counter() - start
    finally:
        gc.enable()


def _tell_once(
    tell: Callable[[str], None], work: str, runner: Runner, tally: _Tally, raw_bytes: int
) -> None:
    megabytes = raw_bytes / 1e6
    tell(
        f"{work:14} {runner.codec:26} x{runner.threads}  "
        f"{tally.coded_bytes / raw_bytes:.4f}  "
        f"{megabytes / tally.encode[-1]:8.1f}  {megabytes / tally.decode[-1]:8.1f}"
    )


def _record(work: str, raw_bytes: int, runner: Runner, tally: _Tally) -> Record:
    return Record(
        work, runner.codec, runner.threads, raw_bytes, tally.coded_bytes,
        min(tally.encode), statistics.median(tally.encode),
        min(tally.decode), statistics.median(tally.decode),
        len(tally.encode), tally.digest[:16],
    )  # fmt: skip
