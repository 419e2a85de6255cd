"""Data cards: what a data set is, how it was made, what it measures, and what it is not.

A card is Markdown beside the data, and its figures are SVG files it links to:

    ledger.h5   ledger.h5.card.md   ledger.h5.card/NAME.svg
    folder/     folder/card.md      folder/card/NAME.svg
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.atomic import write_atomically

LICENCE: Final = "MIT"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Statistics under a heading.

    Attributes:
        title: The heading.
        header: Name of each column.
        rows: Cells of each row, as many as the header has.
        numbers: Which columns hold numbers, and are set flush right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ConfigError(f"table {self.title!r}: row {row} has {len(row)} cells, expected {len(self.header)}")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says.

    Attributes:
        title: Name of the data set.
        what: What it is, in a sentence or a few.
        generator: Name and version of the program that made it.
        command: The exact command that makes it again.
        seed: Seed of every random stream.
        content_sha256: Hash of every value.
        licence: Name of the licence.
        sections: Statistics.
        figures: SVG images by name; the name is the file's, in small letters, digits and hyphens.
        caveats: What the data set is not.
    """

    title: str
    what: str
    generator: str
    command: str
    seed: int
    content_sha256: str
    licence: str = LICENCE
    sections: Sequence[Table] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    caveats: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.figures:
            if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
                raise ConfigError(f"figure is {name!r}, expected small letters, digits and single hyphens")


def card_paths(path: Path) -> tuple[Path, Path]:
    """Return where the card of a file or a folder lies, and the folder of its figures.

    >>> [found.as_posix() for found in card_paths(Path("no/ledger.h5"))]
    ['no/ledger.h5.card.md', 'no/ledger.h5.card']
    """
    if path.is_dir():
        return path / "card.md", path / "card"
    return path.with_name(f"{path.name}.card.md"), path.with_name(f"{path.name}.card")


def write_card(path: Path, card: Card) -> Path:
    """Write a card beside a data file, or into a data folder.

    Args:
        path: The data file or folder.
        card: What to say.

    Returns:
        The Markdown file.

    Raises:
        DataError: If there is no such file or folder.
        OSError: If the card cannot be written.

    Guarantees:
        The Markdown file is written after every figure it shows, each in one step; figures of an older card are gone.
        Equal cards give equal bytes.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist, expected the data that the card describes")
    page, folder = card_paths(path)
    if card.figures:
        folder.mkdir(exist_ok=True)
    for name, image in card.figures.items():
        write_atomically(folder / f"{name}.svg", image)
    write_atomically(page, _markdown(card, folder=folder.name).encode())
    for old in set(folder.glob("*.svg")) - {folder / f"{name}.svg" for name in card.figures}:
        old.unlink()
    return page


def _markdown(card: Card, *, folder: str) -> str:
    parts = [
        f"# {card.title}",
        card.what,
        "## How it was made",
        f"By `{card.generator}` from seed {card.seed}; the same command gives the same content.",
        f"```sh\n{card.command}\n```",
        f"- Content SHA-256: `{card.content_sha256}`\n- Licence: {card.licence}",
    ]
    for table in card.sections:
        parts += [f"## {table.title}", _rows(table)]
    if card.figures:
        parts += ["## Figures", *(f"![{name.replace('-', ' ')}]({folder}/{name}.svg)" for name in card.figures)]
    if card.caveats:
        parts += ["## What it is not", "\n".join(f"- {caveat}" for caveat in card.caveats)]
    return "\n\n".join(parts) + "\n"


def _rows(table: Table) -> str:
    rule = tuple("---:" if column in table.numbers else "---" for column in range(len(table.header)))
    escaped = [tuple(cell.replace("|", r"\|") for cell in row) for row in (table.header, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:]))
