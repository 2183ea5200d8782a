"""``limosa hub serve``: the knowledge center."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from limosa.hub.server.settings import HubSettings

_LEVELS = ("debug", "info", "warning", "error")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def read_bytes(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """A number of bytes: ``20G``."""
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    unit = text[-1:] if text[-1:] in _UNITS else ""
    try:
        return round(float(text.removesuffix(unit) if unit else text) * _UNITS[unit])
    except ValueError:
        raise click.BadParameter(f"{value!r} is no size such as 500M or 20G.") from None


@click.command("serve", short_help="Store versions, and give every receiver the fewest bytes.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("limosa-hub"),
    show_default=True,
    help="For the database, the blobs, and what is being decoded.",
)
@click.option("--database", default="", metavar="URL", help="postgresql://USER@HOST/NAME.")
@click.option(
    "--blobs", default="", metavar="URL", help="Another folder, or s3://BUCKET/PREFIX?endpoint=URL."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8470, show_default=True, help="0: any free."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option(
    "--anonymous",
    multiple=True,
    metavar="PATTERN",
    help="Repositories that may be read without a token, such as team/*. Repeatable.",
)
@click.option(
    "--cache",
    "cache_bytes",
    default="20G",
    show_default=True,
    callback=read_bytes,
    metavar="SIZE",
    help="Updates made on demand that gc keeps.",
)
@click.option(
    "--decoded",
    "decoded_bytes",
    default="20G",
    show_default=True,
    callback=read_bytes,
    metavar="SIZE",
    help="Decoded versions that are kept to start from.",
)
@click.option(
    "--max-blob",
    "max_blob_bytes",
    default="64G",
    show_default=True,
    callback=read_bytes,
    metavar="SIZE",
    help="The longest upload.",
)
@click.option(
    "--max-model",
    "max_model_bytes",
    default="256G",
    show_default=True,
    callback=read_bytes,
    metavar="SIZE",
    help="The largest decoded model.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=100.0,
    metavar="N",
    show_default=True,
    help="Requests a second of one token or address; 0: any.",
)
@click.option(
    "--chores",
    "chores_seconds",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    metavar="S",
    help="Seconds between two rounds of gc, and of making what most devices need; 0: never.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Models that are decoded or encoded at once, in each process.",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of each of these.")
@click.option(
    "--accel",
    metavar="PREFIX",
    help="Leave blobs to nginx: its internal location for the folder of the blobs.",
)
@click.option("--redirect", is_flag=True, help="Leave blobs to S3, by addresses that expire.")
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="What to log, as lines of JSON on standard error.",
)
def command(host: str, port: int, workers: int, log_level: str, **chosen: Any) -> None:
    """Store versions of models, and give every receiver the fewest bytes.

    On the first run a token that may do everything is printed, once. Ends on SIGINT or SIGTERM,
    after what is under way.

    \b
    limosa hub serve
    limosa hub serve --database postgresql://limosa@db/hub --blobs 's3://models?region=eu-west-1'
    """
    from limosa.hub.logs import start_logging
    from limosa.hub.server.settings import HubSettings

    start_logging(log_level)
    settings = HubSettings(**{**chosen, "folder": chosen["folder"].resolve()})
    if workers > 1:
        serve_many(settings, host, port, workers, log_level)
    else:
        serve(settings, host, port)


def serve(settings: HubSettings, host: str, port: int) -> None:
    """Serve in this process, until a signal."""
    from limosa.exchange.hub_server import HubServer, drop_leftovers

    server = HubServer(settings, host, port)
    # Only now: if another serves here, what lies there is its work.
    drop_leftovers(settings)
    welcome(server.url, server.admin_token)
    try:
        server.run()
    except (KeyboardInterrupt, SystemExit):
        if not server.ended:
            raise


def serve_many(settings: HubSettings, host: str, port: int, workers: int, log_level: str) -> None:
    """Serve with several processes, until a signal."""
    from limosa.exchange.hub_server import drop_leftovers, open_hub, run_workers
    from limosa.hub.sockets import listen

    # If another serves here, what lies there is its work.
    listen(host, port).close()
    drop_leftovers(settings)
    first = open_hub(settings)
    token = first.store.first_token()
    first.close()
    welcome(f"http://{host}:{port}", token)
    run_workers(settings, host, port, workers, log_level)


def welcome(url: str, token: str | None) -> None:
    """Say where the hub is, and on the first run the one token that there is."""
    logging.getLogger("limosa.hub").info("listening", extra={"url": url})
    click.echo(f"hub: {url}")
    if token is not None:
        click.echo(f"admin token (shown once): {token}")
        click.echo(f"next: limosa login {url} --token {token}")
