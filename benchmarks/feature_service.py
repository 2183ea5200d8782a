"""A service of features against its tail alone, on one machine.

Run it with: python -m benchmarks.feature_service

Prints requests a second of the tail called in a loop with batches (features in memory, no network,
no codec), of decoding and the tail, and of the service with many clients at once, who compare every
answer with the model's own; then latencies, and how many answers were lost or mixed up.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import nn

from benchmarks import machine
from benchmarks.networks import resnet18
from limosa import FeatureDecoder, FeatureEncoder, FeatureSource, Step
from limosa.exchange.feature_service.server import Server
from limosa.exchange.feature_service.service import FeatureService
from limosa.exchange.feature_service.settings import Settings
from limosa.torch import model_digest, split
from limosa.torch.dtypes import from_tensor, to_tensor

INPUTS = 64
TOLERANCE = 1e-3


def rate(work: Callable[[], Any], count: int, seconds: float) -> float:
    """How many of *count* a call are done a second."""
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        done += count
    return done / (time.perf_counter() - start)


def ask(
    url: str,
    messages: list[bytes],
    expected: list[np.ndarray],
    numbers: list[int],
    results: list[tuple[float, str]],
) -> None:
    """One client: its requests one after another on one connection."""
    address = urlsplit(url)
    # No library: clients and service share the processors, and what a client costs is not asked.
    head = "POST /v1/features?task=class HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    with socket.create_connection((address.hostname, address.port)) as connection:
        for number in numbers:
            start = time.perf_counter()
            body = messages[number % INPUTS]
            connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
            status, data = receive(connection)
            seconds = time.perf_counter() - start
            outcome = "lost"
            if status == 200:
                found = np.array(json.loads(data)["answers"]["class"]["output"]["data"][0])
                # The outputs of two inputs differ by more than twice this: main() looks.
                near = np.abs(found - expected[number % INPUTS]).max() < TOLERANCE
                outcome = "right" if near else "mixed"
            results.append((seconds, outcome))


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return 0, b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), body


def crowd(
    url: str, messages: list[bytes], expected: list[np.ndarray], requests: int, clients: int
) -> list[tuple[float, str]]:
    """All clients, each a thread; runs in a process of its own."""
    results: list[tuple[float, str]] = []
    threads = [
        threading.Thread(
            target=ask, args=(url, messages, expected, list(range(n, requests, clients)), results)
        )
        for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def page(found: dict[str, Any], clients: int, batch: int) -> str:
    """The numbers as Markdown."""
    lines = [
        "# A service of features and its tail alone",
        "",
        f"ResNet-18 for 32 x 32 images, cut in half; {clients} clients on the same machine, "
        f"batches of {batch}. The tail alone and the service took turns.",
        "",
        machine.describe(),
        "",
        "| | |",
        "|---|---:|",
    ]
    for name, value in found.items():
        lines.append(
            f"| {name} | {value:,.2f} |" if isinstance(value, float) else f"| {name} | {value} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--at", default="6", help="the cut; 6: behind half of the network")
    parser.add_argument("--size", type=int, default=32, help="of the images")
    parser.add_argument("--step", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=10, help="of each run without a network")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page as well")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = resnet18().train()
    small = torch.randn(INPUTS, 3, 4, 4)
    images = nn.functional.interpolate(small, size=(options.size, options.size), mode="bicubic")
    with torch.inference_mode():
        # Batch norms that fit the images, or an untrained network says the same of all.
        for _ in range(3):
            model(images[:32])
    model.eval()
    head, tail = split(model, options.at)
    source = FeatureSource(model_digest(model), options.at)
    with torch.inference_mode():
        crossing = [head(image[None]) for image in images]
    encoder = FeatureEncoder(source, quality=Step(options.step), key_every=1)
    messages = [encoder.encode({head.names[0]: to_tensor("", one)}) for one in crossing]
    decoder = FeatureDecoder(source)
    decoded = [from_tensor(decoder.decode(one)[head.names[0]]) for one in messages]
    with torch.inference_mode():
        expected = [tail(one).numpy()[0] for one in decoded]
    apart = min(
        float(np.abs(a - b).max()) for n, a in enumerate(expected) for b in expected[n + 1 :]
    )
    assert apart > 2 * TOLERANCE, "the answers are too alike to be told apart"

    batch = options.batch

    @torch.inference_mode()
    def tail_only() -> None:
        tail(torch.cat(decoded[:batch]))

    @torch.inference_mode()
    def decode_and_tail() -> None:
        one = [from_tensor(decoder.decode(data)[head.names[0]]) for data in messages[:batch]]
        tail(torch.cat(one))

    found: dict[str, Any] = {
        "bytes a feature": round(sum(map(len, messages)) / INPUTS),
        "elements a feature": crossing[0].numel(),
    }
    bounds = Settings(batch=batch, queue=64)
    service = FeatureService(model, options.at, {"class": "tail"}, settings=bounds)
    results: list[tuple[float, str]] = []
    rates: list[tuple[float, float, float]] = []
    share = options.requests // options.rounds
    with Server(service) as server, multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(crowd, (server.url, messages, expected, 4 * options.clients, options.clients))
        # In turns, for other programs slow all of them.
        for _ in range(options.rounds):
            before = rate(tail_only, batch, options.seconds / 2)
            both = rate(decode_and_tail, batch, options.seconds)
            start = time.perf_counter()
            results += pool.apply(crowd, (server.url, messages, expected, share, options.clients))
            served = share / (time.perf_counter() - start)
            after = rate(tail_only, batch, options.seconds / 2)
            rates.append(((before + after) / 2, both, served))
    tails, boths, serveds = (np.array(one) for one in zip(*rates, strict=True))
    times = np.array([one for one, _ in results])
    outcomes = [outcome for _, outcome in results]
    asked = share * options.rounds
    found |= {
        "tail, requests/s": float(np.median(tails)),
        "decode and tail, requests/s": float(np.median(boths)),
        "service, requests/s": float(np.median(serveds)),
        "service / tail, median round": float(np.median(serveds / tails)),
        "service / tail, each round": [round(float(one), 2) for one in serveds / tails],
        "p50, ms": 1e3 * float(np.quantile(times, 0.5)),
        "p99, ms": 1e3 * float(np.quantile(times, 0.99)),
        "requests": asked,
        "right": outcomes.count("right"),
        "lost": asked - outcomes.count("right") - outcomes.count("mixed"),
        "mixed up": outcomes.count("mixed"),
    }
    if options.markdown is not None:
        options.markdown.write_text(page(found, options.clients, options.batch), "utf-8")
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:30} {value:,.3f}" if isinstance(value, float) else f"{name:30} {value}")


if __name__ == "__main__":
    main()
