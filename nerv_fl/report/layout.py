"""The page's building blocks: sections, figures, tables, chips."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from nerv_fl.report.markup import Html, el

TEXT_COLUMNS: Final = frozenset({"Flagged as", "Gate", "Node", "Valued by"})
"""Columns of words, which begin at the left."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: what it shows, what it sorts by, and what stands in its tooltip."""

    show: str
    sort: float | str | None = None
    title: str | None = None
    style: str = "number"


def section(key: str, title: str, *, prose: Sequence[str], figures: Sequence[str], wide: bool = False) -> Html:
    """Return a section: its title and text on the left, its figures on the right, or below where they are wide."""
    text = el("div", el("h2", title, id=f"{key}-title"), *(el("p", part) for part in prose), class_="prose")
    body = el("div", *figures, class_="figures")
    return el("section", text, body, id=key, class_="wide" if wide else None, aria_labelledby=f"{key}-title")


def figure(title: str, drawing: str, *, unit: str = "", note: str | None = None) -> Html:
    """Return a figure with its title and unit above, and a note below."""
    head = el("figcaption", el("span", title, class_="name"), el("span", unit, class_="unit") if unit else None)
    return el("figure", head, drawing, el("p", note, class_="note") if note else None)


def multiples(*figures: str) -> Html:
    """Return small figures side by side."""
    return el("div", *figures, class_="multiples")


def table(caption: str, *, header: Sequence[str], rows: Iterable[Sequence[Cell]], sortable: bool = False) -> Html:
    """Return a table whose first column heads its rows, in a frame that scrolls sideways where it must."""
    heads = (
        el("th", name, scope="col", class_="label" if index == 0 or name in TEXT_COLUMNS else None)
        for index, name in enumerate(header)
    )
    body = (el("tr", *(_cell(cell, head=index == 0) for index, cell in enumerate(row))) for row in rows)
    inside = el(
        "table",
        el("caption", caption),
        el("thead", el("tr", *heads)),
        el("tbody", *body),
        class_="sortable" if sortable else None,
    )
    return el("div", inside, class_="scroll", tabindex=0, role="region", aria_label=caption)


def chip(text: str, *, style: str) -> Html:
    """Return a short label on a coloured ground."""
    return el("span", text, class_=f"chip {style}")


def strong(text: str) -> Html:
    """Return a number or word that stands out in its sentence."""
    return el("b", text)


def alert(*paragraphs: str, style: str) -> Html:
    """Return paragraphs on a coloured ground, for what a reader must know before anything else."""
    return el("div", *(el("p", part) for part in paragraphs), class_=f"alert {style}", role="alert")


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """Return names beside their colours, as (style, name)."""
    return el("ul", *(el("li", el("i", class_=style), name) for style, name in entries), class_="legend")


def _cell(cell: Cell, *, head: bool) -> Html:
    return el(
        "th" if head else "td",
        cell.show,
        scope="row" if head else None,
        title=cell.title,
        data_sort=cell.sort if cell.sort is None or isinstance(cell.sort, str) else repr(cell.sort),
        class_=cell.style or None,
    )
