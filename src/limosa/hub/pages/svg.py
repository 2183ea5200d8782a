"""Elements of SVG as text. No colours or fonts: classes get them from the style sheet."""

from __future__ import annotations

from html import escape

from limosa.hub.pages.words import clean

Value = str | float | int | None


def element(tag: str, *children: str, **attributes: Value) -> str:
    """An element; *children* are markup already, values of attributes are escaped.

    ``class_`` means ``class``, other underscores are hyphens; None leaves an attribute out.

    >>> element("path", d="M0 0", class_="a", stroke_width=1.50)
    '<path d="M0 0" class="a" stroke-width="1.5"/>'
    """
    parts = [tag]
    for key, value in attributes.items():
        if value is not None:
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{_value(value)}"')
    body = "".join(children)
    head = " ".join(parts)
    return f"<{head}>{body}</{tag}>" if body else f"<{head}/>"


def text(words: str, **attributes: Value) -> str:
    """A line of text."""
    return element("text", content(words), **attributes)


def title(words: str) -> str:
    """What a pointer that rests on the parent is told."""
    return element("title", content(words))


def content(words: str) -> str:
    """*words*, escaped.

    >>> content("<b>\\x01")
    '&lt;b&gt;\ufffd'
    """
    return escape(clean(words), quote=False)


def coordinate(value: float) -> str:
    """A coordinate with at most one decimal, so that the same drawing is the same bytes.

    >>> coordinate(3.0), coordinate(-0.04), coordinate(2.25)
    ('3', '0', '2.2')
    """
    digits = f"{value:.1f}".removesuffix(".0")
    return "0" if digits == "-0" else digits


def drawing(
    *children: str, width: float, height: float, key: str, name: str, description: str,
    class_: str, role: str = "img",
) -> str:  # fmt: skip
    """A whole drawing, named and described for who cannot see it.

    Args:
        children: what is drawn.
        width, height: in CSS pixels.
        key: of the page's only drawing with this key.
        name, description: what it shows, and what can be seen in it.
        class_: for the style sheet.
        role: "img"; "group" where parts of it are links, which an image must not contain.
    """
    return element(
        "svg",
        element("title", content(name), id=f"{key}-t"),
        element("desc", content(description), id=f"{key}-d"),
        *children,
        xmlns="http://www.w3.org/2000/svg", class_=class_, role=role,
        width=width, height=height, viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        aria_labelledby=f"{key}-t", aria_describedby=f"{key}-d",
    )  # fmt: skip


def _value(value: str | float | int) -> str:
    if isinstance(value, str):
        return escape(clean(value))
    return coordinate(float(value))
