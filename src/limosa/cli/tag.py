"""``limosa tag``: move or remove a tag."""

from __future__ import annotations

import click

from limosa.cli import options, remote


@click.command("tag", short_help="Move or remove a tag.")
@click.argument("reference", metavar="OWNER/NAME[:VERSION]")
@click.argument("tag")
@click.option("--delete", is_flag=True, help="Forget the tag of OWNER/NAME.")
@click.option(
    "--expect",
    metavar="DIGEST",
    help='Only if the tag means this digest now ("" for none): else status 5.',
)
@remote.hub_options
@options.json_option()
def command(
    reference: str,
    tag: str,
    delete: bool,
    expect: str | None,
    hub: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Let TAG mean a version; whoever follows it updates.

    \b
    limosa tag team/detector:v3 stable
    limosa tag team/detector stable --delete
    """
    named = remote.reference_of(reference)
    with remote.open_client(hub, token) as client:
        if delete:
            client.remove_tag(named.repository, tag)
            if as_json:
                remote.print_json({"removed": f"{named.repository}:{tag}"})
            else:
                click.echo(f"{named.repository}: tag {tag} is gone")
            return
        if not named.name:
            raise click.UsageError("Name the version that the tag shall mean: OWNER/NAME:VERSION.")
        found = client.move_tag(named.repository, tag, named.name, expect)
    if as_json:
        remote.print_json(found)
    else:
        click.echo(f"{named.repository}:{tag} is {found['version']} ({found['digest'][:16]})")
