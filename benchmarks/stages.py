"""Where the time of encoding and decoding goes: core, digests, and all that is around them.

``python -m benchmarks.stages`` writes ``docs/results/codec-stages-MACHINE.md``. One thread; the
best of several rounds, in MB (10**6 bytes) of raw tensors a second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import limosa
from benchmarks import machine
from benchmarks.data import load_model
from limosa import _core
from limosa.codec.quantize import row_units
from limosa.tensors import DTYPES, Tensor, TensorSpec, tensor_digest

CODES = {name: code for code, name in enumerate(DTYPES)}
WORKS = [(model, dtype) for model in ("minilm", "lite0") for dtype in ("F32", "BF16", "F16")]


def main() -> None:
    """Measure every model and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    rows = [_row(model, dtype, options.rounds) for model, dtype in WORKS]
    page = options.out / f"codec-stages-{machine.slug()}.md"
    page.write_text(_page(rows), encoding="utf-8")
    print(page.read_text(encoding="utf-8"))


def _row(model: str, dtype: str, rounds: int) -> str:
    state = load_model(model, dtype)
    tensors = [Tensor.from_numpy(np.ascontiguousarray(array)) for array in state.values()]
    datas = [tensor.data for tensor in tensors]
    codes = [CODES[tensor.dtype] for tensor in tensors]
    none = [None] * len(datas)
    out = _core.OutputBuffer()
    columns = [row_units(TensorSpec("", tensor.dtype, tensor.shape)) for tensor in tensors]
    lengths = _core.encode_tensors(datas, none, codes, columns=columns, out=out)
    frames = out.take()
    outs = [np.empty_like(data) for data in datas]
    whole = limosa.save(state, threads=1)
    jobs: list[Callable[[], object]] = [
        lambda: _core.encode_tensors(datas, none, codes, columns=columns, out=_core.OutputBuffer()),
        lambda: [tensor_digest(t.dtype, t.shape, t.data) for t in tensors],
        lambda: limosa.save(state, threads=1),
        lambda: _core.decode_tensors(frames, lengths, outs, none, codes, none),
        lambda: limosa.load(whole, threads=1),
        lambda: limosa.load(whole, threads=1, verify=True),
    ]
    size = sum(data.nbytes for data in datas) / 1e6
    speeds = [f"{size / _best(job, rounds):,.0f}" for job in jobs]
    return " | ".join([f"| {model} {dtype}", f"{len(datas)}", *speeds]) + " |"


def _best(job: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return min(times)


def _page(rows: list[str]) -> str:
    return f"""# Where the time of the codec goes

{machine.describe()}; one thread, MB/s of raw tensors, best of several rounds; written by
`python -m benchmarks.stages`.

| model | tensors | core encode | digests | `save` | core decode | `load` | and verified |
|---|--:|--:|--:|--:|--:|--:|--:|
{chr(10).join(rows)}

*Core* is C++ alone: kernels, choices, checksums, memory for the result. `save` adds a BLAKE3 digest
of every tensor and the container; `load` adds fresh memory for the arrays and reading the
layout, which weighs most where a small model has hundreds of tensors.
"""


if __name__ == "__main__":
    main()
