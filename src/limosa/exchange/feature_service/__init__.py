"""The cloud's side of features: decode what front ends send, compute many tasks, answer.

``service`` has the service itself, ``server`` puts it on a network. Both need the extras ``torch``
and ``hub``.
"""

from __future__ import annotations

from importlib.util import find_spec

from limosa.errors import MissingExtraError

# Asked for here, because every module below would have to before its first line.
if find_spec("torch") is None:
    raise MissingExtraError.for_extra("torch", "a service of features")
