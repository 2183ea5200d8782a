"""``limosa features send``: the front end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from limosa.cli import progress, report
from limosa.cli.features import arguments
from limosa.exchange.originals import refuse_inputs

if TYPE_CHECKING:
    import torch

    from limosa.codec.feature.encode import FeatureQuality
    from limosa.exchange.feature_client import FeatureClient
    from limosa.exchange.frames import Frame


@click.command("send", short_help="Send the features of images or of a video to a service.")
@click.argument("source", type=click.Path(exists=True), metavar="INPUT")
@arguments.model_option
@click.option("--url", required=True, help="Of the service, such as http://cloud:8000.")
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="What to ask for; all when not given."
)
@arguments.profiles_option
@click.option("--step", type=float, metavar="X", help="Quantize with levels X apart.")
@click.option("--bits", type=float, metavar="B", help="Take B bits for each element.")
@click.option("--snr", type=float, metavar="DB", help="Reach this signal-to-noise ratio.")
@click.option(
    "--size",
    type=click.IntRange(1),
    default=224,
    show_default=True,
    help="Pixels of either side of what the model gets: the middle of a frame, scaled.",
)
@click.option(
    "--mean",
    default="0.485,0.456,0.406",
    show_default=True,
    help="Is taken from the colours, which are 0 to 1.",
)
@click.option(
    "--std", default="0.229,0.224,0.225", show_default=True, help="They are divided by this then."
)
@click.option(
    "--every", type=click.IntRange(1), default=1, show_default=True, help="Send one frame of N."
)
@click.option(
    "--key-every",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Features at most until one comes that decodes alone.",
)
@click.option("--alone", is_flag=True, help="A request for each frame, in place of a stream.")
@click.option(
    "--answers",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the answers there, one line of JSON a frame.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    source: str,
    model: str,
    url: str,
    tasks: tuple[str, ...],
    profiles: tuple[str, ...],
    step: float | None,
    bits: float | None,
    snr: float | None,
    size: int,
    mean: str,
    std: str,
    every: int,
    key_every: int,
    alone: bool,
    answers: Path | None,
    as_json: bool,
) -> None:
    """Send the features of INPUT, a folder of images or a video, to a service.

    Says how many bytes that took, against JPEG, PNG and WebP of the same frames.

    \b
    limosa features send photos/ --model shop.models:resnet --url http://cloud:8000 --bits 0.2
    limosa features send street.mp4 --model m.pt2 --url http://cloud:8000 --task class --json
    """
    refuse_inputs(answers, source, model, *(p.rpartition("=")[2] for p in profiles))
    quality = quality_of(step, bits, snr)
    colours = colours_of("--mean", mean), colours_of("--std", std)
    from limosa.exchange.feature_client import FeatureClient
    from limosa.exchange.feature_service.naming import find_model
    from limosa.exchange.frames import frames

    sizes: Counter[str] = Counter()
    names: list[str] = []
    known = arguments.load_profiles(profiles)
    module = find_model(model)
    with ExitStack() as stack:
        client = stack.enter_context(
            FeatureClient(url, module, quality=quality, profile=known, key_every=key_every)
        )
        out = None if answers is None else stack.enter_context(answers.open("w", encoding="utf-8"))
        advance = stack.enter_context(progress.count_bar("send"))
        total = count_of(source, every)
        inputs = tensors(frames(source, size, every), colours, sizes, names)
        start = time.perf_counter()
        found = (
            (client.ask(one, tasks) for one in inputs) if alone else client.stream(inputs, tasks)
        )
        for number, answer in enumerate(found):
            if out is not None:
                out.write(line(names[number], answer))
            if advance is not None:
                advance(number + 1, total or number + 1)
        show(client, sizes, time.perf_counter() - start, as_json)


def quality_of(step: float | None, bits: float | None, snr: float | None) -> FeatureQuality:
    """At most one of the options; without loss for none."""
    from limosa.codec.config import Lossless
    from limosa.codec.quality import Step, Target

    if sum(one is not None for one in (step, bits, snr)) > 1:
        raise click.UsageError("--step, --bits and --snr exclude each other.")
    if step is not None:
        return Step(step)
    if bits is None and snr is None:
        return Lossless()
    return Target(bits=bits, snr=snr)


def colours_of(option: str, text: str) -> tuple[float, ...]:
    """One number, or three."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, 3):
        raise click.BadParameter(f"{option} {text!r} is neither a number nor three with commas.")
    return found


def tensors(
    given: Iterator[tuple[str, Frame]],
    colours: tuple[tuple[float, ...], tuple[float, ...]],
    sizes: Counter[str],
    names: list[str],
) -> Iterator[torch.Tensor]:
    """What the model gets, (1, 3, size, size); counts what others would send of each frame."""
    import torch

    from limosa.exchange.frames import picture_bytes

    mean, std = (torch.tensor(part).reshape(1, -1, 1, 1) for part in colours)
    for name, frame in given:
        names.append(name)
        sizes.update(picture_bytes(frame))
        pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None]
        yield (pixels / 255 - mean) / std


def count_of(source: str, every: int) -> int | None:
    """Frames of a folder; of a video nobody knows."""
    from limosa.exchange.frames import images_in

    return -(-len(images_in(source)) // every) if Path(source).is_dir() else None


def line(name: str, answer: Any) -> str:
    """The answers to one frame."""
    from limosa.exchange.feature_service.answers import to_plain

    return json.dumps({"frame": name, "answers": to_plain(answer)}) + "\n"


def show(client: FeatureClient, sizes: Counter[str], seconds: float, as_json: bool) -> None:
    """The summary."""
    traffic = client.traffic
    bits = 8 * traffic.sent / traffic.elements if traffic.elements else 0.0
    if as_json:
        report.print_json(
            {
                "frames": traffic.inputs,
                "features": traffic.features,
                "keys": traffic.keys,
                "bytes": traffic.sent,
                "bits_per_element": bits,
                "answer_bytes": traffic.received,
                "seconds": seconds,
                "pictures": dict(sizes),
            }
        )
        return
    from rich.table import Table

    table = Table("sent as", box=None, pad_edge=False)
    for heading in ("bytes", "a frame", "of JPEG"):
        table.add_column(heading, justify="right")
    frames = max(1, traffic.inputs)
    names = {"jpeg": "JPEG, quality 90", "png": "PNG", "webp": "WebP, quality 90"}
    for name, size in {"features": traffic.sent, **sizes}.items():
        share = f"{size / sizes['jpeg']:.3f}" if sizes["jpeg"] else ""
        table.add_row(names.get(name, name), f"{size:,}", f"{size / frames:,.0f}", share)
    console = report.console()
    console.print(table)
    console.print(
        f"{traffic.inputs} frames, {bits:.3f} bits an element; {traffic.keys} of "
        f"{traffic.features} features decode alone; answers: {report.human(traffic.received)}; "
        f"{traffic.inputs / seconds:.1f} frames a second"
    )
