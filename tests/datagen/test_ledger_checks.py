"""Each invariant is broken once, and must be named with its chain and step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datagen import ledger_checks as invariants
from datagen.ledger_checks import verify_ledger
from nerv_fl.data import ChainBlock, write_ledger, writer
from nerv_fl.errors import DataError
from nerv_fl.tokens import BURN, MINT, NO_ACCOUNT, TRANSFER, tokens
from nerv_fl.types import IntArray

NOBODY = NO_ACCOUNT
TRANSACTIONS = [
    (TRANSFER, 0, 1, 400),  # chain 0, step 0
    (TRANSFER, 1, 2, 450),
    (MINT, NOBODY, 3, 7),  # chain 0, step 1
    (BURN, 0, NOBODY, 100),  # chain 1, step 0
    (TRANSFER, 2, 0, 5),  # chain 1, step 1
    (TRANSFER, 0, 3, 1),
]
STATES = [
    [[1000, 100, 10, 0], [600, 50, 460, 0], [600, 50, 460, 7]],
    [[500, 200, 20, 2], [400, 200, 20, 2], [404, 200, 15, 3]],
]
COUNTS = [[2, 1], [1, 2]]


def write(path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None, *, unchecked: bool = False) -> Path:
    """Write two chains of two batches, small enough to check by hand, after a change to them."""
    kind, sender, receiver, amount = (np.array(column) for column in zip(*TRANSACTIONS, strict=True))
    fields: dict[str, Any] = {
        "balances": np.array(STATES),
        "supply_nano": np.array([1110, 722]),
        "shard_kind": np.array([1, 4], dtype=np.uint8),
        "kind": kind.astype(np.uint8),
        "sender": sender.astype(np.uint16),
        "receiver": receiver.astype(np.uint16),
        "amount_nano": amount,
        "counts": np.array(COUNTS),
    }
    change(fields)
    with pytest.MonkeyPatch.context() as patch:
        if unchecked:  # what the writer itself would refuse
            patch.setattr(writer, "_check", lambda _block, **_: None)
        write_ledger(
            path,
            [ChainBlock(**fields)],
            chains=2,
            steps=2,
            accounts=4,
            seed=0,
            profile="live",
            generator="test/1",
        )
    return path


def put(name: str, place: int | tuple[int, ...], value: int) -> Callable[[dict[str, Any]], object]:
    return lambda fields: fields[name].__setitem__(place, value)


def both(*changes: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda fields: [change(fields) for change in changes]


def test_sound_ledger_by_hand(tmp_path: Path) -> None:
    report = verify_ledger(write(tmp_path / "a"))
    assert (report.chains, report.samples, report.transactions) == (2, 4, 6)
    assert (report.transfers, report.mints, report.burns) == (4, 1, 1)
    # Buckets change at accounts {0, 1, 2}, {3}, {0} and {2, 3}; 404 is in the quarter octave of 400.
    assert report.median_changed == pytest.approx((0.25 + 0.5) / 2)
    # Moved: 900 / 1110, 7 / 1110, 100 / 722, 10 / 722; the median lies between the second and the third smallest.
    assert report.median_moved == pytest.approx((10 / 722 + 100 / 722) / 2)
    assert report.rich_share == pytest.approx((1000 / 1110 + 500 / 722) / 2)


@pytest.mark.parametrize("values_per_block", [1, 2**20])
def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values_per_block: int) -> None:
    expected = verify_ledger(write(tmp_path / "a"))
    monkeypatch.setattr(invariants, "BLOCK_VALUES", values_per_block)
    assert verify_ledger(tmp_path / "a") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("balances", (1, 1, 2), -20), "chain 1, state 1: a balance is -20 NANO, expected at least 0"),
        (
            put("balances", (0, 2, 0), 2**62),
            "chain 0, state 2: balances sum to 4.612e+18, expected at most 10000000000000000 NANO",
        ),
        (
            put("supply_nano", 1, 723),
            "chain 1: the balances at step 0 sum to 722 NANO, expected 723 (chain/supply_nano)",
        ),
        (
            put("balances", (0, 2, 3), 8),
            "chain 0, step 1: the supply changes by 8 NANO, expected 7 (mints less burns)",
        ),
        (
            put("amount_nano", 3, 99),
            "chain 1, step 0: the supply changes by -100 NANO, expected -99 (mints less burns)",
        ),
        (
            both(put("balances", (1, 2, 0), 403), put("balances", (1, 2, 1), 201)),
            "chain 1, step 1: account 0 has 403 NANO after the batch, expected 404",
        ),
        (
            put("amount_nano", 0, 300),
            "chain 0, step 0: transaction 1 spends 450 NANO of account 1, expected at most the 400 it has",
        ),
        (
            put("receiver", 4, 1),
            "chain 1, step 1: account 0 has 404 NANO after the batch, expected 399",
        ),
        (put("kind", 5, 3), "chain 1, step 1: transaction 1: kind is 3, expected 0, 1 or 2"),
        (put("sender", 1, 4), "chain 0, step 0: transaction 1: sender is 4, expected an account below 4"),
        (put("sender", 0, NOBODY), "chain 0, step 0: transaction 0: sender is 65535, expected an account below 4"),
        (put("sender", 2, 0), "chain 0, step 1: transaction 0: sender of a mint is 0, expected 65535 (nobody)"),
        (put("receiver", 2, NOBODY), "chain 0, step 1: transaction 0: receiver is 65535, expected an account below 4"),
        (put("receiver", 3, 2), "chain 1, step 0: transaction 0: receiver of a burn is 2, expected 65535 (nobody)"),
        (
            put("receiver", 0, 0),
            "chain 0, step 0: transaction 0: receiver is 0, expected another account than the sender",
        ),
        (
            put("amount_nano", 5, 0),
            "chain 1, step 1: transaction 1: amount_nano is 0, expected 1 to 10000000000000000",
        ),
        (
            both(put("counts", (0, 0), 3), put("counts", (0, 1), 0)),
            "chain 0, step 1: its batch begins at transaction 3 and ends before 3, expected at least one transaction "
            "of the file's 6",
        ),
        (
            both(put("counts", (0, 0), 1), put("counts", (0, 1), 2)),
            "chain 0, step 1: transaction 0 spends 450 NANO of account 1, expected at most the 50 it has",
        ),
    ],
)
def test_broken_invariant(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(DataError) as error:
        verify_ledger(write(tmp_path / "a", change, unchecked=True))
    assert str(error.value) == f"{tmp_path / 'a'}: {message}"


def test_transactions_of_no_batch(tmp_path: Path) -> None:
    def add(fields: dict[str, Any]) -> None:
        for name in ("kind", "sender", "receiver", "amount_nano"):
            fields[name] = np.append(fields[name], fields[name][-1:])

    with pytest.raises(DataError, match=r"its batches hold 6 transactions, expected all 7$"):
        verify_ledger(write(tmp_path / "a", add))


def test_a_sound_change_still_breaks_the_recorded_hash(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a"), "r+") as file:
        file["balances"][0, 2] += np.array([0, 0, 0, 1])
        file["tx/amount_nano"][2] = 8
    with pytest.raises(DataError, match=r"chain 0: its content hashes to [0-9a-f]{64}, expected [0-9a-f]{64}$"):
        verify_ledger(tmp_path / "a")


@pytest.mark.parametrize("place", [0, 1, 8])
def test_tokens_that_differ_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    def broken(balances: IntArray) -> IntArray:
        sequences = tokens(balances)
        sequences[0, 1, place] += 1
        return sequences

    monkeypatch.setattr(invariants, "tokens", broken)
    with pytest.raises(DataError, match=r"chain 0, step 0: tokens differ elsewhere than at the accounts whose bucket"):
        verify_ledger(write(tmp_path / "a"))


def test_batches_that_change_too_little(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        verify_ledger(write(tmp_path / "a"), min_changed=0.5)
    assert str(error.value) == (
        f"{tmp_path / 'a'}: in the median batch 0.3750 of the accounts change bucket, expected at least 0.5"
    )
