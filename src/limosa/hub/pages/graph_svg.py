"""The versions of a repository as a graph, with bytes on its edges."""

from __future__ import annotations

from collections.abc import Sequence

from limosa.hub.pages import links
from limosa.hub.pages.layout import BOX, Box, Line, lay_out
from limosa.hub.pages.svg import coordinate, drawing, element, text, title
from limosa.hub.pages.views import Graph, GraphNode
from limosa.hub.pages.words import cut, human, plural, short

#: What an edge's kind means, in the order of the legend.
KINDS = {
    "whole": "whole model",
    "pushed": "update, as pushed",
    "made": "update, made by the hub",
    "copy": "lossy copy",
    "estimate": "not made yet; estimated",
}
_MEANING = {"baked": "made", "shared": "made"}


def kind_of(kind: str, base: str) -> str:
    """Which of :data:`KINDS` an edge of the store is.

    >>> kind_of("pushed", ""), kind_of("baked", "00"), kind_of("copy", "")
    ('whole', 'made', 'copy')
    """
    kind = _MEANING.get(kind, kind)
    if not base and kind in ("pushed", "made"):
        return "whole"
    return kind if kind in KINDS else "made"


def label(node: GraphNode) -> str:
    """What people call a node."""
    if node.name:
        return node.name
    return "lossy copy" if node.of else short(node.digest)


def version_graph(graph: Graph, repository: str) -> str:
    """The drawing; it is as wide as it needs to be, and scrolls in its box."""
    layout = lay_out(graph)
    named = sum(bool(node.name) for node in graph.nodes)
    copies = sum(bool(node.of) for node in graph.nodes)
    return drawing(
        *(_copy_line(original, copy) for original, copy in layout.copies),
        *(_edge(line) for line in layout.lines),
        *(_node(box, repository) for box in layout.boxes),
        width=layout.width, height=layout.height, key="graph", class_="graph", role="group",
        name=f"Versions of {repository}",
        description=f"{plural(named, 'version')} from left to right, {plural(copies, 'lossy copy')}"
        f" and {plural(len(layout.lines), 'blob')} between them. The table below says the same.",
    )  # fmt: skip


def legend(graph: Graph) -> list[tuple[str, str, str]]:
    """Kind, meaning and sample of each kind of edge that *graph* has."""
    found = {kind_of(edge.kind, edge.base) for edge in graph.edges}
    return [(kind, words, _sample(kind)) for kind, words in KINDS.items() if kind in found]


def _sample(kind: str) -> str:
    line = element("path", d="M2 6 H32", class_="line")
    return element(
        "svg", element("g", line, _arrow(32, 6, 1), class_=f"edge {kind}"),
        class_="sample", width=42, height=12, viewBox="0 0 42 12", aria_hidden="true",
    )  # fmt: skip


def _edge(line: Line) -> str:
    kind = kind_of(line.edge.kind, line.edge.base)
    base = label(line.source.node) if line.source else "nothing"
    words = f"{base} → {label(line.target.node)}: {human(line.edge.nbytes)}, {KINDS[kind]}"
    x, y = line.points[-1]
    inward = 1 if x == line.target.x else -1
    parts = [
        title(words),
        element("path", d=_path(line.points, inward), class_="line"),
        _arrow(x - 8 * inward, y, inward),
    ]
    if line.source is None:
        start = line.points[0]
        parts.append(element("circle", cx=start[0], cy=start[1], r=2.5, class_="start"))
    size = human(line.edge.nbytes)
    size = f"≈ {size}" if kind == "estimate" else size
    parts.append(text(size, x=line.label[0], y=line.label[1], class_="bytes"))
    return element("g", *parts, class_=f"edge {kind}{' back' if line.turned else ''}")


def _path(points: Sequence[tuple[float, float]], inward: int) -> str:
    parts = [f"M{coordinate(points[0][0])} {coordinate(points[0][1])}"]
    last = len(points) - 1
    for i in range(1, len(points)):
        (x0, y0), (x, y) = points[i - 1], points[i]
        if i == last:
            x -= 8 * inward
        if y0 == y:
            parts.append(f"H{coordinate(x)}")
        elif x0 == x:  # around, on the same side
            bulge = x + 26
            curve = (bulge, y0, bulge, y, x, y)
            parts.append("C" + " ".join(map(coordinate, curve)))
        else:
            middle = (x0 + x) / 2
            parts.append("C" + " ".join(map(coordinate, (middle, y0, middle, y, x, y))))
    return " ".join(parts)


def _arrow(x: float, y: float, inward: int) -> str:
    tip = x + 8 * inward
    corners = f"{coordinate(x)},{coordinate(y - 4)} {coordinate(tip)},{coordinate(y)}"
    return element(
        "polygon", points=f"{corners} {coordinate(x)},{coordinate(y + 4)}", class_="arrow"
    )


def _copy_line(original: Box, copy: Box) -> str:
    x = original.x + 16
    d = f"M{coordinate(x)} {coordinate(original.y + original.height)} V{coordinate(copy.middle)}"
    return element("path", d=f"{d} H{coordinate(copy.x)}", class_="copy-of")


def _node(box: Box, repository: str) -> str:
    node = box.node
    kind = (
        "stranger" if not box.known else "copy" if node.of else "version" if node.name else "base"
    )
    middle, y = box.x + BOX / 2, box.middle
    parts = [
        title(_tip(box, kind)),
        element("rect", x=box.x, y=box.y, width=BOX, height=box.height, rx=6),
        text(cut(label(node), 17), x=middle, y=y - 3, class_="name"),
        text(cut(_second(node, kind), 22), x=middle, y=y + 13, class_="more"),
    ]
    if not box.known:
        return element("g", *parts, class_=f"node {kind}")
    address = links.version(repository, node.name or f"@{node.digest}")
    return element("a", *parts, href=address, class_=f"node {kind}{' tagged' if node.tags else ''}")


def _second(node: GraphNode, kind: str) -> str:
    if kind == "version":
        return ", ".join(node.tags) or human(node.nbytes)
    return {"copy": node.bound, "base": "shared base"}.get(kind, "no longer here")


def _tip(box: Box, kind: str) -> str:
    node = box.node
    if kind == "stranger":
        return f"State {short(node.state)}, which no version has any more"
    more = f", {', '.join(node.tags)}" if node.tags else ""
    bound = f", {node.bound}" if node.bound else ""
    return f"{label(node)}{more}{bound}: {human(node.nbytes)}, {short(node.digest)}"
