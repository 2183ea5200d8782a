"""NNCodec (ISO/IEC 15938-17) as a rival, run by an interpreter of its own and kept in the cache."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import State, fingerprint

VERSION = "2.1.3"
ENVIRONMENT = "LIMOSA_NNCODEC_PYTHON"
ROUNDS = 2
_VERSION_OF = "import importlib.metadata as m; print(m.version('nncodec'))"


class NotAvailableError(Exception):
    """NNCodec cannot be run, and the cache does not hold what it would give."""


@dataclass
class Coded:
    """What NNCodec makes of a state at ``qp``, with trellis and ``nonweight_qp`` -75.

    Attributes:
        bytes: Length of the whole stream.
        encode_s: Best seconds to encode; likewise ``decode_s``.
        quality: By the name of a task and its recipe, what the decoded state is worth there.
    """

    qp: int
    bytes: int
    encode_s: float
    decode_s: float
    quality: dict[str, Any] = field(default_factory=dict)


class NNCodec:
    """Codes states, each qp once for each model: the results stay in ``cache``."""

    def __init__(self, cache: Path, python: str | None = None, *, fresh: bool = False) -> None:
        """Use the interpreter ``python``, or the one that the environment names, when needed."""
        self._folder = cache / "nncodec"
        self._python = python or os.environ.get(ENVIRONMENT)
        self._fresh = fresh

    def code(self, state: State, qps: tuple[int, ...]) -> list[Coded]:
        """Return the results at each of ``qps``.

        Raises:
            NotAvailableError: they are not in the cache, and there is no interpreter with NNCodec.
        """
        missing = [qp for qp in qps if self._fresh or not self._file(state, qp, "json").exists()]
        if missing:
            self._run(state, missing)
        return [self._read(state, qp) for qp in qps]

    def decoded(self, state: State, qp: int) -> State:
        """Return the state that decoding gives; ``code`` must have been called for it."""
        with np.load(self._file(state, qp, "npz")) as archive:
            return {name: archive[name] for name in archive.files}

    def keep(self, state: State, coded: Coded) -> None:
        """Write the result, with the quality that has been measured, back to the cache."""
        self._file(state, coded.qp, "json").write_text(json.dumps(asdict(coded), indent=1) + "\n")

    def _file(self, state: State, qp: int, suffix: str) -> Path:
        return self._folder / f"{fingerprint(state)}-{VERSION}-qp{qp}.{suffix}"

    def _read(self, state: State, qp: int) -> Coded:
        return Coded(**json.loads(self._file(state, qp, "json").read_text()))

    def _run(self, state: State, qps: list[int]) -> None:
        python = self._checked_python()
        self._folder.mkdir(parents=True, exist_ok=True)
        # NNCodec takes F32 and I32 only.
        floats = {name: a for name, a in state.items() if a.dtype == np.float32}
        worker = Path(__file__).with_name("nncodec_worker.py")
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            tensors = Path(folder) / "in.npz"
            np.savez(tensors, **floats)
            command = [python, "-I", str(worker), str(tensors), folder, "--rounds", str(ROUNDS)]
            command += ["--qp", *map(str, qps)]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
            for qp, result in json.loads(output.splitlines()[-1]).items():
                (Path(folder) / f"{qp}.npz").rename(self._file(state, int(qp), "npz"))
                self.keep(state, Coded(int(qp), **result))

    def _checked_python(self) -> str:
        if not self._python:
            raise NotAvailableError(f"no --nncodec-python and no {ENVIRONMENT}")
        try:
            found = subprocess.run(
                [self._python, "-c", _VERSION_OF], capture_output=True, check=True, text=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotAvailableError(f"{self._python} has no NNCodec: {error}") from error
        if found != VERSION:
            raise NotAvailableError(f"{self._python} has NNCodec {found}, not {VERSION}")
        return self._python
