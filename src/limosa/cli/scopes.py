"""What a person writes of scopes, checked before a hub is asked."""

from __future__ import annotations

from collections.abc import Iterable

import click


def check_scopes(texts: Iterable[str]) -> None:
    """Refuse what is no ``ACTION:PATTERN``.

    Raises:
        click.BadParameter: one is none.

    >>> check_scopes(["push:team/*", "admin:*"])
    """
    from limosa.errors import ConfigError
    from limosa.hub.trust import ACTIONS, Scope

    for text in texts:
        try:
            Scope.parse(text)
        except ConfigError:
            raise click.BadParameter(
                f"{text!r} is no ACTION:PATTERN. ACTION is {', '.join(ACTIONS[:-1])} or "
                f"{ACTIONS[-1]}; PATTERN is of repositories, in small letters: *, team/* or "
                "team/detector."
            ) from None
