"""Proof, by replay, that a ledger file is what it says: no NANO appears, vanishes, or is spent twice.

Shapes: C chains of a block, S steps, A accounts, M = C * S batches, N transactions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from datagen.statistics import Measures
from nerv_fl.data import Ledger, open_ledger
from nerv_fl.data.multi_file import chain_blocks
from nerv_fl.data.samples import ChainBlock, ContentDigest, chain_digests
from nerv_fl.errors import DataError
from nerv_fl.tokens import BUCKET_EDGES, BURN, MAX_BATCH, MAX_SUPPLY_NANO, MINT, NO_ACCOUNT, TRANSFER, tokens
from nerv_fl.types import BoolArray, IntArray

BLOCK_VALUES: Final = 2**20
SMALL_LEDGER: Final = 64
MIN_CHANGED_SMALL: Final = 0.10
MIN_CHANGED_LARGE: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class LedgerReport:
    """What a verified ledger file holds.

    Attributes:
        chains: Number of chains.
        samples: Number of batches.
        transactions: Number of transactions.
        transfers: How many of them are transfers.
        mints: How many are mints.
        burns: How many are burns.
        median_changed: Fraction of the accounts whose bucket changes, in the median batch.
        median_moved: Sum of the absolute changes of balance over the supply at step 0, in the median batch.
        rich_share: Part of the supply at step 0 that the richest fifth hold, mean over chains.
        unigram_ce: Cross-entropy of a bucket under the frequencies of all accounts together, nats.
        account_ce: The same under each account's own frequencies (of the even chains, scored on the odd ones), nats.
        content_sha256: Hash of every value, as recomputed.
    """

    chains: int
    samples: int
    transactions: int
    transfers: int
    mints: int
    burns: int
    median_changed: float
    median_moved: float
    rich_share: float
    unigram_ce: float
    account_ce: float
    content_sha256: str


def verify_ledger(
    path: str | Path, *, min_changed: float | None = None, progress: Callable[[int], None] | None = None
) -> LedgerReport:
    """Prove that a file is a sound ledger, or say where it is not.

    Args:
        path: The file.
        min_changed: Least fraction of accounts whose bucket changes in the median batch; None for 10 % up to 64
            accounts, 1 % above.
        progress: Told the number of chains of each block that is checked.

    Returns:
        Counts and measures of the file.

    Raises:
        DataError: If the file is not a ledger, or breaks an invariant; the message names chain and step.

    Guarantees:
        On return, in every chain: no balance is negative; the supply starts as recorded and changes only by mints and
        burns; the transactions, one after another, turn each state into the next, and no sender spends more than it
        has at that moment; tokens differ at exactly the accounts whose bucket changed.
    """
    with open_ledger(path) as ledger:
        measures, digest, recorded = Measures(ledger.info.accounts), ContentDigest(), ledger.chain_digests()
        for first, block in chain_blocks(ledger, max_values=BLOCK_VALUES):
            proof = _Proof(ledger.path, block=block, first=first)
            proof.check()
            measures.update(block, changed=proof.changed())
            digests = chain_digests(block)
            proof.check_digests(digests, recorded=recorded[first : first + len(digests)])
            digest.update(digests)
            if progress is not None:
                progress(len(digests))
        _check_whole(ledger, transactions=measures.transactions, content_sha256=digest.hexdigest())
        report = LedgerReport(
            chains=ledger.info.chains,
            samples=ledger.info.num_samples,
            transactions=measures.transactions,
            transfers=measures.kinds[TRANSFER],
            mints=measures.kinds[MINT],
            burns=measures.kinds[BURN],
            median_changed=measures.median_changed(),
            median_moved=measures.median_moved(),
            rich_share=measures.rich_share(),
            unigram_ce=measures.unigram_ce(),
            account_ce=measures.account_ce(),
            content_sha256=digest.hexdigest(),
        )
        _check_changed(ledger, report.median_changed, limit=min_changed)
    return report


class _Proof:
    """The invariants of one block of chains."""

    def __init__(self, path: Path, *, block: ChainBlock, first: int) -> None:
        self._path = path
        self._block = block
        self._first = first
        self._steps, self._accounts = block.counts.shape[1], block.balances.shape[2]
        self._before = block.balances[:, :-1].reshape(-1, self._accounts)
        self._after = block.balances[:, 1:].reshape(-1, self._accounts)
        self._counts = block.counts.reshape(-1)
        self._begins = np.cumsum(self._counts) - self._counts
        self._kind = block.kind.astype(np.int64)
        self._sender, self._receiver = block.sender.astype(np.int64), block.receiver.astype(np.int64)
        self._amount = block.amount_nano

    def check(self) -> None:
        """Raise at the first broken invariant."""
        self._check_balances()
        self._check_transactions()
        self._check_supply()
        self._check_replay()

    def check_digests(self, found: npt.NDArray[np.uint8], *, recorded: npt.NDArray[np.uint8]) -> None:
        """Raise at the first chain whose values do not hash to what the writer recorded."""
        for row in np.flatnonzero((found != recorded).any(axis=1))[:1]:
            raise DataError(
                f"{self._path}: chain {self._first + row}: its content hashes to {found[row].tobytes().hex()}, "
                f"expected {recorded[row].tobytes().hex()}"
            )

    def changed(self) -> BoolArray:
        """Return which accounts' buckets each batch changes, [M, A], once tokens are shown to say the same."""
        sequences = tokens(self._block.balances)
        old = sequences[:, :-1].reshape(len(self._before), -1)
        new = sequences[:, 1:].reshape(len(self._after), -1)
        held = old[:, 2::2] - 1 - self._accounts
        low = np.concatenate([[0], BUCKET_EDGES])[held]
        high = np.append(BUCKET_EDGES, np.iinfo(np.int64).max)[held]
        changed: BoolArray = (self._after < low) | (self._after >= high)
        differ = old != new
        wrong = differ[:, 0] | differ[:, 1::2].any(axis=1) | (differ[:, 2::2] != changed).any(axis=1)
        self._refuse(wrong, "tokens differ elsewhere than at the accounts whose bucket changed, expected exactly there")
        return changed

    def _check_balances(self) -> None:
        lowest = self._block.balances.min(axis=2)
        for row, state in np.argwhere(lowest < 0)[:1]:
            raise DataError(
                f"{self._path}: chain {self._first + row}, state {state}: a balance is {lowest[row, state]} NANO, "
                "expected at least 0"
            )
        # In float64 first, since a damaged balance can make the integer sum wrap around.
        rough = self._block.balances.sum(axis=2, dtype=np.float64)
        for row, state in np.argwhere(rough > 1.001 * MAX_SUPPLY_NANO)[:1]:
            raise DataError(
                f"{self._path}: chain {self._first + row}, state {state}: balances sum to {rough[row, state]:.3e}, "
                f"expected at most {MAX_SUPPLY_NANO} NANO"
            )
        supply = self._block.balances[:, 0].sum(axis=1)
        for row in np.flatnonzero(supply != self._block.supply_nano)[:1]:
            raise DataError(
                f"{self._path}: chain {self._first + row}: the balances at step 0 sum to {supply[row]} NANO, "
                f"expected {self._block.supply_nano[row]} (chain/supply_nano)"
            )

    def _check_transactions(self) -> None:
        """Check sizes of batches, and the kind, accounts and amount of each transaction by itself."""
        counts = self._counts
        self._refuse((counts < 1) | (counts > MAX_BATCH), f"the batch is empty or too large, expected 1 to {MAX_BATCH}")
        kind, sender, receiver, amount = self._kind, self._sender, self._receiver, self._amount
        account, nobody = f"an account below {self._accounts}", f"{NO_ACCOUNT} (nobody)"
        for wrong, name, values, expected in (
            (kind > BURN, "kind", kind, "0, 1 or 2"),
            ((kind != MINT) & (sender >= self._accounts), "sender", sender, account),
            ((kind == MINT) & (sender != NO_ACCOUNT), "sender of a mint", sender, nobody),
            ((kind != BURN) & (receiver >= self._accounts), "receiver", receiver, account),
            ((kind == BURN) & (receiver != NO_ACCOUNT), "receiver of a burn", receiver, nobody),
            (sender == receiver, "receiver", receiver, "another account than the sender"),
            ((amount < 1) | (amount > MAX_SUPPLY_NANO), "amount_nano", amount, f"1 to {MAX_SUPPLY_NANO}"),
        ):
            self._refuse_transactions(wrong, name=name, values=values, expected=expected)

    def _check_supply(self) -> None:
        """Check that each batch changes the supply by its mints less its burns, and keeps it in range."""
        flow = np.where(self._kind == MINT, self._amount, np.where(self._kind == BURN, -self._amount, 0))
        expected = np.add.reduceat(flow, self._begins)
        supply = self._after.sum(axis=1)
        found = supply - self._before.sum(axis=1)
        for batch in np.flatnonzero(found != expected)[:1]:
            raise DataError(
                f"{self._where(batch)}: the supply changes by {found[batch]} NANO, "
                f"expected {expected[batch]} (mints less burns)"
            )
        self._refuse(supply > MAX_SUPPLY_NANO, f"the supply exceeds its limit, expected at most {MAX_SUPPLY_NANO} NANO")

    def _check_replay(self) -> None:
        """Carry out every batch from the state before it, one transaction at a time, all batches side by side."""
        state = np.concatenate([self._before, np.zeros((len(self._before), 1), dtype=np.int64)], axis=1)
        for slot in range(self._counts.max()):
            batches = np.flatnonzero(self._counts > slot)
            at = self._begins[batches] + slot
            sender = np.minimum(self._sender[at], self._accounts)
            held, amount = state[batches, sender], self._amount[at]
            for poor in np.flatnonzero((held < amount) & (sender < self._accounts))[:1]:
                raise DataError(
                    f"{self._where(batches[poor])}: transaction {slot} spends {amount[poor]} NANO of account "
                    f"{sender[poor]}, expected at most the {held[poor]} it has"
                )
            state[batches, sender] -= amount
            state[batches, np.minimum(self._receiver[at], self._accounts)] += amount
        for batch, account in np.argwhere(state[:, :-1] != self._after)[:1]:
            raise DataError(
                f"{self._where(batch)}: account {account} has {self._after[batch, account]} NANO after the batch, "
                f"expected {state[batch, account]}"
            )

    def _refuse(self, wrong: BoolArray, message: str) -> None:
        if wrong.any():
            raise DataError(f"{self._where(int(wrong.argmax()))}: {message}")

    def _refuse_transactions(self, wrong: BoolArray, *, name: str, values: IntArray, expected: str) -> None:
        if wrong.any():
            place = int(wrong.argmax())
            batch = int(np.searchsorted(self._begins, place, side="right")) - 1
            slot = place - self._begins[batch]
            raise DataError(f"{self._where(batch)}: transaction {slot}: {name} is {values[place]}, expected {expected}")

    def _where(self, batch: int) -> str:
        chain, step = divmod(int(batch), self._steps)
        return f"{self._path}: chain {self._first + chain}, step {step}"


def _check_whole(ledger: Ledger, *, transactions: int, content_sha256: str) -> None:
    if transactions != ledger.num_transactions:
        raise DataError(
            f"{ledger.path}: its batches hold {transactions} transactions, expected all {ledger.num_transactions}"
        )
    if content_sha256 != ledger.info.content_sha256:
        raise DataError(f"{ledger.path}: its content hashes to {content_sha256}, expected {ledger.info.content_sha256}")


def _check_changed(ledger: Ledger, found: float, *, limit: float | None) -> None:
    if limit is None:
        limit = MIN_CHANGED_SMALL if ledger.info.accounts <= SMALL_LEDGER else MIN_CHANGED_LARGE
    if found < limit:
        raise DataError(
            f"{ledger.path}: in the median batch {found:.4f} of the accounts change bucket, expected at least {limit}"
        )
