"""How long planning takes among ten thousand versions.

    python -m benchmarks.planner

A history of 10 000 versions: each has an update from the one before it, every tenth one from the
tenth before and back, every hundredth a whole model and a long jump. Receivers hold some version
and want another.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator

from limosa.hub.planner import NOTHING, Edge, Graph, RouteLimits

WHOLE, STEP, TEN, JUMP = 10_000_000, 180_000, 700_000, 2_500_000


def history(versions: int, seed: int = 0) -> Iterator[Edge]:
    """The edges of such a history, sizes within a third of each other."""
    chance = random.Random(seed)

    def about(size: int) -> int:
        return int(size * chance.uniform(0.8, 1.2))

    for i in range(versions):
        if i % 100 == 0:
            yield Edge(NOTHING, f"v{i}", about(WHOLE))
        if i:
            yield Edge(f"v{i - 1}", f"v{i}", about(STEP))
        if i % 10 == 0 and i >= 10:
            yield Edge(f"v{i - 10}", f"v{i}", about(TEN))
            yield Edge(f"v{i}", f"v{i - 10}", about(TEN))
        if i % 100 == 0 and i >= 100:
            yield Edge(f"v{i - 100}", f"v{i}", about(JUMP))


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--plans", type=int, default=200)
    options = parser.parse_args()
    graph = Graph(history(options.versions))
    chance = random.Random(1)
    for name, limits in (("no limits", None), ("at most 8 hops", RouteLimits(hops=8))):
        seconds = []
        for _ in range(options.plans):
            held = {f"v{chance.randrange(options.versions)}" for _ in range(3)}
            wanted = f"v{chance.randrange(options.versions)}"
            extra = [Edge(one, wanted, WHOLE // 3, seconds=2.0) for one in held]
            started = time.perf_counter()
            graph.plan(held, wanted, limits, extra=extra)
            seconds.append(time.perf_counter() - started)
        worst, middle = 1000 * max(seconds), 1000 * statistics.median(seconds)
        print(
            f"{options.versions:,} versions, {name}: median {middle:.2f} ms, worst {worst:.2f} ms"
        )


if __name__ == "__main__":
    main()
