"""What every test shares: where the repository is, and runs that repeat."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["servers"]

# The test machine has few cores, and a thread pool per library would make timings and digests of
# trained weights depend on their number. Set before torch or numpy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("default", deadline=None)
# In CI the same examples each time: a red run is then the change's doing.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT
