"""Keep the weights of an inference worker in step with a trainer's, a few bytes a step.

Both sides hold the last version as an open base, so its digest is computed once. The worker knows
after each step that it has exactly what the trainer has.

Run it with: python examples/sync_weights.py
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

import limosa

Weights = dict[str, np.ndarray]


def train_a_step(weights: Weights, rng: np.random.Generator) -> Weights:
    """Stand in for a trainer in BF16: one weight in a hundred moves to a neighbouring number."""
    moved = {}
    for name, array in weights.items():
        bits = array.view(np.uint16).copy()
        bits[rng.random(bits.shape) < 0.01] += 1
        moved[name] = bits.view(ml_dtypes.bfloat16)
    return moved


def main() -> None:
    """Send the whole model once, then three updates."""
    rng = np.random.default_rng(0)
    shapes = {"up": (1024, 512), "down": (512, 1024)}
    trainer = {
        name: rng.normal(0, 0.02, shape).astype(ml_dtypes.bfloat16)
        for name, shape in shapes.items()
    }
    message = limosa.save(trainer)
    worker = limosa.load(message)
    print(f"whole model: {len(message):,} bytes")

    for step in range(1, 4):
        held, trainer = limosa.open_base(trainer), train_a_step(trainer, rng)
        message = limosa.save(trainer, base=held)
        worker = limosa.load(message, base=worker, verify=True)
        print(f"step {step}: {len(message):,} bytes")

    for name, array in trainer.items():
        assert worker[name].tobytes() == array.tobytes(), name


if __name__ == "__main__":
    main()
