"""What each tensor is coded from: a tensor of the base, an earlier tensor, or itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from limosa.codec.base import Base
from limosa.codec.constants import COPY_MIN_BYTES, INDEX_DIGEST_BYTES, UNIT_BYTES
from limosa.codec.digests import digest_of
from limosa.codec.measure import coded_against, cut
from limosa.codec.quality import Quality
from limosa.files.bundle import Bundle
from limosa.tensors import Bytes, TensorSpec

# So many renamed candidates are measured, those first whose names end alike.
_CANDIDATES = 4
_PROBE_BYTES = 64

_Form = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """The choices that are made before the first chunk.

    Attributes:
        base_names: as in the layout.
        copies: number of a tensor -> number of the earlier one that it equals.
        kept: the tensors that later ones may copy.
        look_back: copies are found while encoding, since a pipe cannot be looked through first.
    """

    base_names: tuple[str | None, ...] | None = None
    copies: Mapping[int, int] = field(default_factory=dict)
    kept: frozenset[int] = frozenset()
    look_back: bool = False


def make_plan(bundle: Bundle, base: Base | None, quality: Quality, threads: int) -> Plan:
    """Choose for every tensor of *bundle*."""
    names = None if base is None else match_names(bundle, base, quality, threads)
    if not bundle.random_access:
        kept = frozenset(_may_recur(bundle.specs))
        return Plan(names, kept=kept, look_back=bool(kept))
    copies = _find_copies(bundle, base, names)
    return Plan(names, copies, frozenset(copies.values()))


def match_names(
    bundle: Bundle, base: Base, quality: Quality, threads: int
) -> tuple[str | None, ...] | None:
    """For each tensor the name of its base tensor; None if every one is of the same name.

    A tensor that the base does not have under its name is looked for by digest (renamed), then,
    among base tensors that no other claims, by measured bytes (renamed and changed).
    """
    names = [_same_name(spec, base) for spec in bundle.specs]
    strays = [number for number, name in enumerate(names) if name is None]
    if not strays or not bundle.random_access:
        return None
    by_digest = {(_form(base.specs[n]), digest): n for n, digest in base.digests.items()}
    claimed = set(names)
    orphans: dict[_Form, list[str]] = defaultdict(list)
    for spec in base.specs.values():
        if spec.name not in claimed:
            orphans[_form(spec)].append(spec.name)
    by_form = {_form(spec) for spec in base.specs.values()}
    for number in strays:
        spec = bundle.specs[number]
        if _form(spec) not in by_form or spec.nbytes < COPY_MIN_BYTES:
            continue
        data = bundle.get(spec.name).data
        digest = digest_of(spec, data, threads)[:INDEX_DIGEST_BYTES]
        names[number] = by_digest.get((_form(spec), digest)) or _best_orphan(
            spec, data, orphans[_form(spec)], base, quality, threads
        )
    return None if all(names[number] is None for number in strays) else tuple(names)


def _same_name(spec: TensorSpec, base: Base) -> str | None:
    held = base.specs.get(spec.name)
    return spec.name if held is not None and _form(held) == _form(spec) else None


def _form(spec: TensorSpec) -> _Form:
    return spec.dtype, spec.shape


def _best_orphan(
    spec: TensorSpec,
    data: Bytes,
    orphans: Sequence[str],
    base: Base,
    quality: Quality,
    threads: int,
) -> str | None:
    """The candidate against which a slice takes the fewest bytes, if any is worth it."""
    piece = cut(spec, spec.nbytes // 2, data)
    best, least = None, coded_against([piece], [None], quality, threads)
    ranked = sorted(orphans, key=lambda name: _common_ending(name, spec.name), reverse=True)
    for name in ranked[:_CANDIDATES]:
        held = base.data(name, spec)
        if held is None:
            continue
        size = coded_against([piece], [held[piece.begin : piece.end]], quality, threads)
        if size < least:
            best, least = name, size
    return best


def _common_ending(a: str, b: str) -> int:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _may_recur(specs: Sequence[TensorSpec]) -> Iterable[int]:
    """Numbers of tensors that have a later one of the same dtype and shape."""
    later: set[_Form] = set()
    for number in reversed(range(len(specs))):
        if specs[number].nbytes >= COPY_MIN_BYTES:
            if _form(specs[number]) in later:
                yield number
            later.add(_form(specs[number]))


def _find_copies(
    bundle: Bundle, base: Base | None, names: Sequence[str | None] | None
) -> dict[int, int]:
    """Tensors that equal an earlier one, are not constant, and do not equal their base."""
    groups: dict[tuple[_Form, bytes], list[int]] = defaultdict(list)
    forms: dict[_Form, list[int]] = defaultdict(list)
    for number, spec in enumerate(bundle.specs):
        if spec.nbytes >= COPY_MIN_BYTES:
            forms[_form(spec)].append(number)
    for form, numbers in forms.items():
        if len(numbers) > 1:
            for number in numbers:
                data = bundle.get(bundle.specs[number].name).data
                groups[form, _probe(data)].append(number)
    copies: dict[int, int] = {}
    for numbers in groups.values():
        if len(numbers) > 1:
            copies.update(_copies_within(bundle, numbers))
    return {
        number: source
        for number, source in copies.items()
        if not _equals_base(bundle, number, base, names)
    }


def _copies_within(bundle: Bundle, numbers: Sequence[int]) -> dict[int, int]:
    """Equal tensors among some of the same form whose probes agree."""
    distinct: list[tuple[int, Bytes]] = []
    copies = {}
    for number in numbers:
        spec = bundle.specs[number]
        data = bundle.get(spec.name).data
        source = next((n for n, held in distinct if np.array_equal(held, data)), None)
        if source is None:
            distinct.append((number, data))
        elif not _is_constant(data, UNIT_BYTES[spec.dtype]):
            copies[number] = source
    return copies


def _probe(data: Bytes) -> bytes:
    """A few bytes that differ in nearly all tensors that differ."""
    middle = data.size // 2
    parts = (data[:_PROBE_BYTES], data[middle : middle + _PROBE_BYTES], data[-_PROBE_BYTES:])
    return b"".join(part.tobytes() for part in parts)


def _is_constant(data: Bytes, unit: int) -> bool:
    return bool(np.array_equal(data[unit:], data[:-unit]))


def _equals_base(
    bundle: Bundle, number: int, base: Base | None, names: Sequence[str | None] | None
) -> bool:
    """A copy of the base is as short, and its reader need not keep another tensor."""
    if base is None:
        return False
    spec = bundle.specs[number]
    held = base.data(spec.name if names is None else names[number], spec)
    return held is not None and bool(np.array_equal(held, bundle.get(spec.name).data))
