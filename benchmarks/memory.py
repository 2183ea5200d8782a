"""Peak memory of the command line, measured in processes of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.data import FLOAT_DTYPES, State, load_model

ALLOWANCE = 64 * 2**20  # bytes beside input and output

# A small process starts the command and asks the system for its peak: started from a large one,
# the command would inherit the large one's peak.
_MEASURE = """
import json, os, subprocess, sys
source, sink, *command = sys.argv[1:]
read = write = None
if source:
    # cat makes pipes of files: a redirected file could be mapped, read twice or rewound.
    read = subprocess.Popen(["cat", source], stdout=subprocess.PIPE)
    write = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=open(sink, "wb"))
child = subprocess.Popen(
    command,
    stdin=read.stdout if read else None,
    stdout=write.stdin if write else subprocess.DEVNULL,
)
_, status, usage = os.wait4(child.pid, 0)
if write:
    write.stdin.close()
    write.wait()
    read.stdout.close()
    read.wait()
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024]))
"""


@dataclass(frozen=True)
class Peak:
    """Peak resident memory of one command, and what the issue allows it, in bytes."""

    command: str
    input_bytes: int
    output_bytes: int
    peak_bytes: int
    allowed_bytes: int

    @property
    def is_reached(self) -> bool:
        return self.peak_bytes <= self.allowed_bytes


def measure_memory(folder: Path) -> list[Peak]:
    """Compress and decompress a model of 180 MB, by file names and through pipes.

    A command with file names may use input + output + 64 MiB; one in a pipe the largest tensor,
    its coded form (as large at worst) and 64 MiB. Raises ``RuntimeError`` when a command fails.
    """
    source = folder / "model.safetensors"
    state = _model()
    save_file(state, source)
    largest = max(array.nbytes for array in state.values())
    piped_allowance = 2 * largest + ALLOWANCE
    coded, restored = folder / "model.limosa", folder / "restored.safetensors"
    peaks = []
    for verb, before, after in (
        ("compress", source, coded),
        ("decompress", coded, restored),
    ):
        peaks.append(_peak(verb, before, after))
        piped = after.with_suffix(".piped")
        peaks.append(_piped_peak(verb, before, piped, piped_allowance))
        if verb == "decompress":
            _check_same(source, restored, piped)
    return peaks


def _model() -> State:
    """Return MiniLM three times over, once in each float format, as one state."""
    return {
        f"{dtype}.{name}": np.ascontiguousarray(array)
        for dtype in FLOAT_DTYPES
        for name, array in load_model("minilm", dtype).items()
    }


def _peak(verb: str, before: Path, after: Path) -> Peak:
    peak = _run(None, None, [*_limosa(), verb, str(before), "-o", str(after)])
    sizes = before.stat().st_size, after.stat().st_size
    return Peak(f"limosa {verb} IN -o OUT", *sizes, peak, sum(sizes) + ALLOWANCE)


def _piped_peak(verb: str, before: Path, after: Path, allowed: int) -> Peak:
    peak = _run(before, after, [*_limosa(), verb, "-", "-o", "-"])
    sizes = before.stat().st_size, after.stat().st_size
    return Peak(f"limosa {verb} - -o - (a pipe)", *sizes, peak, allowed)


def _limosa() -> list[str]:
    beside = Path(sys.executable).with_name("limosa")
    command = str(beside) if beside.exists() else shutil.which("limosa")
    if command is None:
        raise RuntimeError("the command 'limosa' is not installed; run: pip install .")
    return [command]


def _run(source: Path | None, sink: Path | None, command: list[str]) -> int:
    """Return the peak of ``command``, between pipes when files are given, in bytes."""
    files = [str(source or ""), str(sink or "")]
    result = subprocess.run(
        [sys.executable, "-S", "-c", _MEASURE, *files, *command],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    code, peak = json.loads(result.stdout)
    if code != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {code}: {result.stderr.strip()}")
    return int(peak)


def _check_same(source: Path, *others: Path) -> None:
    expected = source.read_bytes()
    for other in others:
        if other.read_bytes() != expected:
            raise RuntimeError(f"{other.name} differs from {source.name}")
