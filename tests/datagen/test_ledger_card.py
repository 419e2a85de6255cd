"""The card of a ledger small enough to count by hand."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datagen import ledger_card as module
from datagen.card import Card
from datagen.ledger_card import ledger_card, lorenz
from datagen.ledger_checks import LedgerReport, verify_ledger
from nerv_fl.data import ChainBlock, write_ledger
from nerv_fl.errors import DataError
from nerv_fl.tokens import BURN, MINT, NO_ACCOUNT, TRANSFER

TRANSACTIONS = [
    (TRANSFER, 0, 1, 400),  # chain 0, step 0
    (TRANSFER, 1, 2, 450),
    (MINT, NO_ACCOUNT, 3, 7),  # chain 0, step 1
    (BURN, 0, NO_ACCOUNT, 100),  # chain 1, step 0
    (TRANSFER, 2, 0, 5),  # chain 1, step 1
    (TRANSFER, 0, 3, 1),
]
STATES = [
    [[1000, 100, 10, 0], [600, 50, 460, 0], [600, 50, 460, 7]],
    [[500, 200, 20, 2], [400, 200, 20, 2], [404, 200, 15, 3]],
]
RICH_SHARE = (1000 / 1110 + 500 / 722) / 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    kind, sender, receiver, amount = (np.array(column) for column in zip(*TRANSACTIONS, strict=True))
    block = ChainBlock(
        balances=np.array(STATES),
        supply_nano=np.array([1110, 722]),
        shard_kind=np.array([0, 3], dtype=np.uint8),
        kind=kind.astype(np.uint8),
        sender=sender.astype(np.uint16),
        receiver=receiver.astype(np.uint16),
        amount_nano=amount,
        counts=np.array([[2, 1], [1, 2]]),
    )
    path = tmp_path / "small.h5"
    write_ledger(path, [block], chains=2, steps=2, accounts=4, seed=9, profile="live", generator="test/1")
    return path


@pytest.fixture
def report(path: Path) -> LedgerReport:
    return replace(verify_ledger(path), unigram_ce=1.25, account_ce=0.5)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record what would be drawn, in order."""
    found: list[dict[str, Any]] = []

    def record(data: object, **more: object) -> bytes:
        found.append({"data": data, **more})
        return b""

    monkeypatch.setattr(module, "histogram", record)
    monkeypatch.setattr(module, "lines", record)
    return found


def rows(card: Card, title: str) -> dict[str, tuple[str, ...]]:
    (table,) = (table for table in card.sections if table.title == title)
    return {row[0]: row[1:] for row in table.rows}


@pytest.mark.usefixtures("drawn")
def test_tables_by_hand(path: Path, report: LedgerReport) -> None:
    card = ledger_card(path, report, command="make it")
    assert (card.title, card.seed, card.generator, card.command) == (
        "Synthetic ledger small.h5",
        9,
        "test/1",
        "make it",
    )
    assert card.content_sha256 == report.content_sha256
    assert card.what.startswith("2 chains of 2 batches of payments between 4 accounts (profile `live`)")
    assert rows(card, "Contents") == {
        "chains": ("2", ""),
        "samples (state, batch, state)": ("4", ""),
        "transactions": ("6", "100 %"),
        "transfers": ("4", "66.67 %"),
        "mints": ("1", "16.67 %"),
        "burns": ("1", "16.67 %"),
    }
    assert {name: cells[0] for name, cells in rows(card, "Measures").items()} == {
        "share of the richest 20 %": "79.67%",
        "accounts that change bucket": "37.50%",
        "tokens that change": "16.67%",  # 1.5 of 9
        "balance that moves": "7.62%",  # 55 of 722
        "unigram cross-entropy": "1.2500 nats",
        "per-account cross-entropy": "0.5000 nats",
        "uniform cross-entropy": "5.5452 nats",
    }
    assert rows(card, "Kinds of shard")["mixed"] == ("1",)
    assert rows(card, "Kinds of shard")["retail"] == ("1",)


@pytest.mark.usefixtures("drawn")
def test_the_card_says_what_the_ledger_is_not(path: Path, report: LedgerReport) -> None:
    text = " ".join(ledger_card(path, report, command="make it").caveats)
    assert "It is synthetic" in text
    assert "not evidence about any real ledger" in text


def test_figures_by_hand(path: Path, report: LedgerReport, drawn: list[dict[str, Any]]) -> None:
    card = ledger_card(path, report, command="make it")
    assert list(card.figures) == ["opening-balances", "changed-accounts", "batch-sizes", "buckets"]
    wealth, changed, sizes, buckets = drawn
    assert [line.name for line in wealth["data"]] == ["this ledger", "all equal"]
    assert wealth["data"][0].y[[0, 75, 100]] == pytest.approx([0, 1 - RICH_SHARE, 1])
    assert wealth["data"][0].y[50] == pytest.approx((10 / 1110 + 22 / 722) / 2)
    (mark,) = wealth["marks"]
    assert (mark.x, mark.y, mark.text) == (0.75, pytest.approx(1 - RICH_SHARE), "the richest fifth hold 79.7%")
    # Batches change 3, 1, 1 and 2 of the 4 accounts.
    assert changed["data"].tolist() == [0, 2, 1, 1]
    assert changed["edges"].tolist() == [-12.5, 12.5, 37.5, 62.5, 87.5]
    assert changed["marked"] == 37.5
    assert sizes["data"].tolist() == [2, 2]
    assert sizes["edges"].tolist() == [0.5, 1.5, 2.5]
    # Of 24 balances 2 are empty, and the largest, 1000 = 2^9.97, is in bucket 40.
    assert (len(buckets["data"]), buckets["data"][0]) == (41, pytest.approx(100 * 2 / 24))
    assert buckets["data"].sum() == pytest.approx(100)


@pytest.mark.usefixtures("drawn")
def test_figures_of_a_sample(path: Path, report: LedgerReport, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ledger_card(path, report, command="make it")
    assert "2 of its 2 chains" in whole.caveats[-1]
    monkeypatch.setattr(module, "SAMPLED_CHAINS", 1)
    card = ledger_card(path, report, command="make it")
    assert "1 of its 2 chains" in card.caveats[-1]
    assert card.sections == whole.sections


@pytest.mark.parametrize(
    ("constant", "counts", "edges"),
    [("CHANGED_BINS", [2, 2], [-12.5, 37.5, 87.5]), ("SAMPLED_CHAINS", [0, 1, 0, 1], [-12.5, 12.5, 37.5, 62.5, 87.5])],
)
def test_bins(path: Path, drawn: list[dict[str, Any]], *, constant: str, counts: list[int], edges: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, constant, {"CHANGED_BINS": 2, "SAMPLED_CHAINS": 1}[constant])
        ledger_card(path, verify_ledger(path), command="make it")
    assert drawn[1]["data"].tolist() == counts
    assert drawn[1]["edges"].tolist() == edges


def test_same_ledger_gives_same_card(path: Path, report: LedgerReport) -> None:
    card = ledger_card(path, report, command="make it")
    assert card == ledger_card(path, report, command="make it")
    assert all(image.startswith(b"<?xml") for image in card.figures.values())


def test_report_of_another_ledger(path: Path, report: LedgerReport) -> None:
    message = f"{path}: its content_sha256 is {report.content_sha256}, expected 00"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        ledger_card(path, replace(report, content_sha256="00"), command="make it")


def test_lorenz_curve_of_empty_accounts() -> None:
    assert not lorenz(np.zeros(4)).any()
