"""How the process ends (docs/guide/cli.md)."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
BAD_FILE: Final = 1
USAGE: Final = 2
BASE_MISMATCH: Final = 3
PARTIAL: Final = 4
CONFLICT: Final = 5
AUTH: Final = 6
NOT_FOUND: Final = 7
NETWORK: Final = 8
INTERRUPTED: Final = 130
TERMINATED: Final = 143
