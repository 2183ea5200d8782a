"""The hub's page: signed in by a cookie, which the interface of programs does not heed."""

from __future__ import annotations

import hashlib
import hmac
from concurrent.futures import TimeoutError as NotYet
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from limosa.errors import AuthError, ConfigError, LimosaError
from limosa.hub.pages import links, render, views
from limosa.hub.problems import status_of
from limosa.hub.reference import check_name
from limosa.hub.server import gather
from limosa.hub.server.context import COOKIE, Hub, HubHere, hub_of, repository_of
from limosa.hub.store.records import Version
from limosa.hub.trust import Caller, check_grant, parse_scopes

router = APIRouter(include_in_schema=False)
_FORM_BYTES = 64 * 2**10
_COOKIE_S = 30 * 86400
# How long a page waits for statistics before it says that they are on their way.
_PATIENCE_S = 3.0
# What lies too far ahead has no date.
_MOST_DAYS = 100_000


def reader_of(request: Request) -> Caller:
    """Who is signed in.

    Raises:
        BusyError: too many requests.
    """
    hub, token = hub_of(request), request.cookies.get(COOKIE, "")
    address = request.client.host if request.client else "unknown"
    request.state.who = f"page {address}"
    hub.rates.take(request.state.who)
    try:
        caller = hub.caller(token)
    except AuthError:
        caller = hub.anonymous()
    request.state.caller = caller.name
    return caller


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form that was sent from one of our pages.

    Raises:
        AuthError: it came from elsewhere.
        ConfigError: it is too long.
    """
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > _FORM_BYTES:
            raise ConfigError("the form is too long", allowed=f"{_FORM_BYTES} bytes")
    fields = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50)
    found = {name: values[0] for name, values in fields.items()}
    if not hmac.compare_digest(found.get("csrf", "").encode(), csrf_of(request).encode()):
        raise AuthError("the form is not from this page", remedy="load the page again")
    return found


def csrf_of(request: Request) -> str:
    """What only a page for this reader holds."""
    token = request.cookies.get(COOKIE, "")
    return hmac.new(token.encode(), b"limosa form", hashlib.sha256).hexdigest() if token else ""


Reader = Annotated[Caller, Depends(reader_of)]
Form = Annotated[dict[str, str], Depends(form_of)]


def page_of(request: Request, caller: Caller, notice: str = "") -> views.Page:
    """What is the same on every page."""
    rules = caller.may("admin", "*")
    user = "" if caller.kind == "anonymous" else caller.name
    return views.Page(user, csrf_of(request), hub_of(request).store.clock(), rules, rules, notice)


@router.get("/")
def home(request: Request, hub: HubHere, caller: Reader) -> Response:
    """The repositories."""
    if caller.kind == "anonymous" and not caller.scopes:
        return RedirectResponse(links.LOGIN, 303)
    return _html(
        render.render_repositories(gather.repositories(hub, caller, page_of(request, caller)))
    )


@router.get("/saved")
def saved(request: Request, hub: HubHere, caller: Reader) -> Response:
    """What was saved."""
    _known(caller)
    return _html(render.render_saved(gather.saved_view(hub, caller, page_of(request, caller))))


@router.get("/r/{owner}/{name}")
def repository(request: Request, hub: HubHere, caller: Reader, owner: str, name: str) -> Response:
    """A repository."""
    found = _may_read(caller, owner, name)
    return _html(render.render_repository(gather.repository(hub, found, page_of(request, caller))))


@router.get("/r/{owner}/{name}/{reference}")
async def version(
    request: Request,
    hub: HubHere,
    caller: Reader,
    owner: str,
    name: str,
    reference: str,
) -> Response:
    """A version, with its tensors and how they are distributed."""
    return await hub.slowly(request, _version, request, hub, caller, owner, name, reference)


def _version(
    request: Request, hub: Hub, caller: Caller, owner: str, name: str, reference: str
) -> Response:
    home = _may_read(caller, owner, name)
    if not reference.startswith("@"):
        check_name(reference)
    found = hub.store.catalog.resolve(home, reference)
    base = _compared_with(hub, home, found)
    statistics = _statistics(hub, home, found, base)
    asked = links.asked(request.query_params)
    view = gather.version(
        hub, home, found, page_of(request, caller), asked, statistics, base.name if base else ""
    )
    return _html(render.render_version(view))


def _compared_with(hub: Hub, repository: str, found: Version) -> Version | None:
    """The first parent that is here, what it is a copy of, or the version before."""
    versions = hub.store.catalog.versions(repository)
    named = {one.name: one for one in versions} | {one.node.digest: one for one in versions}
    wished = [*found.parents, *([found.node.copy_of] if found.node.copy_of else [])]
    for name in wished:
        if name in named:
            return named[name]
    before = [one for one in versions if one.created < found.created]
    return before[-1] if before and found.name else None


def _statistics(
    hub: Hub, repository: str, found: Version, base: Version | None
) -> list[dict[str, Any]] | None:
    """Of a version, if they are known or soon found."""
    key = (found.node.digest, base.node.digest if base else "")
    if key in hub.statistics:
        return hub.statistics[key]

    def work() -> None:
        made = hub.workshop.statistics(repository, key[0], key[1] or None)
        hub.keep_statistics(key, made)

    try:
        hub.start(f"statistics {repository} {key}", work).result(_PATIENCE_S)
    except NotYet:
        return None
    return hub.statistics.get(key)


@router.get("/devices")
def devices(request: Request, hub: HubHere, caller: Reader) -> Response:
    """Who holds what."""
    _known(caller).require("admin", "*")
    return _html(render.render_devices(gather.devices(hub, page_of(request, caller))))


@router.get("/tokens")
def tokens(request: Request, hub: HubHere, caller: Reader) -> Response:
    """Who may do what."""
    _known(caller).require("admin", "*")
    return _html(render.render_tokens(gather.tokens(hub, caller, page_of(request, caller))))


@router.post("/tokens")
def create_token(request: Request, hub: HubHere, caller: Reader, form: Form) -> Response:
    """A new token, shown this once."""
    _known(caller).require("admin", "*")
    page, wish = page_of(request, caller), views.TokenForm(
        form.get("name", "").strip()[:200], form.get("scopes", "")[:2000], form.get("days", "")[:10]
    )  # fmt: skip
    try:
        scopes = parse_scopes(wish.scopes.split())
        check_grant(caller, scopes)
        if not wish.name:
            raise ConfigError("a token needs a name")
        expires = _expiry(hub, wish.days)
    except LimosaError as error:
        wrong = views.TokenForm(wish.name, wish.scopes, wish.days, str(error))
        view = gather.tokens(hub, caller, page, wrong)
        return _html(render.render_tokens(view), status_of(error))
    _, secret = hub.store.accounts.create_token(wish.name, scopes, expires=expires)
    view = gather.tokens(hub, caller, page, secret=secret, secret_name=wish.name)
    return _html(render.render_tokens(view))


def _expiry(hub: Hub, days: str) -> float | None:
    if not days.strip():
        return None
    if not days.strip().isascii() or not days.strip().isdigit():
        raise ConfigError("no number of days", found=repr(days), allowed="a whole number, or none")
    if int(days) > _MOST_DAYS:
        raise ConfigError("too many days", found=days, allowed=f"{_MOST_DAYS}, or none for ever")
    return hub.store.clock() + int(days) * 86400.0


@router.post("/tokens/{number}/revoke")
def revoke(hub: HubHere, caller: Reader, form: Form, number: int) -> Response:
    """End a token."""
    _known(caller).require("admin", "*")
    hub.store.accounts.revoke(number)
    return RedirectResponse(links.TOKENS, 303)


@router.get("/login")
def login_form(request: Request, caller: Reader, next: str = "/") -> Response:
    """Where a token is shown to the hub."""
    view = views.LoginView(page_of(request, caller), next=links.onward(next))
    return _html(render.render_login(view))


@router.post("/login")
def login(request: Request, hub: HubHere, form: Form) -> Response:
    """Sign in: the token goes into a cookie that scripts cannot read."""
    address = request.client.host if request.client else "unknown"
    hub.rates.take(address)
    token, following = form.get("token", "").strip(), links.onward(form.get("next", "/"))
    try:
        if not token:
            raise AuthError("no token")
        hub.store.accounts.caller(token)
    except AuthError as error:
        page = views.Page(now=hub.store.clock())
        return _html(render.render_login(views.LoginView(page, error.problem, following)), 401)
    answer = RedirectResponse(following, 303)
    answer.set_cookie(
        COOKIE, token, max_age=_COOKIE_S, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


@router.post("/logout")
def logout(form: Form) -> Response:
    """Sign out."""
    answer = RedirectResponse(links.LOGIN, 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/static/{name}")
def static(name: str) -> Response:
    """A file of the pages; its address changes with its bytes."""
    found = render.static_files().get(name)
    if found is None:
        return _html(render.render_problem(404, "no such file"), 404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", **render.HEADERS}
    return Response(found[0], headers=headers, media_type=found[1])


def problem_page(request: Request, error: Exception) -> Response:
    """An error for people; who is not signed in is asked to."""
    status = status_of(error)
    if status == 401 and request.method == "GET":
        return RedirectResponse(f"{links.LOGIN}?next={quote(request.url.path)}", 303)
    title = error.problem if isinstance(error, LimosaError) else "the hub failed"
    detail = str(error) if isinstance(error, LimosaError) else "the hub logs why"
    remedy = (error.remedy or "") if isinstance(error, LimosaError) else ""
    return _html(render.render_problem(status, title, detail, remedy), status)


def _html(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, headers={**render.HEADERS, "Cache-Control": "no-store"})


def _known(caller: Caller) -> Caller:
    if caller.kind == "anonymous" and not caller.scopes:
        raise AuthError("sign in first")
    return caller


def _may_read(caller: Caller, owner: str, name: str) -> str:
    found = repository_of(owner, name)
    _known(caller).require("read", found)
    return found
