"""save, load and open_file for torch tensors, shaped like ``safetensors.torch``.

Besides, :func:`calibrate` rounds a model; :func:`split`, :func:`tap` and :func:`cuts` cut one,
and :func:`tune_feature` finds how coarse what crosses the cut may be.

Importing this needs torch (the extra ``torch``).
"""

from __future__ import annotations

from limosa.torch.calibrate import Calibration as Calibration
from limosa.torch.calibrate import calibrate as calibrate
from limosa.torch.cuts import Cut as Cut
from limosa.torch.cuts import Cuts as Cuts
from limosa.torch.cuts import cuts as cuts
from limosa.torch.digest import model_digest as model_digest
from limosa.torch.feature_tuning import FeatureTuning as FeatureTuning
from limosa.torch.feature_tuning import TunedPoint as TunedPoint
from limosa.torch.feature_tuning import tune_feature as tune_feature
from limosa.torch.features import Tap as Tap
from limosa.torch.features import tap as tap
from limosa.torch.split import Head as Head
from limosa.torch.split import Tail as Tail
from limosa.torch.split import split as split
from limosa.torch.tensors import load as load
from limosa.torch.tensors import load_file as load_file
from limosa.torch.tensors import open_file as open_file
from limosa.torch.tensors import save as save
from limosa.torch.tensors import save_file as save_file

__all__ = [
    "Calibration",
    "Cut",
    "Cuts",
    "FeatureTuning",
    "Head",
    "Tail",
    "Tap",
    "TunedPoint",
    "calibrate",
    "cuts",
    "load",
    "load_file",
    "model_digest",
    "open_file",
    "save",
    "save_file",
    "split",
    "tap",
    "tune_feature",
]
