"""A progress bar for calibration, on standard error, where somebody sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int | None, str], None]


def _console() -> Console | None:
    """Where a bar is drawn: a terminal or a notebook; None where nobody would see it."""
    from rich.console import Console

    console = Console(stderr=True)
    # Not console.is_terminal, which FORCE_COLOR makes true of a log file.
    is_seen = console.is_jupyter or (sys.stderr is not None and sys.stderr.isatty())
    return console if is_seen else None


@contextmanager
def reporting(progress: Progress | bool | None) -> Iterator[Progress]:
    """What to call with (done, total or None, what): the caller's own, a bar, or nothing."""
    if callable(progress):
        yield progress
        return
    console = _console() if progress else None
    if console is None:
        yield lambda done, total, what: None
        return
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("calibrate: {task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, rich_progress.TaskID] = {}

        def report(done: int, total: int | None, what: str) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield report
