"""Send a new version of a model to a receiver that has the old one.

Run it with: python examples/send_an_update.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import limosa
from limosa.demo import models


def main() -> None:
    """Compress version 1, then send version 2 as what differs."""
    old, new = models()[:2]
    with tempfile.TemporaryDirectory() as folder:
        whole, update = Path(folder, "v1.limosa"), Path(folder, "v2.update")
        received = Path(folder, "v2.safetensors")

        limosa.compress(old, whole)
        limosa.diff(old, new, update)
        limosa.apply(old, update, received)  # refuses any other base before it writes

        assert received.read_bytes() == new.read_bytes()
        print(f"the file      {new.stat().st_size:>8,} bytes")
        print(f"compressed    {whole.stat().st_size:>8,}")
        print(f"as an update  {update.stat().st_size:>8,}")


if __name__ == "__main__":
    main()
