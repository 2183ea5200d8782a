"""Runs, several at a time, and the store that lets an interrupted experiment go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.networks import NETWORKS
from benchmarks.papers.updates.data import Images, cifar10, digits, split
from benchmarks.papers.updates.settings import Setting
from benchmarks.papers.updates.training import accuracy, first_network, train
from limosa.torch import refine
from limosa.torch.refine.session import state_of

Result = dict


class Store:
    """Results by key, a JSON line each, kept beside the first networks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._path = folder / "results.jsonl"
        self.results: dict[str, Result] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            result = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            return
        self.results[result["key"]] = result

    def add(self, result: Result) -> None:
        """Keep a result at once."""
        self.results[result["key"]] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


def run_all(
    settings: Sequence[Setting],
    store: Store,
    cifar: Path | None,
    workers: int,
    progress: Callable[[Result], None],
) -> None:
    """Run what the store does not have."""
    missing = [setting for setting in settings if setting.key not in store.results]
    jobs = [(setting, store.folder, cifar) for setting in missing]
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(jobs)), _one_thread) as pool:
        for result in pool.imap_unordered(_job, jobs):
            store.add(result)
            progress(result)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _job(job: tuple[Setting, Path, Path | None]) -> Result:
    setting, folder, cifar = job
    return run(setting, digits() if cifar is None else cifar10(cifar), folder)


def run(setting: Setting, images: Images, folder: Path) -> Result:
    """Train, quantize, decode, and measure what is decoded."""
    started = time.monotonic()
    chosen = split(images, setting.first, setting.seed, tuning=setting.tuning)
    network = _first(setting, images, folder)
    before = accuracy(network, images, chosen.test)
    result: Result = {
        **asdict(setting), "key": setting.key, "label": setting.label, "family": setting.family,
        "before": before, "accuracy": before, "points": [],
        "model_parameters": sum(p.numel() for p in network.parameters()),
    }  # fmt: skip
    if setting.method != "First":
        method = setting.make()
        counted = refine.count(network, method)
        rate = refine.Rate(setting.lam, setting.step) if setting.lam else None
        session = refine.prepare(network, method, rate=rate, seed=setting.seed)
        train(
            network, session.parameters(), images, chosen.second, epochs=setting.epochs,
            rate=setting.learning_rate, seed=setting.seed,
            extra_loss=lambda *_: session.rate_loss(),
        )  # fmt: skip
        result["parameters"] = counted
        result["accuracy"] = accuracy(network, images, chosen.test)
        result["points"] = [
            _point(session, step, setting, images, chosen.test) for step in setting.steps
        ]
    result["seconds"] = time.monotonic() - started
    return result


def _point(
    session: refine.Session, step: float, setting: Setting, images: Images, test: np.ndarray
) -> dict:
    """Bytes on the wire, and the accuracy of what the edge rebuilds."""
    written = session.encode(step=step or None)
    edge = NETWORKS[setting.network](channels=images.channels)
    edge.load_state_dict(state_of(written.refinement))
    edge = edge.to(memory_format=torch.channels_last)
    right = accuracy(edge, images, test)
    return {"step": step, "bytes": len(written.data), "accuracy": right}


def _first(setting: Setting, images: Images, folder: Path) -> nn.Module:
    """The deployed network; trained once and kept."""
    nothing = {"value": 0.0, "learning_rate": 0.0, "lam": 0.0, "step": 0.0, "epochs": 0.0}
    plain = replace(setting, method="First", steps=(), **nothing)
    path = folder / f"first-{plain.key}.pt"
    chosen = split(images, setting.first, setting.seed, tuning=setting.tuning)
    if not path.exists():
        network = first_network(
            setting.network, images, chosen.first, setting.seed, setting.first_epochs
        )
        beside = path.with_suffix(f".{os.getpid()}")
        torch.save(network.state_dict(), beside)
        beside.replace(path)
    network = NETWORKS[setting.network](channels=images.channels)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.to(memory_format=torch.channels_last)


def with_seeds(settings: Iterable[Setting], seeds: int) -> list[Setting]:
    """Each setting once a seed; seeds in the outer loop, so that all rows grow together."""
    rows = list(settings)
    return [replace(row, seed=seed) for seed in range(seeds) for row in rows]
