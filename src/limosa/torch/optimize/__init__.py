"""Make a model smaller before it is sent: techniques that need nothing of the receiver.

>>> import torch
>>> from torch import nn
>>> from limosa.torch import optimize
>>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
>>> done = optimize.MagnitudePruning(0.9).apply(model, optimize.Context(torch.zeros(1, 64)))
>>> optimize.measure(done.model).nonzeros < 0.2 * optimize.measure(model).nonzeros
True
"""

from limosa.torch.optimize.calibrated import CalibratedRounding as CalibratedRounding
from limosa.torch.optimize.distill import Distillation as Distillation
from limosa.torch.optimize.distill import fit as fit
from limosa.torch.optimize.encoding import Encoding as Encoding
from limosa.torch.optimize.encoding import near_lossless as near_lossless
from limosa.torch.optimize.folding import BatchNormFolding as BatchNormFolding
from limosa.torch.optimize.guard import Context as Context
from limosa.torch.optimize.heads import HeadPruning as HeadPruning
from limosa.torch.optimize.kernels import IntegerKernels as IntegerKernels
from limosa.torch.optimize.kernels import flat_state as flat_state
from limosa.torch.optimize.kernels import set_flat_state as set_flat_state
from limosa.torch.optimize.low_rank import LowRank as LowRank
from limosa.torch.optimize.measure import Measures as Measures
from limosa.torch.optimize.measure import measure as measure
from limosa.torch.optimize.pruning import GradualPruning as GradualPruning
from limosa.torch.optimize.pruning import MagnitudePruning as MagnitudePruning
from limosa.torch.optimize.pruning import SaliencyPruning as SaliencyPruning
from limosa.torch.optimize.rounding import CodebookRounding as CodebookRounding
from limosa.torch.optimize.rounding import LinearRounding as LinearRounding
from limosa.torch.optimize.search import Found as Found
from limosa.torch.optimize.search import Search as Search
from limosa.torch.optimize.structured import StructuredPruning as StructuredPruning
from limosa.torch.optimize.student import Student as Student
from limosa.torch.optimize.technique import Change as Change
from limosa.torch.optimize.technique import Optimized as Optimized
from limosa.torch.optimize.technique import Refusal as Refusal
from limosa.torch.optimize.technique import Technique as Technique
from limosa.torch.optimize.trained_search import TrainedSearch as TrainedSearch

__all__ = [
    "BatchNormFolding",
    "CalibratedRounding",
    "Change",
    "CodebookRounding",
    "Context",
    "Distillation",
    "Encoding",
    "Found",
    "GradualPruning",
    "HeadPruning",
    "IntegerKernels",
    "LinearRounding",
    "LowRank",
    "MagnitudePruning",
    "Measures",
    "Optimized",
    "Refusal",
    "SaliencyPruning",
    "Search",
    "StructuredPruning",
    "Student",
    "Technique",
    "TrainedSearch",
    "fit",
    "flat_state",
    "measure",
    "near_lossless",
    "set_flat_state",
]
