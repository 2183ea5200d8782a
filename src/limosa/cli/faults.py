"""Models that are not whole: a warning where they are packed, a refusal where they are pushed."""

from __future__ import annotations

from typing import Final

import click

from limosa.cli.report import printable
from limosa.limits import Limits

_SHOWN: Final = 20


def warn(model: str, limits: Limits) -> None:
    """Say on standard error what is wrong with the files of a model, a line each.

    Raises:
        LimosaError: as for reading it.
    """
    from limosa.files.faults import find_faults

    faults = [] if model == "-" else find_faults(model, limits)
    for fault in faults[:_SHOWN]:
        click.echo(f"limosa: warning: {printable(f'{model}: {fault}')}", err=True)
    if len(faults) > _SHOWN:
        click.echo(f"limosa: warning: … and {len(faults) - _SHOWN} more", err=True)


def refuse(model: str, limits: Limits) -> None:
    """Refuse a model that is not whole: a version can never be mended.

    Raises:
        CorruptError: something is wrong with its files, or it has no tensors.
        LimosaError: as for reading it.
    """
    from limosa.errors import CorruptError
    from limosa.files.faults import find_faults

    faults = find_faults(model, limits)
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CorruptError(
            "the model is not whole",
            where=model,
            found="; ".join(map(str, faults[:_SHOWN])) + more,
            remedy="mend it, or pass --as-is to push it all the same",
        )
