"""Where a sender or a receiver finds its hub, its token and its cache."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from limosa.errors import AuthError, ConfigError

_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of limosa.\n"
_YES = frozenset(["1", "true", "yes", "on"])


@dataclass(frozen=True)
class Places:
    """Folders, hub and token of this user.

    Attributes:
        config: folder of what is kept for good: tokens.
        cache: folder of what can be fetched again.
        hub: address of the hub, without a slash at its end; "" if nobody said.
        token: from the environment; "" if it is to be looked for in the file.
        offline: whether the network is not to be used.
    """

    config: Path
    cache: Path
    hub: str = ""
    token: str = ""
    offline: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Places:
        """What ``LIMOSA_HOME``, ``_CACHE``, ``_HUB``, ``_TOKEN``, ``_OFFLINE`` and the folders of
        XDG say.

        >>> str(Places.from_environment({"HOME": "/h", "LIMOSA_HUB": "http://hub/"}).cache)
        '/h/.cache/limosa'
        """
        found = os.environ if environment is None else environment
        home = Path(found.get("HOME") or Path.home())
        own = found.get("LIMOSA_HOME")
        config = (
            Path(own) if own else Path(found.get("XDG_CONFIG_HOME") or home / ".config") / "limosa"
        )
        usual = (
            Path(own) / "cache"
            if own
            else Path(found.get("XDG_CACHE_HOME") or home / ".cache") / "limosa"
        )
        cache = Path(found["LIMOSA_CACHE"]) if found.get("LIMOSA_CACHE") else usual
        places = cls(
            config, cache, found.get("LIMOSA_HUB", "").rstrip("/"),
            found.get("LIMOSA_TOKEN", "").strip(), found.get("LIMOSA_OFFLINE", "").lower() in _YES,
        )  # fmt: skip
        return places

    def hub_url(self, option: str | None = None) -> str:
        """The hub: as the option says, else the environment, else the last ``limosa login``.

        Raises:
            ConfigError: nobody said, or it is no address.
        """
        url = (option or self.hub or self._read().get("hub", "")).rstrip("/")
        if not url:
            raise ConfigError(
                "no hub", remedy="run limosa login URL, pass --hub URL, or set LIMOSA_HUB"
            )
        return check_url(url)

    def token_for(self, hub: str, option: str | None = None) -> str:
        """The token for a hub; "" if there is none. One of the file is for its own hub only."""
        return option or self.token or self._read().get("tokens", {}).get(hub, "")

    def login(self, hub: str, token: str) -> Path:
        """Remember a token, for its hub alone; only the user can read the file."""
        known = self._read()
        known["hub"] = hub
        known.setdefault("tokens", {})[hub] = token
        return self._write(known)

    def logout(self, hub: str) -> bool:
        """Forget the token of a hub; whether there was one."""
        known = self._read()
        gone = known.get("tokens", {}).pop(hub, None)
        if known.get("hub") == hub:
            known.pop("hub")
        self._write(known)
        return gone is not None

    def make_cache(self) -> Path:
        """The cache's folder, made and marked as one where it is new."""
        self.cache.mkdir(parents=True, exist_ok=True)
        tag = self.cache / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_TAG, encoding="utf-8")
        return self.cache

    @property
    def _file(self) -> Path:
        return self.config / "hubs.json"

    def _read(self) -> dict:  # type: ignore[type-arg]  # whatever JSON holds
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise AuthError(
                "cannot read the tokens", where=str(self._file), found=str(error),
                remedy="remove the file, and run limosa login again",
            ) from None  # fmt: skip
        return found if isinstance(found, dict) else {}

    def _write(self, known: Mapping[str, object]) -> Path:
        self.config.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._file.with_name(f".hubs-{secrets.token_hex(4)}")
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
        os.replace(beside, self._file)
        return self._file


def check_url(url: str) -> str:
    """*url*, if it may be that of a hub.

    Raises:
        ConfigError: it may not.

    >>> check_url("hub.example")
    Traceback (most recent call last):
    limosa.errors.ConfigError: no address of a hub; found 'hub.example', allowed http:// or https://
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            "no address of a hub", found=repr(url[:200]), allowed="http:// or https://"
        )
    return url.rstrip("/")
