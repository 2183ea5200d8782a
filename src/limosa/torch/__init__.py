"""save, load and open_file for torch tensors, shaped like ``safetensors.torch``; calibration.

Importing this needs torch (the extra ``torch``).
"""

from __future__ import annotations

from limosa.torch.calibrate import Calibration as Calibration
from limosa.torch.calibrate import calibrate as calibrate
from limosa.torch.tensors import load as load
from limosa.torch.tensors import load_file as load_file
from limosa.torch.tensors import open_file as open_file
from limosa.torch.tensors import save as save
from limosa.torch.tensors import save_file as save_file

__all__ = ["Calibration", "calibrate", "load", "load_file", "open_file", "save", "save_file"]
