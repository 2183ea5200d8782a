"""Code tensors with NNCodec: a program for the interpreter that has it.

    NNC/bin/python -I nncodec_worker.py IN.npz OUT_FOLDER --qp -26 -20 [--rounds 2]

Writes the decoded tensors to ``OUT_FOLDER/<qp>.npz`` and prints, last, a line of JSON: for each qp
the bytes and the best seconds of encoding and decoding. ``-I`` keeps this folder off the path,
where ``nncodec.py`` is another module.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import MagicMock

os.environ["OMP_NUM_THREADS"] = "1"
# NNCodec imports these for data sets and model files; coding a dict of arrays calls none of them.
for _name in ("torchvision", "cv2", "pandas", "sklearn", "sklearn.metrics", "tqdm", "h5py"):
    sys.modules[_name] = MagicMock()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from nncodec import nn  # noqa: E402

SETTINGS = {"use_dq": True, "nonweight_qp": -75, "verbose": False}


def main() -> None:
    """Code the tensors at every qp."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tensors", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--qp", type=int, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.tensors) as archive:
        state = {name: np.ascontiguousarray(archive[name]) for name in archive.files}
    found = {}
    for qp in options.qp:
        found[qp] = _measure(state, qp, options.rounds, options.folder / f"{qp}.npz")
        print(f"NNCodec, qp {qp}: {found[qp]}", file=sys.stderr, flush=True)
    print(json.dumps(found))


def _measure(state: dict, qp: int, rounds: int, target: Path) -> dict[str, float]:
    encode, decode = [], []
    with tempfile.TemporaryDirectory() as folder:  # NNCodec writes its stream to a file as well
        for _ in range(rounds):
            start = time.perf_counter()
            stream = nn.encode(state, {**SETTINGS, "qp": qp, "results": folder})
            encode.append(time.perf_counter() - start)
            start = time.perf_counter()
            decoded = nn.decode(bytearray(stream))
            decode.append(time.perf_counter() - start)
    np.savez(target, **decoded)
    return {"bytes": len(stream), "encode_s": min(encode), "decode_s": min(decode)}


if __name__ == "__main__":
    main()
