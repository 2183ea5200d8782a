"""Views to pages: HTML as text, in UTF-8, for the headers in :data:`HEADERS`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from limosa.errors import MissingExtraError
from limosa.hub.pages import graph_svg, histogram_svg, links, saved_svg, tensor_table, words
from limosa.hub.pages.views import (
    DevicesView,
    LoginView,
    Page,
    ProblemView,
    RepositoriesView,
    RepositoryView,
    SavedView,
    TokensView,
    VersionView,
)

if TYPE_CHECKING:
    from jinja2 import Environment

#: What every page is sent with: nothing but the hub's own files, no scripts or styles in the page,
#: no frame around it, and no address of it told to others.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_MEDIA_TYPES = {
    "limosa.css": "text/css; charset=utf-8",
    "limosa.js": "text/javascript; charset=utf-8",
    "limosa.svg": "image/svg+xml",
}


def render_repositories(view: RepositoriesView) -> str:
    """The first page."""
    return _render("repositories.html", view, totals=saved_svg.totals(view.saved))


def render_repository(view: RepositoryView) -> str:
    """A repository: its versions as a graph and as a table, and what they saved."""
    names = {node.state: graph_svg.label(node) for node in reversed(view.graph.nodes)}
    targets = {node.digest: node for node in view.graph.nodes}
    edges = [
        (
            edge,
            names.get(edge.base, words.short(edge.base)),
            targets[edge.target],
            graph_svg.KINDS[graph_svg.kind_of(edge.kind, edge.base)],
        )
        for edge in view.graph.edges
        if edge.target in targets
    ]
    return _render(
        "repository.html", view, edges=edges,
        graph=graph_svg.version_graph(view.graph, view.name) if view.graph.nodes else "",
        legend=graph_svg.legend(view.graph), label=graph_svg.label,
        latest=next((version for version in view.versions if version.name), None),
        chart=saved_svg.saved_chart(view.saved), series=saved_svg.SERIES,
        totals=saved_svg.totals(view.saved),
    )  # fmt: skip


def render_version(view: VersionView) -> str:
    """A version: what leads to it, and its tensors."""
    chosen = next((row for row in view.tensors if row.name == view.asked.tensor), view.whole)
    return _render(
        "version.html", view, table=tensor_table.select(view.tensors, view.asked),
        columns=tensor_table.COLUMNS, chosen=chosen,
        address=links.version(view.repository, view.version.reference),
        kinds={way: graph_svg.KINDS[graph_svg.kind_of(way.kind, way.base)] for way in view.ways},
        figure=histogram_svg.figure(chosen, view.base) if chosen else "",
        sparkline=histogram_svg.sparkline,
    )  # fmt: skip


def render_devices(view: DevicesView) -> str:
    """The devices and what they hold."""
    return _render("devices.html", view)


def render_tokens(view: TokensView) -> str:
    """The tokens, the form for a new one, and the secret of one just made."""
    return _render("tokens.html", view)


def render_saved(view: SavedView) -> str:
    """What travelled and what did not have to, over time and by repository."""
    return _render(
        "saved.html", view, chart=saved_svg.saved_chart(view.days), series=saved_svg.SERIES,
        totals=saved_svg.totals(view.days),
    )  # fmt: skip


def render_login(view: LoginView) -> str:
    """The form that takes a token."""
    return _render("login.html", view)


def render_problem(
    status: int, title: str, detail: str = "", remedy: str = "", page: Page | None = None
) -> str:
    """An error as a page."""
    return _render("problem.html", ProblemView(page or Page(), status, title, detail, remedy))


@cache
def static_files() -> Mapping[str, tuple[bytes, str]]:
    """The files below :data:`links.STATIC`: bytes and media type by name.

    >>> static_files()["limosa.css"][1]
    'text/css; charset=utf-8'
    """
    folder = files("limosa.hub.pages") / "static"
    return {name: ((folder / name).read_bytes(), kind) for name, kind in _MEDIA_TYPES.items()}


def static(name: str) -> str:
    """The address of a static file; it changes with its bytes, so that browsers may keep it."""
    return f"{links.STATIC}{name}?v={hashlib.sha256(static_files()[name][0]).hexdigest()[:12]}"


def _render(template: str, view: Any, **more: Any) -> str:
    return _environment().get_template(template).render(view=view, page=view.page, **more)


@cache
def _environment() -> Environment:
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError.for_extra("hub", "the hub's web page") from error

    def finalize(value: Any) -> Any:
        # Markup is a str, too, and made of cleaned text.
        return words.clean(value) if type(value) is str else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("limosa.hub.pages"), autoescape=True, finalize=finalize,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    # Only drawings that are escaped already pass through `drawn`.
    environment.filters["drawn"] = Markup
    environment.globals.update(w=words, links=links, static=static)
    return environment
