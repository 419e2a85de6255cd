"""The card of a ledger: its counts and measures, and figures of a sample of its chains.

Shapes: C chains of a block, S steps, A accounts.
"""

from pathlib import Path
from typing import Final

import numpy as np

from datagen.card import Card, Table
from datagen.ledger.roles import num_rich
from datagen.ledger_checks import LedgerReport
from datagen.plots import Labels, Line, Mark, histogram, lines
from nerv_fl.data import ChainBlock, Ledger, open_ledger
from nerv_fl.errors import DataError
from nerv_fl.tokens import MAX_BATCH, NUM_BUCKETS, SHARD_KINDS, bucket, sequence_length
from nerv_fl.types import FloatArray

SAMPLED_CHAINS: Final = 512
CURVE: Final = np.linspace(0, 1, 101)
CHANGED_BINS: Final = 40
LEDGER_CAVEATS: Final = (
    "It is synthetic: a program drew every account, balance and payment from a seed. None of them is, or stands for, "
    "a real person, company or payment.",
    "It is not evidence about any real ledger: how often accounts pay, how much, and how unequal they are, are choices "
    "of the generator. A model that does well here need not do well on real payments.",
    "It is not a sample of people, so nothing about fairness, fraud or credit can be concluded from it.",
    "Nothing in it needs protecting: training on it, by whatever method, shows nothing about protecting real data.",
    "Samples of one chain follow each other and are not independent: split training from test data by chain.",
)


def ledger_card(path: Path, report: LedgerReport, *, command: str) -> Card:
    """Return the card of a ledger.

    Args:
        path: The ledger: a file, or a folder of parts.
        report: What `verify_ledger` found in it.
        command: The exact command that makes it.

    Raises:
        DataError: If the ledger is damaged, or not the one that the report is about.

    Guarantees:
        Tables tell of every chain; figures of up to 512, evenly spread over the ledger.
    """
    with open_ledger(path) as ledger:
        info = ledger.info
        if info.content_sha256 != report.content_sha256:
            raise DataError(f"{path}: its content_sha256 is {info.content_sha256}, expected {report.content_sha256}")
        sample = _Sample(ledger)
        return Card(
            title=f"Synthetic ledger {path.name}",
            what=(
                f"{info.chains:,} chains of {info.steps} batches of payments between {info.accounts:,} accounts "
                f"(profile `{info.profile}`), each with the balances before and after every batch, in NANO "
                "(10⁻⁹ NERV). Made to train and test encoders of ledger states."
            ),
            generator=info.generator,
            command=command,
            seed=info.seed,
            content_sha256=info.content_sha256,
            sections=(_contents(report), _measures(report, num_accounts=info.accounts), _shards(ledger)),
            figures=sample.figures(),
            caveats=(
                *LEDGER_CAVEATS,
                f"The figures show {sample.num_chains:,} of its {info.chains:,} chains; the tables tell of all.",
            ),
        )


class _Sample:
    """What the figures show: sums over evenly spread chains, read one at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self.num_chains = min(SAMPLED_CHAINS, ledger.info.chains)
        self._accounts, self._rich = ledger.info.accounts, num_rich(ledger.info.accounts)
        self._lorenz, self._rich_share = np.zeros_like(CURVE), 0.0
        self._changed = np.zeros(self._accounts + 1, dtype=np.int64)
        self._sizes = np.zeros(MAX_BATCH + 1, dtype=np.int64)
        self._buckets = np.zeros(NUM_BUCKETS, dtype=np.int64)
        for chain in np.arange(self.num_chains) * ledger.info.chains // self.num_chains:
            self._add(ledger.read_chains(int(chain), int(chain) + 1))

    def _add(self, block: ChainBlock) -> None:
        buckets, opening = bucket(block.balances[0]), np.sort(block.balances[0, 0]).astype(np.float64)
        self._lorenz += lorenz(opening) / self.num_chains
        self._rich_share += opening[-self._rich :].sum() / max(opening.sum(), 1.0) / self.num_chains
        changed = (buckets[1:] != buckets[:-1]).sum(axis=1)
        self._changed += np.bincount(changed, minlength=len(self._changed))
        self._sizes += np.bincount(block.counts[0], minlength=len(self._sizes))
        self._buckets += np.bincount(buckets.reshape(-1), minlength=NUM_BUCKETS)

    def figures(self) -> dict[str, bytes]:
        """Return the SVG images by name."""
        most, used = np.flatnonzero(self._sizes)[-1] + 1, np.flatnonzero(self._buckets)[-1] + 1
        return {
            "opening-balances": self._draw_lorenz(),
            "changed-accounts": self._draw_changed(),
            "batch-sizes": histogram(
                self._sizes[1:most],
                edges=np.arange(1, most + 1, dtype=np.float64) - 0.5,
                labels=Labels(title="How large batches are", x="transactions of a batch", y="batches"),
            ),
            "buckets": histogram(
                100 * self._buckets[:used] / self._buckets.sum(),
                edges=np.arange(used + 1, dtype=np.float64) - 0.5,
                labels=Labels(
                    title="How balances fill the buckets",
                    x="bucket (4 to an octave of NANO; 0 is a balance of 0)",
                    y="% of balances",
                ),
            ),
        }

    def _draw_lorenz(self) -> bytes:
        poor = 1 - self._rich / self._accounts
        text = f"the richest fifth hold {self._rich_share:.1%}"
        return lines(
            [Line(name="this ledger", x=CURVE, y=self._lorenz), Line(name="all equal", x=CURVE, y=CURVE, dashed=True)],
            labels=Labels(
                title="Who holds the supply at step 0",
                x="poorest accounts (part of all)",
                y="part of the supply they hold",
            ),
            marks=[Mark(x=poor, y=1 - self._rich_share, text=text)],
        )

    def _draw_changed(self) -> bytes:
        """Draw the changed accounts in bins of as many accounts each, so that none is empty by rounding."""
        most = int(np.flatnonzero(self._changed)[-1]) + 1
        width = -(-most // CHANGED_BINS)
        starts = np.arange(0, most, width)
        counts = np.add.reduceat(self._changed[:most], starts)
        ranked = np.repeat(np.arange(most), self._changed[:most])
        return histogram(
            counts,
            edges=(np.append(starts, starts[-1] + width) - 0.5) * (100 / self._accounts),
            marked=float(np.median(ranked)) * 100 / self._accounts,
            labels=Labels(title="How much a batch changes", x="accounts whose bucket changes (% of all)", y="batches"),
        )


def lorenz(balances: FloatArray) -> FloatArray:
    """Return the part of all that the poorest p of the accounts hold, for p = 0, 0.01, ..., 1.

    Args:
        balances: float64 [A], NANO; whole numbers, and where all are 0, so is every part.

    >>> lorenz(np.array([3.0, 1.0]))[[0, 50, 100]].tolist()
    [0.0, 0.25, 1.0]
    """
    held = np.concatenate([[0.0], np.cumsum(np.sort(balances))])
    curve: FloatArray = np.interp(CURVE, np.linspace(0, 1, len(held)), held / max(held[-1], 1.0))
    return curve


def _contents(report: LedgerReport) -> Table:
    counts = {"chains": report.chains, "samples (state, batch, state)": report.samples}
    kinds = {"transfers": report.transfers, "mints": report.mints, "burns": report.burns}
    return Table(
        title="Contents",
        header=("what", "number", "part"),
        numbers=(1, 2),
        rows=(
            *((name, f"{count:,}", "") for name, count in counts.items()),
            ("transactions", f"{report.transactions:,}", "100 %"),
            *((name, f"{count:,}", f"{100 * count / report.transactions:.2f} %") for name, count in kinds.items()),
        ),
    )


def _measures(report: LedgerReport, *, num_accounts: int) -> Table:
    tokens_changed = report.median_changed * num_accounts / sequence_length(num_accounts)
    return Table(
        title="Measures",
        header=("measure", "value", "how it is measured"),
        rows=(
            (
                "share of the richest 20 %",
                f"{report.rich_share:.2%}",
                f"held by {num_rich(num_accounts)} of {num_accounts} accounts at step 0, mean over chains",
            ),
            ("accounts that change bucket", f"{report.median_changed:.2%}", "of all, in the median batch"),
            ("tokens that change", f"{tokens_changed:.2%}", "of a state's 1 + 2A, in the median batch"),
            ("balance that moves", f"{report.median_moved:.2%}", "sum of changes over the supply, median batch"),
            ("unigram cross-entropy", f"{report.unigram_ce:.4f} nats", "of a bucket, all accounts together"),
            ("per-account cross-entropy", f"{report.account_ce:.4f} nats", "frequencies of even chains, scored on odd"),
            ("uniform cross-entropy", f"{np.log(NUM_BUCKETS):.4f} nats", f"of a guess among {NUM_BUCKETS} buckets"),
        ),
    )


def _shards(ledger: Ledger) -> Table:
    counts = np.bincount(ledger.shard_kinds(), minlength=len(SHARD_KINDS))
    rows = tuple((name, f"{count:,}") for name, count in zip(SHARD_KINDS, counts, strict=True))
    return Table(title="Kinds of shard", header=("kind", "chains"), rows=rows)
