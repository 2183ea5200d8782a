"""How long the edge takes to rebuild a network, on one core and without torch's help."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.networks import NETWORKS
from limosa.torch import refine, save_file

# Runs in a process of its own: only numpy and the core are loaded.
_REBUILD = """
import sys, time
from limosa.exchange.local import apply
started = time.perf_counter()
apply(sys.argv[1], sys.argv[2], sys.argv[3], threads=1)
seconds = time.perf_counter() - started
assert "torch" not in sys.modules
print(seconds)
"""


def measure(names: Sequence[str]) -> dict[str, float]:
    """Seconds to read base and update, rebuild, verify and write, for KA n=3 on each layer."""
    return {name: _seconds(name) for name in names}


def _seconds(name: str) -> float:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    with tempfile.TemporaryDirectory() as folder:
        base, update, new = (str(Path(folder) / part) for part in ("base", "update", "new"))
        save_file(network.state_dict(), base)
        session = refine.prepare(network, refine.KnowledgeAugmentation(n=3))
        with torch.no_grad():
            for parameter in session.parameters():
                parameter.normal_(std=0.01)
        Path(update).write_bytes(session.update())
        run = [sys.executable, "-c", _REBUILD, base, update, new]
        return min(float(subprocess.check_output(run)) for _ in range(2))
