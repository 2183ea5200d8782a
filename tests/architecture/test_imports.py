"""`import limosa` is light, and a clean interpreter is the only honest witness."""

import subprocess
import sys

HEAVY = ("torch", "onnx", "onnxruntime", "safetensors", "fastapi", "click", "rich", "ml_dtypes")


def modules_after(code: str) -> set[str]:
    """Top-level names in sys.modules after `code` has run in a new interpreter."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


def test_import_limosa_needs_nothing_heavy():
    loaded = modules_after("import limosa")
    assert "limosa" in loaded
    assert not loaded & set(HEAVY)


def test_save_and_load_need_nothing_heavy():
    code = "import limosa, numpy; limosa.load(limosa.save({'a': numpy.zeros(3, 'f4')}))"
    assert not modules_after(code) & set(HEAVY)


def test_the_command_line_starts_without_frameworks():
    loaded = modules_after("import limosa.cli.main")
    assert not loaded & {"torch", "onnx", "onnxruntime", "safetensors", "fastapi"}
