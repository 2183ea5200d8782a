"""``limosa features serve``: the cloud."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from limosa.cli.features import arguments

if TYPE_CHECKING:
    from limosa.exchange.feature_service.server import Server

_LEVELS = ("debug", "info", "warning", "error")


@click.command("serve", short_help="Answer the features of many front ends with many tasks.")
@arguments.model_option
@click.option(
    "--at",
    multiple=True,
    required=True,
    metavar="CUT",
    help="Name of a module or node behind which features are taken; several with commas are one "
    "cut. May be repeated.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    metavar="NAME[@CUT]=WHAT",
    help="What to compute: tail, the rest of the model, or package.module:name of a module that "
    "takes the tensors that cross CUT. May be repeated.",
)
@arguments.profiles_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Where to listen; 0: any port that is free.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Features in a batch."
)
@click.option(
    "--wait-ms",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="Milliseconds that a feature waits for others.",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Features of a cut that may wait; more are refused, or not read.",
)
@click.option(
    "--max-message-bytes",
    type=click.IntRange(1),
    default=8 * 2**20,
    show_default=True,
    help="The longest feature.",
)
@click.option(
    "--max-pending-bytes",
    type=click.IntRange(1),
    default=512 * 2**20,
    show_default=True,
    help="Decoded features in memory, all together.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Requests and streams at once.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Features a second from one address; any when not given.",
)
@click.option(
    "--idle",
    "idle_s",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds that a client may be silent.",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    callback=arguments.narrow_limits,
    metavar="NAME=N",
    help="Change what a feature may ask for, such as max_elements=1000000. May be repeated.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    help="Threads of the tails; all processors when not given.",
)
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="What to log, as lines of JSON on standard error.",
)
def command(
    model: str,
    at: tuple[str, ...],
    tasks: tuple[str, ...],
    profiles: tuple[str, ...],
    host: str,
    port: int,
    limits: dict[str, int],
    threads: int | None,
    log_level: str,
    **bounds: Any,
) -> None:
    """Answer the features of many front ends with many tasks (docs/protocol.md).

    Ends on SIGINT or SIGTERM, after what is under way.

    \b
    limosa features serve --model shop.models:resnet --at layer3 --task class=tail
    limosa features serve --model m.pt2 --at relu_8 --task class=tail --task find=shop.heads:find
    """
    from limosa.exchange.feature_service.naming import find_model, read_tasks
    from limosa.exchange.feature_service.server import Server
    from limosa.exchange.feature_service.service import FeatureService
    from limosa.exchange.feature_service.settings import FEATURE_LIMITS, Settings
    from limosa.hub.logs import start_logging

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    service = FeatureService(
        find_model(model),
        at,
        read_tasks(tasks),
        profile=arguments.load_profiles(profiles),
        settings=Settings(limits=replace(FEATURE_LIMITS, **limits), **bounds),
    )
    start_logging(log_level)
    run(Server(service, host, port))


def run(server: Server) -> None:
    """Serve until a signal; one that was heard and heeded is no failure."""
    logging.getLogger("limosa.features").info("listening", extra={"url": server.url})
    try:
        server.run()
    except (KeyboardInterrupt, SystemExit):
        if not server.ended:
            raise
