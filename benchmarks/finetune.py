"""A fine-tune made on the spot: EfficientNet-Lite0 over crops of photographs.

The pretrained network learns to tell which photograph a crop was cut from, with crops flipped,
dimmed and noisy: an ordinary supervised fine-tune, with real gradients for every weight. AdamW at
2e-5 keeps master weights in F32. Version 1 is saved after 60 steps, version 2 after 120.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.data import State, cast, is_float, load_model, package_file

if TYPE_CHECKING:
    import torch

# Part of the name of the cache folder: change it with anything that changes the weights.
RECIPE = "lite0-photographs-1"
STEPS_BETWEEN_VERSIONS = 60
LEARNING_RATE = 2e-5
BATCH = 16
CROP = 96  # pixels
SEED = 20_240_601
# One thread: the order of float additions, hence the weights, does not depend on the cores, and
# the layers are too small to gain from two.
THREADS = 1
# Natural images that lie inside scikit-image's wheel (the others would be downloaded).
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")
CHANGED_SHARE = 0.01


def default_cache() -> Path:
    """Return the folder for fine-tunes: ``limosa-bench`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "limosa-bench"


def load_versions(cache: Path, dtype: str = "F32") -> tuple[State, State]:
    """Return versions 1 and 2 as ``dtype``, training them first when ``cache`` has none.

    Training needs torch, scikit-image and the packages of requirements-weights.txt, and takes one
    to three minutes on two cores.
    """
    folder = cache / RECIPE
    if not (folder / "recipe.json").exists():
        _train_into(folder)
    first, second = (load_file(folder / f"v{number}.safetensors") for number in (1, 2))
    return cast(first, dtype), cast(second, dtype)


def load_kept_step(cache: Path) -> tuple[State, State]:
    """Return version 1 as BF16, and the same with exactly 1 % of its weights taken from version 2.

    Those 1 % are the weights whose real difference is largest beside the weight itself.
    """
    base, full = load_versions(cache, "BF16")
    return base, _keep_largest(base, full)


def load_small_step(cache: Path) -> tuple[State, State]:
    """Return version 1 as BF16, and the same after a step so small that 1 % of its weights change.

    The F32 master weights move along the real difference of the versions, scaled down until
    rounding lets exactly 1 % of the BF16 weights move (by one ULP, most of them), as it happens
    in reinforcement learning with its tiny learning rates.
    """
    masters, ends = load_versions(cache, "F32")
    base = cast(masters, "BF16")
    wanted = _wanted_changes(base)
    low, high = 0.0, 1.0  # scales with too few changes, and with enough
    while True:
        scale = (low + high) / 2
        moved = _moved(masters, ends, scale)
        changes = sum(int(_changed(base[n], moved[n]).sum()) for n in _trained(base))
        low, high = (low, scale) if changes >= wanted else (scale, high)
        if wanted <= changes <= wanted * 1.02:
            return base, _keep_largest(base, moved)


def _trained(state: State) -> list[str]:
    return [n for n, a in state.items() if is_float(a) and not n.endswith(NOT_TRAINED)]


def _wanted_changes(state: State) -> int:
    return round(CHANGED_SHARE * sum(state[name].size for name in _trained(state)))


def _changed(base: np.ndarray, new: np.ndarray) -> np.ndarray:
    return base.view(np.uint16) != new.view(np.uint16)


def _moved(masters: State, ends: State, scale: float) -> State:
    names = set(_trained(masters))
    factor = np.float32(scale)
    moved = {n: a + factor * (ends[n] - a) if n in names else a for n, a in masters.items()}
    return cast(moved, "BF16")


def _keep_largest(base: State, new: State) -> State:
    """Return ``base`` with the 1 % relatively largest changes of ``new``."""
    scores = {name: _relative_change(base[name], new[name]) for name in _trained(base)}
    flat = np.concatenate([score.ravel() for score in scores.values()])
    wanted = _wanted_changes(base)
    chosen = np.zeros(flat.size, bool)
    # A stable sort, so that equal scores are taken in the order of the file.
    chosen[np.argsort(-flat, kind="stable")[:wanted]] = True
    if not (flat[chosen] > 0).all():
        raise ValueError(f"fewer than {wanted} weights differ between the versions")
    result = dict(base)
    start = 0
    for name, score in scores.items():
        mask = chosen[start : start + score.size].reshape(score.shape)
        result[name] = np.where(mask, new[name], base[name])
        start += score.size
    return result


def _relative_change(base: np.ndarray, new: np.ndarray) -> np.ndarray:
    before, after = base.astype(np.float64), new.astype(np.float64)
    smallest = float(np.finfo(np.float32).tiny)
    relative = np.abs(after - before) / np.maximum(np.abs(before), smallest)
    return np.where(_changed(base, new), relative, 0.0)


def _train_into(folder: Path) -> None:
    started = time.perf_counter()
    print(f"making the fine-tune in {folder} (once, a minute or two)", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    import torch

    for number, state in enumerate(_train(), start=1):
        save_file(state, folder / f"v{number}.safetensors")
    recipe = {
        "recipe": RECIPE, "torch": torch.__version__, "seed": SEED, "batch": BATCH, "crop": CROP,
        "learning_rate": LEARNING_RATE, "steps_between_versions": STEPS_BETWEEN_VERSIONS,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    # Written last: its presence says that the weights are complete.
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


def _train() -> Iterator[State]:
    """Yield the state after every ``STEPS_BETWEEN_VERSIONS`` steps, twice."""
    import torch

    with _fixed_torch(torch):
        network = _network()
        network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
        crops = _Crops(np.random.default_rng(SEED))
        for _ in range(2):
            for _ in range(STEPS_BETWEEN_VERSIONS):
                _step(network, optimizer, crops)
            yield {name: t.detach().numpy().copy() for name, t in network.state_dict().items()}


def _step(network: Any, optimizer: torch.optim.Optimizer, crops: _Crops) -> None:
    import torch

    images, labels = (torch.from_numpy(batch) for batch in crops.batch())
    loss = torch.nn.functional.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _network() -> Any:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = {name: torch.from_numpy(a.copy()) for name, a in load_model("lite0").items()}
    network.load_state_dict(weights)
    return network


@contextmanager
def _fixed_torch(torch: Any) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)  # dropout and drop-connect
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Crops:
    """Random crops of the photographs: images (BATCH, 3, CROP, CROP) and labels (BATCH,)."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._images = [_photograph(name) for name in PHOTOGRAPHS]

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        labels = self._random.integers(len(self._images), size=BATCH)
        return np.stack([self._crop(self._images[label]) for label in labels]), labels

    def _crop(self, image: np.ndarray) -> np.ndarray:
        top, left = (self._random.integers(size - CROP + 1) for size in image.shape[1:])
        crop = image[:, top : top + CROP, left : left + CROP]
        if self._random.random() < 0.5:
            crop = crop[:, :, ::-1]
        contrast, light = self._random.uniform(0.7, 1.3), self._random.uniform(-0.2, 0.2)
        noise = self._random.normal(0.0, 0.05, crop.shape)
        return (crop * contrast + light + noise).astype(np.float32)


def _photograph(name: str) -> np.ndarray:
    """Return an image as (3, height, width) float32 in [-1, 1], the network's own scale."""
    from skimage.io import imread

    pixels = imread(package_file("skimage", "data", name)).astype(np.float32)
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=-1)
    return np.ascontiguousarray(((pixels[..., :3] - 127.0) / 128.0).transpose(2, 0, 1))
