"""``limosa push``: make a version on a hub."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from limosa.cli import faults, options, remote
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.exchange.publish import PushResult


@click.command("push", short_help="Make a model a version on a hub.")
@click.argument("model", type=click.Path(exists=True))
@click.argument("reference", metavar="OWNER/NAME:VERSION")
@click.option(
    "--base",
    "bases",
    multiple=True,
    type=click.Path(exists=True),
    metavar="FILE",
    help="Try this model as a base, too; the hub must have it. Repeatable.",
)
@click.option(
    "--layers",
    metavar="Q,Q,...",
    help="Layers of quality, coarse to fine, such as bits=3,lossless: receivers may take a part.",
)
@click.option("--notes", default="", metavar="TEXT", help="For people.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME=X", help="A figure of merit. Repeatable."
)
@click.option("--parent", "parents", multiple=True, metavar="VERSION", help="Made from this one.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="Move this tag to the new version, beside latest. Repeatable.",
)
@click.option("--no-latest", is_flag=True, help="Leave latest where it is.")
@click.option(
    "--as-is", is_flag=True, help="Push files that are cut short, missing or no model, too."
)
@remote.hub_options
@options.threads_option
@options.limits_option
@options.json_option()
def command(
    model: str,
    reference: str,
    bases: tuple[str, ...],
    layers: str | None,
    notes: str,
    metrics: tuple[str, ...],
    parents: tuple[str, ...],
    tags: tuple[str, ...],
    no_latest: bool,
    as_is: bool,
    hub: str | None,
    token: str | None,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Make MODEL a version on the hub: OWNER/NAME:VERSION, which never changes afterwards.

    Of the versions that the hub and this machine both have, the one against which MODEL takes the
    fewest bytes is the base. The hub decodes what it got and compares digests before anybody sees
    the version. An interrupted push goes on where it stopped.

    \b
    limosa push model.safetensors team/detector:v3
    limosa push model-folder team/detector:v4 --base v3-folder --metric map=0.61 --tag stable
    """
    from limosa.exchange.publish import Description, push

    moved = tags if no_latest else tuple(dict.fromkeys((*tags, "latest")))
    named = remote.reference_of(reference)
    (faults.warn if as_is else faults.refuse)(model, limits)
    description = Description(notes, _metrics(metrics), parents, moved)
    with remote.open_client(hub, token) as client, remote.stages(as_json) as progress:
        result = push(
            client, model, named, places=remote.places(), bases=bases, layers=_layers(layers),
            description=description, threads=threads, limits=limits, progress=progress,
        )  # fmt: skip
    if as_json:
        remote.print_json(asdict(result))
    else:
        _show(result)


def _layers(text: str | None) -> list:  # type: ignore[type-arg]  # of Quality, imported later
    if text is None:
        return []
    nothing = {
        "effort": None, "keep": (), "lossy": (), "size": None, "bits": None, "snr": None,
        "step": None, "max_error": None, "codebook": None, "signs": None, "digits": None,
    }  # fmt: skip
    return options.layer_qualities(text, nothing)


def _metrics(texts: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise click.BadParameter(f"--metric {text!r} is no NAME=NUMBER.") from None
    return found


def _show(result: PushResult) -> None:
    if result.known:
        click.echo(f"{result.reference}: the hub has this model already; nothing was sent")
        return
    against = f"against {result.base}" if result.base else "whole"
    share = result.nbytes / max(1, result.raw_nbytes)
    click.echo(
        f"{result.reference}: {remote.size(result.sent)} sent, {against}, "
        f"{share:.1%} of {remote.size(result.raw_nbytes)}"
    )
    click.echo(f"digest {result.digest}")
