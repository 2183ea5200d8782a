"""Where the pages are.

===================================  ==============================================================
``GET /``                            repositories
``GET /r/OWNER/NAME``                a repository
``GET /r/OWNER/NAME/REF``            a version, a tag or ``@DIGEST``; its query: :func:`asked`
``GET /saved /devices /tokens``      what they say
``GET /login``                       the form; ``next`` is where to go then
``POST /login``                      ``csrf``, ``token``, ``next`` (a form also sends ``username``)
``POST /logout``                     ``csrf``
``POST /tokens``                     ``csrf``, ``name``, ``scopes`` (one a line), ``days`` or ""
``POST /tokens/ID/revoke``           ``csrf``
``GET /static/NAME``                 :func:`~limosa.hub.pages.render.static_files`, for ever: the
                                     query changes with the bytes
===================================  ==============================================================

``next`` comes from the address: see :func:`onward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from limosa.hub.pages.views import Asked

HOME = "/"
SAVED = "/saved"
DEVICES = "/devices"
TOKENS = "/tokens"
LOGIN = "/login"
LOGOUT = "/logout"
STATIC = "/static/"


def repository(name: str) -> str:
    """The page of a repository.

    >>> repository("team/detector")
    '/r/team/detector'
    """
    return "/r/" + quote(name)


def version(name: str, reference: str) -> str:
    """The page of a version, a tag, or ``@DIGEST``.

    >>> version("team/detector", "v3")
    '/r/team/detector/v3'
    """
    return f"{repository(name)}/{quote(reference, safe='@')}"


def tensors(address: str, asked: Asked, **changes: object) -> str:
    """The page of a version with another order, page or filter of its tensors.

    >>> tensors("/r/a/b/v1", Asked(text="conv", page=3), sort="std", page=1)
    '/r/a/b/v1?q=conv&sort=std'
    """
    values = {**vars(asked), **changes}
    query = [
        ("q", values["text"]),
        ("sort", values["sort"]),
        ("order", "desc" if values["descending"] else ""),
        ("page", "" if values["page"] == 1 else str(values["page"])),
        ("tensor", values["tensor"]),
    ]
    text = urlencode([(key, value) for key, value in query if value], errors="replace")
    return f"{address}?{text}" if text else address


def revoke(token: int) -> str:
    """Where the form goes that revokes a token."""
    return f"{TOKENS}/{token}/revoke"


def asked(query: Mapping[str, str]) -> Asked:
    """What the query of a version's address asks; what makes no sense is ignored.

    >>> asked({"q": "conv", "order": "desc", "page": "x"})
    Asked(text='conv', sort='', descending=True, page=1, tensor='')
    """
    page = query.get("page", "")
    return Asked(
        text=query.get("q", ""),
        sort=query.get("sort", ""),
        descending=query.get("order") == "desc",
        page=int(page) if page.isascii() and page.isdigit() and len(page) < 10 else 1,
        tensor=query.get("tensor", ""),
    )


def onward(address: str) -> str:
    """*address* if it is a path of this hub, and the first page otherwise.

    Browsers take ``//host`` and ``/\\host`` for other hosts, and drop tabs and line ends.

    >>> onward("/r/team/detector?q=a"), onward("//elsewhere.example"), onward("https://e.example")
    ('/r/team/detector?q=a', '/', '/')
    """
    plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if plain and address.startswith("/") and address[1:2] != "/" else HOME
