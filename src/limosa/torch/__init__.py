"""save, load and open_file for torch tensors, shaped like ``safetensors.torch``.

Importing this needs torch (the extra ``torch``).
"""

from __future__ import annotations

from limosa.torch.tensors import load as load
from limosa.torch.tensors import load_file as load_file
from limosa.torch.tensors import open_file as open_file
from limosa.torch.tensors import save as save
from limosa.torch.tensors import save_file as save_file

__all__ = ["load", "load_file", "open_file", "save", "save_file"]
