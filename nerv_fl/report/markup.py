"""Markup that is escaped by construction: a plain string is text, only `Html` is markup."""

import html
from typing import Final

VOID: Final = frozenset({"br", "col", "link", "meta"})


class Html(str):
    """Text that is markup already and is inserted as it stands."""

    __slots__ = ()


def el(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """Return an element of HTML or SVG; every child and attribute that is not `Html` is escaped.

    Args:
        name: Tag name.
        children: Text, or markup made by this function; None is left out.
        attributes: A trailing underscore is dropped and others become hyphens; None and False leave an attribute out.

    >>> el("a", "1 < 2", el("b", "x"), class_="tip", data_sort=3)
    '<a class="tip" data-sort="3">1 &lt; 2<b>x</b></a>'
    """
    present = {key: value for key, value in attributes.items() if value is not None and value is not False}
    inside = "".join(f' {_name(key)}="{_attribute(value)}"' for key, value in present.items())
    if name in VOID:
        return Html(f"<{name}{inside}>")
    return Html(f"<{name}{inside}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    """Return children one after the other, what is not markup escaped.

    >>> join("a & b", None, el("br"))
    'a &amp; b<br>'
    """
    return Html("".join(_text(child) for child in children if child is not None))


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _text(child: str) -> str:
    return child if isinstance(child, Html) else html.escape(_visible(child), quote=False)


def _attribute(value: str | float) -> str:
    if isinstance(value, bool):
        return ""
    return html.escape(_visible(value)) if isinstance(value, str) else f"{value:.6g}"


def _visible(text: str) -> str:
    """Drop control characters, which no XML parser takes."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
