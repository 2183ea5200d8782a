"""Follow a tag: a device that updates itself when the tag moves."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Sequence

from limosa.errors import AuthError, LimosaError
from limosa.exchange.install import PullResult

log = logging.getLogger("limosa.follow")
_LONGEST_PAUSE_S = 600.0


class Follower:
    """Pulls again and again.

    Args:
        pull: does it once; one that finds nothing new makes no hop.
        interval: seconds between two looks.
        command: run after each change, with the path as its last argument.
        updated: is told of each change.
        failed: is told of each failure, and goes on.
    """

    def __init__(
        self,
        pull: Callable[[], PullResult],
        *,
        interval: float = 10.0,
        command: Sequence[str] = (),
        updated: Callable[[PullResult], None] = lambda result: None,
        failed: Callable[[LimosaError], None] = lambda error: None,
    ) -> None:
        self._pull, self._interval, self._command = pull, interval, tuple(command)
        self._updated, self._failed = updated, failed
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End after the pull that is under way; from any thread or signal handler."""
        self._stopped.set()

    def run(self, times: int | None = None) -> int:
        """Follow until told to stop; returns how often the model changed.

        Args:
            times: look so often at most; None: for ever.

        Raises:
            AuthError: the token is no good any more: waiting will not help.
        """
        changes = failures = looks = 0
        while not self._stopped.is_set() and (times is None or looks < times):
            looks += 1
            try:
                result = self._pull()
            except AuthError:
                raise
            except LimosaError as error:
                # Hubs restart, networks go away: the old model works on.
                failures += 1
                self._failed(error)
            except OSError as error:
                # A full disk may have room later.
                failures += 1
                self._failed(LimosaError("cannot read or write", found=str(error)))
            else:
                failures = 0
                if result.hops or result.copied:
                    changes += 1
                    self._updated(result)
                    self._run_command(result)
            pause = self._interval * 2 ** min(failures, 10)
            if times is None or looks < times:
                self._stopped.wait(min(pause, max(self._interval, _LONGEST_PAUSE_S)))
        return changes

    def _run_command(self, result: PullResult) -> None:
        if not self._command:
            return
        try:
            ended = subprocess.run([*self._command, result.path], check=False)
        except OSError as error:
            log.warning("the command cannot be run: %s", error)
            return
        if ended.returncode:
            log.warning("the command ended with status %s", ended.returncode)
