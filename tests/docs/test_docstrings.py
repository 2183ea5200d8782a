"""Every example in a docstring runs, and every public function has a docstring."""

import doctest
import importlib
import pkgutil

import pytest

import limosa

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(limosa.__path__, "limosa.")
    # Alembic runs those under migrations, each with a connection at hand; no import does.
    if module.name != "limosa._core" and ".migrations." not in module.name
)


@pytest.mark.parametrize("name", ["limosa", *MODULES])
def test_examples_in_docstrings(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path_factory.mktemp("doctest"))
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("name", sorted(limosa.__all__))
def test_public_names_are_documented(name: str):
    assert (getattr(limosa, name).__doc__ or "").strip()
