"""Models and updates that several tests of refinements share."""

from __future__ import annotations

import torch
from torch import nn

from limosa.torch import refine


class Mixed(nn.Module):
    """One of each: embedding tied to a head, convolutions, norm, LSTM, GRU, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm1d(16)
        self.depthwise = nn.Conv1d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv1d(16, 16, 3, padding=1, groups=4)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.tied = nn.Linear(16, 50, bias=False)
        self.tied.weight = self.embed.weight
        self.head = nn.Linear(50, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).transpose(1, 2)
        x = self.grouped(self.depthwise(torch.relu(self.norm(self.conv(x))))).transpose(1, 2)
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        x, _ = self.attention(x, x, x)
        return self.head(self.tied(x).mean(1))


METHODS = {
    "KA": refine.KnowledgeAugmentation(n=2),
    "KA of 0": refine.KnowledgeAugmentation(n=0),
    "ML": refine.MappingLearning(r=4),
    "LRA": refine.LowRankApproximation(r=4),
    "LRU": refine.LowRankUpdate(r=3),
    "RM": refine.RandomMask(p=0.1),
    "FP": refine.FilterPruning(c=0.4),
    "core": refine.Core(r=5),
    "core and spectrum": refine.Core(r=5, spectrum=True),
    "difference": refine.Difference(),
}


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Bit for bit, names and order of names included."""
    return list(one) == list(two) and all(
        one[name].dtype == two[name].dtype
        and one[name]
        .contiguous()
        .reshape(-1)
        .view(torch.uint8)
        .equal(two[name].contiguous().reshape(-1).view(torch.uint8))
        for name in one
    )


def trained(
    model: nn.Module, session: refine.Session, inputs: torch.Tensor, steps: int = 3
) -> float:
    """Some steps on made-up labels; the loss before the last."""
    labels = torch.arange(len(inputs)) % 4
    optimizer = torch.optim.Adam(session.parameters(), lr=1e-2)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs).float(), labels) + session.rate_loss()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def small_update(seed: int = 0) -> tuple[dict[str, torch.Tensor], bytes]:
    """A base and an update with factors, differences, statistics and a counter."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 4))
    base = state_of(model)
    session = refine.prepare(model, refine.KnowledgeAugmentation(n=1), seed=5)
    trained(model, session, torch.randn(8, 3, 4, 4))
    return base, session.update()
