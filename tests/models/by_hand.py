"""Transactions by hand, and the integer numerator in Python's integers, which have no largest one."""

from dataclasses import dataclass

import numpy as np

from nerv_fl.data import Batches, Samples
from nerv_fl.models.homomorphism import Numerator
from nerv_fl.tokens import BURN, MAX_SUPPLY_NANO, MINT, NO_ACCOUNT, TRANSFER


@dataclass(frozen=True)
class Transaction:
    kind: int
    sender: int
    receiver: int
    amount_nano: int


def transfer(sender: int, receiver: int, amount_nano: int) -> Transaction:
    return Transaction(TRANSFER, sender, receiver, amount_nano)


def mint(receiver: int, amount_nano: int) -> Transaction:
    return Transaction(MINT, NO_ACCOUNT, receiver, amount_nano)


def burn(sender: int, amount_nano: int) -> Transaction:
    return Transaction(BURN, sender, NO_ACCOUNT, amount_nano)


def make_batches(batches: list[list[Transaction]]) -> Batches:
    flat = [transaction for batch in batches for transaction in batch]
    return Batches(
        kind=np.array([item.kind for item in flat], dtype=np.uint8),
        sender=np.array([item.sender for item in flat], dtype=np.uint16),
        receiver=np.array([item.receiver for item in flat], dtype=np.uint16),
        amount_nano=np.array([item.amount_nano for item in flat], dtype=np.int64),
        offset=np.cumsum([0, *map(len, batches)]),
    )


def carry_out(balances: list[int], batch: list[Transaction]) -> list[int]:
    state = list(balances)
    for item in batch:
        if item.sender != NO_ACCOUNT:
            state[item.sender] -= item.amount_nano
        if item.receiver != NO_ACCOUNT:
            state[item.receiver] += item.amount_nano
    return state


def make_samples(
    before: list[list[int]], batches: list[list[Transaction]], *, supply: int = MAX_SUPPLY_NANO
) -> Samples:
    after = [carry_out(state, batch) for state, batch in zip(before, batches, strict=True)]
    num_samples = len(before)
    return Samples(
        before=np.array(before, dtype=np.int64),
        after=np.array(after, dtype=np.int64),
        supply_nano=np.full(num_samples, supply),
        chain=np.arange(num_samples),
        step=np.zeros(num_samples, dtype=np.int64),
        batches=make_batches(batches),
    )


def integers(numerator: Numerator) -> list[list[int]]:
    """Return the numerators as Python integers, and check their form."""
    assert ((numerator.low >= 0) & (numerator.low < 2**36)).all()
    return [
        [int(high) * 2**36 + int(low) for high, low in zip(*row, strict=True)]
        for row in zip(numerator.high.tolist(), numerator.low.tolist(), strict=True)
    ]


def exact_state(balances: list[int], table: list[list[int]]) -> list[int]:
    return [
        sum(balance * row[column] for balance, row in zip(balances, table, strict=True))
        for column in range(len(table[0]))
    ]


def exact_delta(batch: list[Transaction], table: list[list[int]]) -> list[int]:
    total = [0] * len(table[0])
    for item in batch:
        for column in range(len(total)):
            if item.receiver != NO_ACCOUNT:
                total[column] += item.amount_nano * table[item.receiver][column]
            if item.sender != NO_ACCOUNT:
                total[column] -= item.amount_nano * table[item.sender][column]
    return total
