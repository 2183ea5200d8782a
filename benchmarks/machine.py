"""What the measurements were made on, without naming the machine."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

_PACKAGES = ("numpy", "zipnn", "openzl", "pcodec", "blosc2", "zstandard", "bsdiff4")
_INTERESTING_FLAGS = ("avx2", "avx512f", "avx512_vbmi2", "asimd")


def cpu_name() -> str:
    """Return the processor's model, such as ``AMD EPYC``."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def slug() -> str:
    """Return the processor's model and cores as part of a file name."""
    name = f"{cpu_name()} {_cores()} cores"
    name = re.sub(r"\((r|tm)\)|\bcpu\b|@.*ghz", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def describe() -> str:
    """Return one line: processor, vector instructions, cores, system, versions."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    vectors = ", ".join(flag for flag in _INTERESTING_FLAGS if flag in flags) or "no known SIMD"
    family = ", ".join(
        f"{key} {value}" for key in ("cpu family", "model") if (value := _cpuinfo(key))
    )
    versions = ", ".join(f"{name} {_version(name)}" for name in ("limosa", *_PACKAGES))
    return (
        f"{cpu_name()} ({family}; {vectors}), {_cores()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; {versions}"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    match = re.search(rf"^{key}\s*:\s*(.*)$", path.read_text(), re.MULTILINE)
    return match.group(1).strip() if match else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
