"""Refinement with the data spread over processes (DistributedDataParallel, gloo)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.support.refined import same, state_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from limosa.torch import refine

_PROCESSES = 2


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))


def train(rank: int, folder: str, rate: refine.Rate | None) -> None:
    """One process: refine on its own half of the data, write the update that it made."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=_PROCESSES)
    model = network()
    session = refine.prepare(model, refine.KnowledgeAugmentation(n=2), rate=rate)
    spread = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(session.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(5):
        x = torch.randn(4, 1, 8, 8, generator=generator)
        loss = spread(x).square().sum()
        if rate is not None:
            loss = loss + session.rate_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (Path(folder) / f"update-{rank}").write_bytes(session.update())
    torch.save(state_of(model), Path(folder) / f"state-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("rate", [None, refine.Rate(lam=1e-4, step=0.5)], ids=["plain", "rate"])
def test_all_processes_make_the_same_update(rate: refine.Rate | None, tmp_path: Path):
    torch.multiprocessing.spawn(train, (str(tmp_path), rate), nprocs=_PROCESSES)
    updates = [(tmp_path / f"update-{rank}").read_bytes() for rank in range(_PROCESSES)]
    assert updates[0] == updates[1]
    base = state_of(network())
    rebuilt = refine.reconstitute(base, updates[0])
    assert same(rebuilt, torch.load(tmp_path / "state-1.pt"))
    assert not same(rebuilt, base)
