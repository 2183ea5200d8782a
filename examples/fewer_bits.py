"""One file with layers of quality: a receiver on a poor link starts with the first one.

Run it with: python examples/fewer_bits.py
"""

import tempfile
from pathlib import Path

import numpy as np

import limosa
from limosa.demo import models

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.limosa"
    qualities = [limosa.Target(bits=2.5), limosa.Target(bits=5), limosa.Lossless()]
    layers = limosa.compress_layers(models()[0], path, qualities)

    arrived = b""
    with path.open("rb") as link:
        for number, layer in enumerate(layers, 1):
            arrived += link.read(layer.bytes_out)
            model = limosa.load(arrived, layers=number, verify=True)
            largest = max(float(np.abs(array).max()) for array in model.values() if array.size)
            print(
                f"layer {number}: {len(arrived):,} bytes so far, {layer.snr:.1f} dB, "
                f"largest error {layer.max_error:.2g} of {largest:.3g}"
            )
