"""What the paper on Knowledge Centric Networking measures, measured again with limosa.

    python -m benchmarks.papers.knowledge_centric --out docs/results

makes tables 1 to 5 and figures 2, 4, 5 and 6 of *Deep model compression and communication in
Knowledge Centric Networking*: it trains the versions once (they are kept in the user's cache
folder), sends them, and writes ``knowledge_centric.md`` and its plots. With ``--network vgg16`` or
``--network resnet50`` and ``--weights FILE`` it does the same for the paper's own networks;
``--near``, ``--last`` and ``--partial`` take versions that are already trained.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import data
from benchmarks.finetune import default_cache

from . import figures, finetune, measure, models, photos, report, retrieval
from .models import Network, State


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the whole experiment from the command line."""
    options = _parse(arguments)
    # The order of float additions depends on the number of threads, hence the last bits of mAP.
    torch.set_num_threads(1)
    network = models.NETWORKS[options.network]
    started = time.monotonic()

    def progress(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", file=sys.stderr, flush=True)

    measured = measure.Measurements(
        network=network,
        states=_versions(options, network, progress),
        others={"MiniLM-L6": _floats(data.load_model("minilm"))},
        names=_names(network.title),
        sets=list(photos.GROUPS),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    found = options.out / "knowledge_centric.json"
    if options.redraw:
        measure.read_figures(measured, found)
    else:
        with measure.Bench(network, retrieval.retrieval_sets(), progress) as bench:
            measure.measure(measured, bench)
        measure.write_figures(measured, found)
    figures.draw(options.out, measured)
    (options.out / "knowledge_centric.md").write_text(report.render(measured), encoding="utf-8")
    progress(f"wrote {options.out / 'knowledge_centric.md'}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers.knowledge_centric")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder to write")
    parser.add_argument("--network", choices=sorted(models.NETWORKS), default="efficientnet-lite0")
    parser.add_argument("--weights", type=Path, help="state dict (.pth) to start from")
    parser.add_argument("--near", type=Path, help=f"state dict of epoch {finetune.NEAR_EPOCH}")
    parser.add_argument("--last", type=Path, help=f"state dict of epoch {finetune.EPOCHS}")
    parser.add_argument("--partial", type=Path, help="state dict with the last blocks retrained")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of fine-tunes")
    parser.add_argument(
        "--redraw", action="store_true", help="make page and plots from OUT/knowledge_centric.json"
    )
    options = parser.parse_args(arguments)
    options.weights = options.weights or models.NETWORKS[options.network].weights()
    if options.weights is None:
        parser.error(f"--network {options.network} needs --weights FILE")
    if (options.near is None) != (options.last is None):
        parser.error("--near and --last go together")
    return options


def _names(title: str) -> dict[str, str]:
    return {
        "base": title,
        "near": f"{title}-retrain-epoch{finetune.NEAR_EPOCH}",
        "last": f"{title}-retrain-epoch{finetune.EPOCHS}",
        "partial": f"{title}-partial",
    }


def _versions(
    options: argparse.Namespace, network: Network, progress: Callable[[str], object]
) -> dict[str, State]:
    base = models.read_state(options.weights, network)

    def trained(name: str, prefixes: tuple[str, ...], keep: tuple[int, ...]) -> dict[int, State]:
        return finetune.cached(
            options.cache,
            f"{options.network}-{name}",
            base,
            lambda: finetune.fine_tune(network, base, prefixes, keep, progress),
            keep,
        )

    states = {"base": base}
    if options.last is not None:
        states["near"] = models.read_state(options.near, network)
        states["last"] = models.read_state(options.last, network)
    else:
        # The empty prefix: every parameter is trained.
        whole = trained("whole", ("",), (finetune.NEAR_EPOCH, finetune.EPOCHS))
        states["near"], states["last"] = whole[finetune.NEAR_EPOCH], whole[finetune.EPOCHS]
    if options.partial is not None:
        states["partial"] = models.read_state(options.partial, network)
    else:
        partial = trained("partial", network.last_blocks, (finetune.EPOCHS,))
        states["partial"] = partial[finetune.EPOCHS]
    return states


def _floats(state: State) -> State:
    return {name: array for name, array in state.items() if data.is_float(array)}


if __name__ == "__main__":
    main()
