"""Tracing with other threads about.

While torch.fx traces, it changes what *every* module of the process does when it is called or asked
for a parameter: two tracers disturb each other, and whoever runs a model meanwhile ends up in a
trace of another one.
"""

from __future__ import annotations

import threading
from typing import Any

from torch import fx, nn

_TRACING = threading.RLock()


class ThreadTracer(fx.Tracer):
    """A tracer that waits for others, and that threads which run models do not notice.

    >>> len(ThreadTracer().trace(nn.ReLU()).nodes)
    3
    """

    _thread = 0

    def trace(self, root: nn.Module | Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """The graph of a module."""
        with _TRACING:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call of a module: recorded, or of another thread and let through."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return self.record_call(m, forward, args, kwargs)

    def record_call(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call of this thread, for subclasses to look at."""
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """An attribute of a module: recorded, or asked for by another thread."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)
