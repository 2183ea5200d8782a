"""Rules of the house that an import graph cannot see."""

import ast
import re
from pathlib import Path

import pytest

INCLUDE = re.compile(r'#include\s+[<"]([^>"]+)[>"]')


def included(path: Path) -> list[str]:
    return INCLUDE.findall(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_only_the_binding_sees_python(repository: Path):
    kernels = [*(repository / "core/src").glob("*"), *(repository / "core/include").rglob("*.h*")]
    assert kernels
    for path in filter(Path.is_file, kernels):
        found = [
            name for name in included(path) if name.startswith(("nanobind", "Python", "numpy"))
        ]
        assert not found, f"{path.name} includes {found}"


@pytest.mark.parametrize(("room", "neighbour"), [("encode", "decode"), ("decode", "encode")])
def test_core_decoders_and_encoders_do_not_include_each_other(
    repository: Path, room: str, neighbour: str
):
    for path in (repository / "core").rglob(f"{room}_*.*pp"):
        found = [name for name in included(path) if Path(name).name.startswith(neighbour)]
        assert not found, f"{path.name} includes {found}"


def test_the_reference_decoder_never_imports_limosa(repository: Path):
    decoder = repository / "reference/limosa_reference.py"
    assert not [name for name in imported(decoder) if name.split(".")[0] == "limosa"]


def test_no_fused_or_fast_arithmetic_in_the_build(repository: Path):
    build = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    flags = re.findall(r"-m?f[\w-]+(?:=\w+)?", build.split("add_compile_options", 1)[1])
    assert "-ffp-contract=off" in flags
    assert not {"-ffast-math", "-mfma", "-funsafe-math-optimizations"} & set(flags)
