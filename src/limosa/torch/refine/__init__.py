"""Updates learned to be small: compact refinement, and reconstitution that is exact.

Source: Bo Chen, Ali Bakhshi, Gustavo Batista, Brian Ng and Tat-Jun Chin, "Update Compression for
Deep Neural Networks on the Edge", 2022.

>>> import torch
>>> from torch import nn
>>> model = nn.Linear(16, 16)
>>> held = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # by the edge
>>> session = prepare(model, KnowledgeAugmentation(n=1))
>>> optimizer = torch.optim.Adam(session.parameters(), lr=0.01)
>>> for _ in range(3):
...     optimizer.zero_grad()
...     loss = model(torch.ones(4, 16)).square().mean() + session.rate_loss()
...     loss.backward()
...     optimizer.step()
>>> update = session.update()
>>> torch.equal(reconstitute(held, update)["weight"], model.weight)
True
"""

from __future__ import annotations

from limosa.torch.refine.choose import Choice as Choice
from limosa.torch.refine.choose import choose as choose
from limosa.torch.refine.methods import Core as Core
from limosa.torch.refine.methods import Difference as Difference
from limosa.torch.refine.methods import FilterPruning as FilterPruning
from limosa.torch.refine.methods import KnowledgeAugmentation as KnowledgeAugmentation
from limosa.torch.refine.methods import LowRankApproximation as LowRankApproximation
from limosa.torch.refine.methods import LowRankUpdate as LowRankUpdate
from limosa.torch.refine.methods import MappingLearning as MappingLearning
from limosa.torch.refine.methods import Method as Method
from limosa.torch.refine.methods import RandomMask as RandomMask
from limosa.torch.refine.prepare import count as count
from limosa.torch.refine.prepare import prepare as prepare
from limosa.torch.refine.prepare import reconstitute as reconstitute
from limosa.torch.refine.rate import Rate as Rate
from limosa.torch.refine.session import Session as Session

__all__ = [
    "Choice",
    "Core",
    "Difference",
    "FilterPruning",
    "KnowledgeAugmentation",
    "LowRankApproximation",
    "LowRankUpdate",
    "MappingLearning",
    "Method",
    "RandomMask",
    "Rate",
    "Session",
    "choose",
    "count",
    "prepare",
    "reconstitute",
]
