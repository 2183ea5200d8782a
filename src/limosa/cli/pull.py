"""``limosa pull``: get a version by the fewest bytes."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from limosa.cli import options, remote
from limosa.cli.pull_stdout import check_one_file, pull_to_stdout
from limosa.cli.statuses import PARTIAL
from limosa.errors import ConfigError, LimosaError
from limosa.limits import Limits

if TYPE_CHECKING:
    from limosa.exchange.install import PullResult, Wishes
    from limosa.hub.client import HubClient
    from limosa.hub.reference import Reference
    from limosa.hub.settings import Places


@click.command("pull", short_help="Get a version by the fewest bytes from what is here.")
@click.argument("references", nargs=-1, required=True, metavar="OWNER/NAME[:VERSION]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File or folder; what is there already is what one starts from; - is standard output, for "
    "a model of one file. Of several versions, the folder for all.  [default: NAME, or "
    "NAME.safetensors, in this folder]",
)
@click.option(
    "--quality", default="", metavar="Q", help="A lossy copy: size=5%, bits=4, snr=30, max-error=X."
)
@click.option("--layers", type=click.IntRange(1), metavar="K", help="The first K layers only.")
@click.option(
    "--tensor",
    "tensors",
    multiple=True,
    metavar="NAME",
    help="This tensor only, by ranges, to a safetensors file. Repeatable.",
)
@click.option("--whole", is_flag=True, help="Start from nothing, whatever is here.")
@click.option("--max-hops", type=click.IntRange(1), metavar="N", help="Blobs that are applied.")
@click.option(
    "--max-memory", type=click.IntRange(1), metavar="BYTES", help="That applying one may take."
)
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, as limosa plan does.")
@click.option(
    "--follow", is_flag=True, help="Stay, and update whenever the tag moves; ends on Ctrl-C."
)
@click.option(
    "--interval",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="S",
    help="With --follow: seconds between two looks.",
)
@click.option("--exec", "command_line", metavar="CMD", help="With --follow: run after a change.")
@remote.hub_options
@options.threads_option
@options.limits_option
@options.json_option()
@click.pass_context
def command(
    context: click.Context,
    references: tuple[str, ...],
    output: Path | None,
    quality: str,
    layers: int | None,
    tensors: tuple[str, ...],
    whole: bool,
    max_hops: int | None,
    max_memory: int | None,
    dry_run: bool,
    follow: bool,
    interval: float,
    command_line: str | None,
    hub: str | None,
    token: str | None,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Get a version from the hub by the fewest bytes from what this machine holds.

    What comes is verified by the digest of its tensors before it takes the place of the old file,
    which stays usable until then. Interrupted at any point, the same command goes on. Where an
    update fails, the whole model is fetched in the same run.

    \b
    limosa pull team/detector:v3 -o model.safetensors
    limosa pull team/detector --quality size=5% -o small.safetensors
    limosa pull team/detector:stable -o model.safetensors --follow --exec 'systemctl reload app'
    """
    from limosa.exchange.install import Wishes

    if dry_run:
        from limosa.cli.plan import show_plan

    bounds = {"hops": max_hops, "memory": max_memory}
    given = {name: float(value) for name, value in bounds.items() if value is not None}
    if "hops" in given or "memory" in given:
        given = {name: int(value) for name, value in given.items()}
    piped = str(output) == "-"
    wishes = Wishes(quality, layers, given, whole, keep=not piped)
    named = [remote.reference_of(text) for text in references]
    if quality and layers:
        raise click.UsageError("--quality and --layers exclude each other: name one.")
    if tensors and (quality or layers):
        raise click.UsageError("--tensor goes with neither --quality nor --layers.")
    if len(named) > 1 and (follow or tensors):
        raise click.UsageError("--follow and --tensor take one version.")
    if piped and (len(named) > 1 or dry_run or follow or tensors or as_json):
        raise click.UsageError(
            "-o - takes one version, and none of --dry-run, --follow, --tensor and --json."
        )
    if dry_run and (quality or tensors or follow):
        raise click.UsageError("--dry-run goes with none of --quality, --tensor and --follow.")
    here = remote.places()
    if here.offline and not (dry_run or tensors or quality or layers or follow):
        _pull_offline(here, hub, named, output, as_json)
        return
    with remote.open_client(hub, token) as client:
        if dry_run:
            for one in named:
                show_plan(client, one, [] if output is None else [output], wishes, as_json)
            return
        if tensors:
            _pull_tensors(client, named[0], tensors, output, threads, limits, as_json)
            return
        pull_one = _puller(client, wishes, threads, limits, as_json)
        if piped:
            check_one_file(client, named[0])
            result = pull_to_stdout(here, named[0], lambda place: pull_one(named[0], place))
            _show(result, as_json, err=True)
            return
        if follow:
            _follow(lambda: pull_one(named[0], _place(client, named[0], output)),
                    interval, command_line, as_json)  # fmt: skip
            return
        failed = _pull_all(client, named, output, pull_one, as_json)
    if failed:
        context.exit(PARTIAL)


PullOne = Callable[["Reference", Path], "PullResult"]


def _puller(
    client: HubClient, wishes: Wishes, threads: int | None, limits: Limits, quiet: bool
) -> PullOne:
    from limosa.exchange.install import pull

    def pull_one(reference: Reference, place: Path) -> PullResult:
        with remote.stages(quiet) as progress:
            return pull(
                client, reference, place, places=remote.places(), wishes=wishes, limits=limits,
                threads=threads, progress=progress,
            )  # fmt: skip

    return pull_one


def _pull_all(
    client: HubClient,
    named: list[Reference],
    output: Path | None,
    pull_one: PullOne,
    as_json: bool,
) -> bool:
    """Pull one, or several into a folder; whether some of several failed."""
    if len(named) == 1:
        _show(pull_one(named[0], _place(client, named[0], output)), as_json)
        return False
    folder, failures = output or Path(), 0
    for one in named:
        try:
            name = _default_name(client, one)
            place = folder / one.repository.replace("/", "-") / name
            _show(pull_one(one, place), as_json, several=True)
        except LimosaError as error:
            failures += 1
            click.echo(f"limosa: {one}: {error}", err=True)
            if failures == len(named):
                raise
    return failures > 0


def _pull_offline(
    here: Places, hub: str | None, named: list[Reference], output: Path | None, as_json: bool
) -> None:
    """Copy what this machine holds already."""
    from limosa.exchange.install import pull_offline

    if len(named) > 1 or output is None:
        raise click.UsageError("Offline, name one version, and its place with -o.")
    known = hub or here.hub
    url = here.hub_url(hub) if known else ""

    def pull_to(place: Path) -> PullResult:
        return pull_offline(named[0], place, places=here, hub=url)

    if str(output) == "-":
        _show(pull_to_stdout(here, named[0], pull_to), as_json, err=True)
    else:
        _show(pull_to(output), as_json)


def _place(client: HubClient, reference: Reference, output: Path | None) -> Path:
    return Path(_default_name(client, reference)) if output is None else output


def _default_name(client: HubClient, reference: Reference) -> str:
    """The name of the repository, with the ending of the version's kind of file."""
    found = client.version(reference.repository, reference.version)
    files, name = found["manifest"]["files"], reference.repository.partition("/")[2]
    if len(files) != 1 or files[0]["path"]:
        return name
    endings = {"safetensors": ".safetensors", "npz": ".npz", "torch": ".pt", "onnx": ".onnx"}
    return name + endings.get(files[0]["kind"], "")


def _show(result: PullResult, as_json: bool, *, several: bool = False, err: bool = False) -> None:
    """Say what came; of several results each has a line of JSON."""
    if as_json and several:
        click.echo(json.dumps(asdict(result)))
        return
    if as_json:
        remote.print_json(asdict(result))
        return
    if not result.hops:
        how = "was there already" if not result.copied else "copied from what is here"
        click.echo(f"{result.path} is {result.reference}: {how}", err=err)
        return
    start = "an update" if result.start else "the whole model"
    whole = f", {result.nbytes / result.whole_nbytes:.0%} of the whole" if (
        result.start and result.whole_nbytes
    ) else ""  # fmt: skip
    if result.fallback:
        click.echo(f"limosa: the update did not do: {result.fallback}", err=True)
    came = f"{start}, {remote.size(result.nbytes)}{whole}"
    click.echo(f"{result.path} is {result.reference}: {came}", err=err)


def _pull_tensors(
    client: HubClient,
    reference: Reference,
    names: tuple[str, ...],
    output: Path | None,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    from limosa.exchange.tensors_only import pull_tensors

    place = output or Path(reference.repository.partition("/")[2] + "-tensors.safetensors")
    result = pull_tensors(
        client, reference, names, place, places=remote.places(), limits=limits, threads=threads
    )
    if as_json:
        remote.print_json(asdict(result))
    else:
        click.echo(f"{result.path}: {len(names)} tensors, {remote.size(result.nbytes)} fetched")


def _follow(
    pull: Callable[[], PullResult], interval: float, command_line: str | None, as_json: bool
) -> None:
    from limosa.cli.main import terminate
    from limosa.exchange.follow import Follower

    def failed(error: LimosaError) -> None:
        if isinstance(error, ConfigError):
            raise error
        click.echo(f"limosa: {error}", err=True)

    follower = Follower(
        pull,
        interval=interval,
        command=shlex.split(command_line or ""),
        updated=lambda result: _show(result, as_json, several=True),
        failed=failed,
    )

    def stop(number: int, frame: Any) -> None:
        follower.stop()
        # Whoever asks a second time does not want to wait for the pull that is under way.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, terminate)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    follower.run()
