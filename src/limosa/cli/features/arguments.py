"""Options that several subcommands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.codec.feature.source import FeatureProfile

model_option = click.option(
    "--model",
    required=True,
    metavar="M",
    help="package.module:name of a torch module, or of what makes one; or a .pt2 file.",
)
profiles_option = click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="[CUT=]FILE",
    help="What calibration found of the cuts, or of one; both sides need it. May be repeated.",
)


def load_profiles(
    texts: tuple[str, ...],
) -> FeatureProfile | dict[str, FeatureProfile] | None:
    """``FILE``, or ``CUT=FILE`` several times."""
    from limosa.codec.feature.profile_file import load_profile

    if len(texts) == 1 and "=" not in texts[0]:
        return load_profile(texts[0])
    found = {}
    for text in texts:
        cut, equals, path = text.partition("=")
        if not equals:
            raise click.UsageError("--profile: with several of them, each is CUT=FILE.")
        found[cut] = load_profile(path)
    return found or None


def narrow_limits(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, int]:
    """``NAME=N`` options, as the names and numbers."""
    from limosa.cli.options import read_limits

    limits: Limits = read_limits(context, parameter, values)
    chosen: dict[str, Any] = dict(value.split("=") for value in values)
    return {name: getattr(limits, name) for name in chosen}
