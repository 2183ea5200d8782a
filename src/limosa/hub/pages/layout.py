"""Where the versions of a repository stand in a drawing, and how lines lead between them.

Layers from left to right by history, in the manner of K. Sugiyama, S. Tagawa and M. Toda, "Methods
for visual understanding of hierarchical system structures", 1981: a column is one more than those
of what a version was made from; lines that pass a column get a place in it; each column is ordered
by where its neighbours are. A lossy copy stands below its original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from limosa.hub.pages.columns import Item, Wire, place_columns
from limosa.hub.pages.views import Graph, GraphEdge, GraphNode

BOX = 132.0
INDENT = 28.0
#: Room for the bytes of a line, before its arrow.
LABEL = 74.0
_BEND = 66.0
_MARGIN = 14.0
_LOW = 46.0
_BETWEEN = 14.0
_LABELLED, _PLAIN = 19.0, 11.0


@dataclass
class Port:
    """Where a line meets a box: *pull* is how high the line comes from."""

    labelled: bool
    pull: float = 0.0
    first: bool = False
    y: float = 0.0


@dataclass
class Box:
    """A node in the drawing; *left* and *right* are where lines meet it."""

    node: GraphNode
    copy: bool = False
    known: bool = True
    x: float = 0.0
    y: float = 0.0
    height: float = _LOW
    left: list[Port] = field(default_factory=list)
    right: list[Port] = field(default_factory=list)

    @property
    def middle(self) -> float:
        """Half way down."""
        return self.y + self.height / 2

    def measure(self) -> None:
        """Be as high as the lines that meet it need."""
        need = max(_stack(self.left), _stack(self.right)) + 8
        self.height = max(_LOW, need)

    def settle(self) -> None:
        """Spread the ports of a side over it, ordered so that lines do not cross."""
        for side in (self.left, self.right):
            y = self.middle - _stack(side) / 2
            for port in sorted(side, key=lambda port: (not port.first, port.pull)):
                room = _LABELLED if port.labelled else _PLAIN
                port.y = y + room / 2
                y += room


@dataclass(frozen=True)
class Line:
    """An edge in the drawing: through *points*, with its bytes above the last stretch.

    Attributes:
        points: pairs (x, y); between two with different y it bends.
        label: where the middle of the words is.
        turned: it leads back in history.
    """

    edge: GraphEdge
    source: Box | None
    target: Box
    points: tuple[tuple[float, float], ...]
    label: tuple[float, float]
    turned: bool = False


@dataclass(frozen=True)
class Layout:
    """The drawing; *copies* pairs each original with its copy."""

    width: float
    height: float
    boxes: Sequence[Box]
    lines: Sequence[Line]
    copies: Sequence[tuple[Box, Box]]


@dataclass
class _Route:
    edge: GraphEdge
    source: Box | None
    target: Box
    out: Port
    into: Port
    wire: Wire | None = None
    turned: bool = False
    beside: bool = False


def lay_out(graph: Graph) -> Layout:
    """Give every node and every edge of *graph* its place. An edge to an unknown node has none."""
    boxes, ends = _resolve(graph)
    stacks = _stacks(boxes)
    item_of = {
        id(box): Item(stack, place) for place, stack in enumerate(stacks) for box in stack[:1]
    }
    for stack in stacks:
        for box in stack[1:]:
            item_of[id(box)] = item_of[id(stack[0])]
    items = [item_of[id(stack[0])] for stack in stacks]
    _assign_columns(items, item_of, ends, boxes)
    routes = [_route(edge, source, target, item_of) for edge, source, target in ends]
    for box in boxes:
        box.measure()
    for item in items:
        _measure(item)
    columns = place_columns(items, [route.wire for route in routes if route.wire])
    left, total = _place_x(columns, routes)
    _pull(routes)
    for box in boxes:
        box.settle()
    lines = [_line(route, left, columns) for route in routes]
    bottom = max([box.y + box.height for box in boxes], default=0.0)
    bottom = max([bottom, *(y for line in lines for _, y in line.points)])
    pairs = [(stack[0], box) for stack in stacks for box in stack[1:]]
    return Layout(total, bottom + _MARGIN, boxes, lines, pairs)


def _stack(ports: Sequence[Port]) -> float:
    return sum(_LABELLED if port.labelled else _PLAIN for port in ports)


def _resolve(graph: Graph) -> tuple[list[Box], list[tuple[GraphEdge, Box | None, Box]]]:
    """Boxes in the order of history, and edges between them; unknown bases become boxes, too."""
    boxes: list[Box] = []
    by_digest = {node.digest: Box(node, copy=bool(node.of)) for node in graph.nodes}
    by_state: dict[str, list[Box]] = {}
    for box in by_digest.values():
        by_state.setdefault(box.node.state, []).append(box)
    strangers: dict[str, list[Box]] = {}
    ends: list[tuple[GraphEdge, Box | None, Box]] = []
    for edge in graph.edges:
        target = by_digest.get(edge.target)
        if target is None:
            continue
        if not edge.base:
            ends.append((edge, None, target))
            continue
        if edge.base not in by_state:
            stranger = Box(GraphNode(edge.base, edge.base), known=False)
            by_state[edge.base] = [stranger]
            strangers.setdefault(edge.target, []).append(stranger)
        source = next((box for box in by_state[edge.base] if box is not target), None)
        if source is not None:
            ends.append((edge, source, target))
    for digest, box in by_digest.items():
        boxes.extend(strangers.get(digest, ()))
        boxes.append(box)
    return boxes, ends


def _stacks(boxes: Sequence[Box]) -> list[list[Box]]:
    """Each original with its copies below it."""
    by_digest = {box.node.digest: box for box in boxes}
    stacks: dict[int, list[Box]] = {}
    for box in boxes:
        root, seen = box, {id(box)}
        while (above := by_digest.get(root.node.of)) is not None and id(above) not in seen:
            seen.add(id(above))
            root = above
        if root is not box and root.node.of in by_digest:
            root = box  # copies of each other: nobody is the original
        stack = stacks.setdefault(id(root), [root])
        if box is not root:
            stack.append(box)
    return list(stacks.values())


def _assign_columns(
    items: Sequence[Item],
    item_of: dict[int, Item],
    ends: Sequence[tuple[GraphEdge, Box | None, Box]],
    boxes: Sequence[Box],
) -> None:
    order = {id(item): place for place, item in enumerate(items)}
    by_digest = {box.node.digest: item_of[id(box)] for box in boxes}
    before: dict[int, list[Item]] = {id(item): [] for item in items}
    pairs = [(item_of[id(s)], item_of[id(t)]) for _, s, t in ends if s is not None]
    for box in boxes:
        known = [by_digest[parent] for parent in box.node.parents if parent in by_digest]
        pairs += [(parent, item_of[id(box)]) for parent in known]
    for base, target in pairs:
        if order[id(base)] < order[id(target)]:
            before[id(target)].append(base)
    for place, item in enumerate(items):
        # What nothing leads to stands behind the one before it in history.
        bases = before[id(item)] or items[max(place - 1, 0) : place]
        item.column = max((base.column + 1 for base in bases), default=0)


def _route(edge: GraphEdge, source: Box | None, target: Box, item_of: dict[int, Item]) -> _Route:
    into, out = Port(labelled=True, first=source is None), Port(labelled=False)
    route = _Route(edge, source, target, out, into)
    if source is None:
        target.left.append(into)
        return route
    first, last = item_of[id(source)], item_of[id(target)]
    step = last.column - first.column
    if step == 0:
        route.beside = True
        source.right.append(out)
        target.right.append(into)
        return route
    route.turned = step < 0
    (source.left if step < 0 else source.right).append(out)
    (target.right if step < 0 else target.left).append(into)
    route.wire = Wire(first, last) if step > 0 else Wire(last, first)
    return route


def _measure(item: Item) -> None:
    y = 0.0
    for box in item.boxes:
        box.y = y
        y += box.height + _BETWEEN
    item.height = y - _BETWEEN
    item.anchor = item.boxes[0].height / 2


def _place_x(
    columns: Sequence[Sequence[Item]], routes: Sequence[_Route]
) -> tuple[list[float], float]:
    """Left edges of the columns, and the width of it all; boxes get their place."""
    left: list[float] = []
    x = _MARGIN
    for column in columns:
        boxes = [box for item in column for box in item.boxes]
        labelled = any(port.labelled for box in boxes for port in box.left)
        x += LABEL if labelled else 0.0
        left.append(x)
        for item in column:
            y = item.y
            for box in item.boxes:
                box.x = x + (INDENT if box.copy and box is not item.boxes[0] else 0.0)
                box.y = y
                y += box.height + _BETWEEN
        x += BOX + (INDENT if any(len(item.boxes) > 1 for item in column) else 0.0)
        if any(port.labelled for box in boxes for port in box.right):
            x += LABEL + 30 * any(route.beside for route in routes)
        x += _BEND
    return left, max(x - _BEND + _MARGIN, 1.0)


def _pull(routes: Sequence[_Route]) -> None:
    for route in routes:
        if route.source is None:
            continue
        route.into.pull, route.out.pull = route.source.middle, route.target.middle
        if route.wire and route.wire.passes:
            ends = route.wire.passes[0].y, route.wire.passes[-1].y
            route.out.pull, route.into.pull = ends[::-1] if route.turned else ends


def _line(route: _Route, left: Sequence[float], columns: Sequence[Sequence[Item]]) -> Line:
    target, into = route.target, route.into.y
    if route.source is None:
        points = [(target.x - LABEL + 6, into), (target.x, into)]
        return _finish(route, points)
    out = route.out.y
    if route.beside:
        far = max(route.source.x, target.x) + BOX + LABEL
        points = [(route.source.x + BOX, out), (far, out), (far, into), (target.x + BOX, into)]
        return _finish(route, points)
    assert route.wire is not None
    passes = [(left[item.column], item.y, left[item.column] + BOX) for item in route.wire.passes]
    if route.turned:
        points = [(route.source.x, out), (route.source.x - LABEL, out)]
        for x, y, end in reversed(passes):
            points += [(end, y), (x, y)]
        points += [(target.x + BOX + LABEL, into), (target.x + BOX, into)]
    else:
        points = [(route.source.x + BOX, out)]
        if (
            len(columns[route.wire.first.column])
            and route.source.x == left[route.wire.first.column]
        ):
            points.append((_right_of(route, left), out))
        for x, y, end in passes:
            points += [(x, y), (end, y)]
        points += [(target.x - LABEL, into), (target.x, into)]
    return _finish(route, points)


def _right_of(route: _Route, left: Sequence[float]) -> float:
    """Where a line may begin to bend: behind the labels and copies of its own column."""
    assert route.wire is not None
    assert route.source is not None
    column = route.wire.first.column
    after = left[column + 1] - LABEL - _BEND if column + 1 < len(left) else 0.0
    return max(route.source.x + BOX, after)


def _finish(route: _Route, points: list[tuple[float, float]]) -> Line:
    target, inward = route.target, points[-1][0] == route.target.x
    middle = target.x - LABEL / 2 - 2 if inward else target.x + BOX + LABEL / 2 + 2
    return Line(
        route.edge, route.source, target, tuple(points), (middle, points[-1][1] - 4), route.turned
    )
