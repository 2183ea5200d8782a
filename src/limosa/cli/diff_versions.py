"""``limosa diff`` of two versions on a hub: what changed, and what an update between them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from limosa.cli import remote
from limosa.errors import ConfigError
from limosa.hub.reference import parse_reference


def are_references(texts: Sequence[str]) -> bool:
    """Whether all are references of a hub."""
    try:
        return all(parse_reference(text) for text in texts)
    except ConfigError:
        return False


def show(texts: Sequence[str], as_json: bool) -> None:
    """Compare two versions by their manifests, and plan from the first to the second.

    Raises:
        HubError: whatever the hub says.
    """
    old, new = (remote.reference_of(text) for text in texts)
    with remote.open_client(None, None) as client:
        before = client.version(old.repository, old.version)
        after = client.version(new.repository, new.version)
        plan = client.plan(new.repository, new.version, [before["digest"], before["state"]])
    changes = compare(before["manifest"], after["manifest"])
    found = {
        **changes, "nbytes": plan["nbytes"], "whole_nbytes": plan["whole_nbytes"],
        "hops": len(plan["route"]),
    }  # fmt: skip
    if as_json:
        remote.print_json(found)
        return
    for kind in ("changed", "added", "removed"):
        for name in changes[kind][:20]:
            click.echo(f"{kind:8} {name}")
        if len(changes[kind]) > 20:
            click.echo(f"{kind:8} … and {len(changes[kind]) - 20} more")
    click.echo(
        f"{len(changes['changed'])} of {changes['tensors']} tensors changed; "
        f"{remote.size(plan['nbytes'])} from {old} to {new}, "
        f"{remote.size(plan['whole_nbytes'])} for the whole"
    )


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The names of tensors that changed, by two manifests.

    >>> old = {"tensors": [{"name": "a", "digest": "1"}, {"name": "b", "digest": "2"}]}
    >>> new = {"tensors": [{"name": "a", "digest": "3"}, {"name": "c", "digest": "2"}]}
    >>> compare(old, new)
    {'tensors': 2, 'changed': ['a'], 'added': ['c'], 'removed': ['b']}
    """
    old = {one["name"]: one["digest"] for one in before["tensors"]}
    new = {one["name"]: one["digest"] for one in after["tensors"]}
    return {
        "tensors": len(new),
        "changed": [name for name in new if name in old and new[name] != old[name]],
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
    }
