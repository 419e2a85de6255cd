"""A card says what it was given, and links the figures that lie beside it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.card import Card, Table, write_card
from nerv_fl.errors import ConfigError, DataError

CARD = Card(
    title="A ledger",
    what="Four accounts.",
    generator="test/1",
    command="make data",
    seed=7,
    content_sha256="ab12",
    sections=(Table(title="Counts", header=("a|b", "number"), rows=(("chains", "2"), ("x|y", "3"))),),
    figures={"two-bars": b"<svg/>"},
    caveats=("It is synthetic.",),
)
TEXT = r"""# A ledger

Four accounts.

## How it was made

By `test/1` from seed 7; the same command gives the same content.

```sh
make data
```

- Content SHA-256: `ab12`
- Licence: MIT

## Counts

| a\|b | number |
| --- | ---: |
| chains | 2 |
| x\|y | 3 |

## Figures

![two bars](data.h5.card/two-bars.svg)

## What it is not

- It is synthetic.
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.h5"
    path.write_bytes(b"data")
    return path


def test_card_of_a_file(data: Path) -> None:
    assert write_card(data, CARD) == data.parent / "data.h5.card.md"
    assert (data.parent / "data.h5.card.md").read_text() == TEXT
    assert (data.parent / "data.h5.card" / "two-bars.svg").read_bytes() == b"<svg/>"
    assert data.read_bytes() == b"data"


def test_card_of_a_folder(tmp_path: Path) -> None:
    assert write_card(tmp_path, CARD) == tmp_path / "card.md"
    assert "![two bars](card/two-bars.svg)" in (tmp_path / "card.md").read_text()
    assert (tmp_path / "card" / "two-bars.svg").read_bytes() == b"<svg/>"


def test_a_bare_card_has_no_empty_heading(data: Path) -> None:
    text = write_card(data, replace(CARD, sections=(), figures={}, caveats=())).read_text()
    assert re.findall("^#+ .*", text, re.MULTILINE) == ["# A ledger", "## How it was made"]
    assert not (data.parent / "data.h5.card").exists()


def test_figures_of_an_older_card_go(data: Path) -> None:
    write_card(data, replace(CARD, figures={"old": b"<svg/>", "two-bars": b"<old/>"}))
    write_card(data, CARD)
    found = {path.name: path.read_bytes() for path in (data.parent / "data.h5.card").iterdir()}
    assert found == {"two-bars.svg": b"<svg/>"}


def test_the_page_is_written_after_its_figures(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("datagen.card.write_atomically", lambda path, _: written.append(path.name))
    write_card(data, CARD)
    assert written == ["two-bars.svg", "data.h5.card.md"]


def test_missing_data(tmp_path: Path) -> None:
    message = f"{tmp_path / 'no'} does not exist, expected the data that the card describes"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        write_card(tmp_path / "no", CARD)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: replace(CARD, figures={"../up": b""}),
            "figure is '../up', expected small letters, digits and single hyphens",
        ),
        (
            lambda: Table(title="T", header=("a", "b"), rows=(("c",),)),
            "table 'T': row ('c',) has 1 cells, expected 2",
        ),
    ],
)
def test_bad_cards(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()
