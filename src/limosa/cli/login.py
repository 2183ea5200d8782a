"""``limosa login``: remember a hub and a token."""

from __future__ import annotations

import sys

import click

from limosa.cli import options, remote


@click.command("login", short_help="Remember a hub and a token.")
@click.argument("url")
@click.option("--token", metavar="TOKEN", help="Else it is asked for, or read from a pipe.")
@options.json_option()
def command(url: str, token: str | None, as_json: bool) -> None:
    """Remember the hub at URL and a token for it, which is checked first.

    The file can be read by this user only, and a token is shown to its own hub only.

    \b
    limosa login https://hub.example
    limosa login https://hub.example < token.txt
    """
    from limosa.hub.client import HubClient
    from limosa.hub.settings import check_url

    hub = check_url(url)
    if token is None:
        token = (
            click.prompt("Token", hide_input=True, err=True)
            if sys.stdin.isatty()
            else sys.stdin.readline()
        )
    token = token.strip()
    if not token:
        # A hub may answer who shows nothing, too; the token that is kept would be gone.
        raise click.UsageError("The token is empty: pass --token, or pipe it in.")
    with HubClient(hub, token) as client:
        found = client.whoami()
    path = remote.places().login(hub, token)
    if as_json:
        remote.print_json({"hub": hub, "file": str(path), **found})
        return
    click.echo(f"{found['name']} at {hub}: {', '.join(found['scopes'])} (kept in {path})")
