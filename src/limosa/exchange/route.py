"""Blobs one after the other: what a receiver holds, made what it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limosa.codec.base import Base
from limosa.codec.decoder import Reader
from limosa.codec.inputs import Input
from limosa.codec.opening import Model, open_model
from limosa.errors import ChecksumError, CorruptError
from limosa.exchange.forms import form_of
from limosa.hub.digest import check_hex, version_digest
from limosa.hub.reference import check_name
from limosa.limits import Limits
from limosa.tensors import Tensor

#: A blob, and how many of its layers count; None: all.
Hop = tuple[Input, int | None]


def open_route(
    start: Base | None,
    hops: Sequence[Hop],
    *,
    limits: Limits | None = None,
    threads: int | None = None,
) -> Model:
    """What the last blob decodes to; the blobs before it are decoded as it needs them.

    Args:
        start: what the receiver holds.
        hops: blobs in order, one or more.
        limits: what each may ask for.
        threads: to decode with.

    Raises:
        FormatError: a blob is damaged.
        BaseMismatchError: a blob does not follow on the one before.
    """
    base = start
    for place, (blob, layers) in enumerate(hops):
        last = place == len(hops) - 1
        model = open_model(blob, layers, base=base, limits=limits, threads=threads, verify=last)
        if last:
            return model
        base = as_base(model)
    raise ValueError("a route of no blobs")


def check_plan(plan: Mapping[str, Any], digest: str | None = None) -> None:
    """Refuse a plan whose names are no digests: they become names of files and folders.

    Args:
        plan: as the hub answers.
        digest: what was asked for, where it was asked for by its digest.

    Raises:
        CorruptError: the hub says something that no hub says.
        ChecksumError: it leads to another version than *digest*.

    >>> want = {"name": "v1", "digest": "../../etc", "state": "00" * 32, "nbytes": 0}
    >>> check_plan({"want": want, "start": "", "route": []})
    Traceback (most recent call last):
    limosa.errors.CorruptError: want: not a digest; ...
    """
    want = plan["want"]
    if want["name"]:
        check_name(str(want["name"]))
    named = {"want": want["digest"], "state": want["state"]}
    counts = {"want": want["nbytes"]}
    if plan["start"]:
        named["start"] = plan["start"]
    for number, step in enumerate(plan["route"]):
        named[f"target {number}"], counts[f"blob {number}"] = step["target"], step["nbytes"]
        if step["base"]:
            named[f"base {number}"] = step["base"]
        if step["sha256"] is not None:
            named[f"blob {number}"] = step["sha256"]
    for where, text in named.items():
        check_hex(str(text), where)
    for where, count in counts.items():
        if not isinstance(count, int) or count < 0:
            raise CorruptError("no count of bytes", where=where, found=repr(count)[:40])
    if digest is not None and want["digest"] != digest:
        raise ChecksumError(
            "the hub offers another version than the one that was asked for",
            found=want["digest"], allowed=digest, remedy="tell the hub's operator",
        )  # fmt: skip


def as_base(model: Model) -> Base:
    """What a blob decodes to, as the base of the next one."""
    if isinstance(model, Reader):
        return model.as_base()
    specs = {spec.name: spec for spec in model.specs}

    def get(name: str) -> Tensor | None:
        spec = specs.get(name)
        return None if spec is None else Tensor(spec.dtype, spec.shape, model.get(name))

    return Base(get, model.digest, specs=specs, sources=model.sources)


def check_promise(model: Model, digest: str) -> None:
    """Compare what a blob promises to give with what is wanted; decoding then keeps the promise.

    Raises:
        ChecksumError: it is another version.
    """
    promised = version_digest(model.digest.hex(), form_of(model.sources))
    if promised != digest:
        raise ChecksumError(
            "the blobs lead to another version", found=promised, allowed=digest,
            remedy="fetch them again; if it stays so, tell the hub's operator",
        )  # fmt: skip
