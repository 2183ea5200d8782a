"""limosa and its rivals behind one face, bound to a work, so that they can be timed alike."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np

from benchmarks.data import State
from benchmarks.rivals import load_rivals
from benchmarks.rivals.interface import Buffer, Rival
from benchmarks.works import Work

LIMOSA = "limosa"
LIMOSA_FAST = "limosa fast"
LIMOSA_DIFF = "limosa diff"


@dataclass(frozen=True)
class Runner:
    """One codec on one work: ``encode(prepare())`` and ``decode(blob)`` are timed."""

    codec: str
    threads: int
    slow: bool
    # Whether every encoding must give the same bytes: limosa promises it, rivals may not.
    must_repeat: bool
    prepare: Callable[[], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    is_right: Callable[[Any], bool]


def runners(
    work: Work, threads: list[int], patterns: list[str] | None
) -> tuple[list[Runner], dict[str, str]]:
    """Return the codecs that apply to ``work``, and the reasons for those that cannot run."""
    classes, missing = load_rivals()
    found: list[Runner] = []
    for count in threads:
        found += _limosa_runners(work, count, missing)
        for rival in classes:
            if _applies(rival, work, count):
                found.append(_rival_runner(rival(count), work))
    if patterns:
        found = [r for r in found if any(fnmatch(r.codec, pattern) for pattern in patterns)]
    return found, missing


def _applies(rival: type[Rival], work: Work, threads: int) -> bool:
    if threads > 1 and (not rival.threaded or rival.slow):
        return False
    # ZipNN also codes a difference's new version whole: its decode speed is a number to reach.
    return rival.needs_base == (work.base is not None) or rival.name == "ZipNN"


def _rival_runner(rival: Rival, work: Work) -> Runner:
    def is_right(decoded: Buffer) -> bool:
        return np.array_equal(np.frombuffer(decoded, np.uint8), np.frombuffer(work.raw, np.uint8))

    return Runner(
        rival.name, rival.threads, rival.slow, False,
        prepare=lambda: rival.prepare(work.raw),
        encode=lambda raw: rival.encode(raw, work.dtype, work.base_raw),
        decode=lambda blob: rival.decode(blob, work.dtype, work.base_raw),
        is_right=is_right,
    )  # fmt: skip


def _limosa_runners(work: Work, threads: int, missing: dict[str, str]) -> list[Runner]:
    """Return limosa whole and, where there is a base, limosa on the difference."""
    try:
        limosa = importlib.import_module("limosa")
        save, load = limosa.save, limosa.load
    except (ImportError, AttributeError) as error:
        missing["limosa"] = str(error)
        return []

    def runner(codec: str, base: object, quality: object = None) -> Runner:
        return Runner(
            codec, threads, False, True,
            prepare=lambda: work.state,
            encode=lambda state: save(state, base=base, quality=quality, threads=threads),
            decode=lambda blob: load(blob, base=base, threads=threads),
            is_right=lambda decoded: _same_state(decoded, work.state),
        )  # fmt: skip

    whole = [runner(LIMOSA, None), runner(LIMOSA_FAST, None, limosa.Lossless(effort=1))]
    if work.base is None:
        return whole
    # A receiver that follows a model has its base open, digest and all; one that starts has to
    # compute the digest first, and so the second runner opens the base anew each time.
    held = limosa.open_base(work.base, threads=threads)
    return [*whole, runner(LIMOSA_DIFF, held), runner(f"{LIMOSA_DIFF}, base opened", work.base)]


def _same_state(left: State, right: State) -> bool:
    if left.keys() != right.keys():
        return False
    return all(_same_array(left[name], right[name]) for name in right)


def _same_array(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    # As bytes: a NaN equals itself, and a zero differs from its negative.
    return np.array_equal(_bytes_of(left), _bytes_of(right))


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
