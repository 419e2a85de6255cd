"""What a round leaves behind: the records of `rounds.jsonl` and `rewards.csv`.

Other programs read these files; a field's name, unit and meaning are a contract. A number that does not exist (no
update was heard, nothing was valued) is null, never zero.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from nerv_fl.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Homomorphism:
    """Error of the affine encoder's float64 arithmetic, max-abs over coordinates, on `n` batches.

    `violations` counts batches above `bound` in float64 or different from 0 in integers. Random weights pass it too.
    """

    max: float
    p999: float
    mean: float
    bound: float
    n: int
    violations: int


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Homomorphism error of the transformer itself: mean, mean / mean |sum delta|, over unrelated states, and max."""

    mean: float
    relative: float
    ratio: float
    max: float


@dataclass(frozen=True, kw_only=True)
class MaskedCrossEntropy:
    """Cross-entropy of masked balances in nats, beside the two trivial models on the same positions."""

    value: float
    unigram: float
    per_account: float


@dataclass(frozen=True, kw_only=True)
class EpsilonSpread:
    """Privacy spent so far over all nodes: (epsilon, delta) per step record, Poisson sampling, PRV accountant."""

    min: float
    median: float
    max: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class NodeCounts:
    """Nodes of a round; `refused`, and `flagged` for valid updates that were left out, map a reason to its count."""

    sampled: int
    heard: int
    admitted: int
    refused: Mapping[str, int]
    clones: int
    flagged: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShapleySummary:
    """How the round was valued; largest standard errors: whole, the sample's alone, the estimator's alone."""

    method: str
    evaluations: int
    se_max: float | None
    stop: str
    se_sample_max: float | None = None
    se_estimator_max: float | None = None


@dataclass(frozen=True, kw_only=True)
class GateSummary:
    """The certify pool's p-value (one-sided, paired), ratios after / before, and step 1's change of the search loss."""

    p_value: float | None
    relative_drift: float | None
    rank_ratio: float | None
    ungated: float | None = None


@dataclass(frozen=True, kw_only=True)
class ValueSummary:
    """Utility of the whole cohort over the empty coalition, and of the empty coalition over no step at all."""

    total: float | None
    empty: float | None


@dataclass(frozen=True, kw_only=True)
class RewardsSummary:
    """What a round paid and took back, and how unequally: Gini of the cohort's payouts, null if none was made."""

    paid_nano: int
    slashed_nano: int
    gini: float | None


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Wall time of a round's stages.

    `report` is measuring the encoder that stands, and writing the records of the round before: this round's own are
    written after it is known.
    """

    train: float
    open: float
    aggregate: float
    shapley: float
    gate: float
    report: float
    total: float


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One line of `rounds.jsonl`; round 0 is the bootstrap.

    `step` is the accepted step of the server's direction (0: none). `loss`, `drift` and their companions describe the
    encoder that stands after the round, on the fixed monitor samples. `pool_nano` is the round's own pool and
    `carried_nano` what earlier rounds left over; an accepted round that pays, pays their sum.
    """

    round: int
    accepted: bool
    reason: str
    step: float
    homomorphism: Homomorphism
    drift: Drift
    residual_share: float
    effective_rank: float
    loss: float
    masked_ce: MaskedCrossEntropy
    epsilon: EpsilonSpread | None
    nodes: NodeCounts | None
    shapley: ShapleySummary | None
    gate: GateSummary | None
    value: ValueSummary | None
    pool_nano: int
    carried_nano: int
    seconds: Seconds
    model_hash: str
    rewards: RewardsSummary | None = None


@dataclass(frozen=True, kw_only=True)
class RewardRow:
    """One line of `rewards.csv`: what a node's update was worth in a round, and what it was paid.

    `value`, `se` and the two-sided 95 % interval are in units of loss (nats); `reputation` is the one the payout used;
    `flag` is empty, or "clone", or why the update was refused or left out.
    """

    round: int
    node: int
    value: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    reputation: float
    payout_nano: int
    flag: str


@dataclass(frozen=True, kw_only=True)
class FinalPool:
    """The final pool, opened once: the bootstrap's encoder against the last one, on chains unseen till then.

    `difference` is loss_after - loss_before, with its paired two-sided interval over chains.
    """

    loss_before: float
    loss_after: float
    difference: float
    ci_low: float
    ci_high: float
    chains: int
    confidence: float
    drift_before: float | None = None
    drift_after: float | None = None

    @property
    def improved(self) -> bool:
        """Whether the loss fell and the paired interval excludes 0."""
        return self.loss_after < self.loss_before and not self.ci_low <= 0 <= self.ci_high


REWARD_COLUMNS = tuple(item.name for item in fields(RewardRow))


def to_json(record: RoundRecord) -> str:
    """Return a record as one line of JSON, without its newline."""
    return json.dumps(asdict(record), separators=(",", ":"), allow_nan=False)


def round_from_json(line: str, *, source: str) -> RoundRecord:
    """Parse one line of `rounds.jsonl`.

    Args:
        line: The line.
        source: File name and line number, for the error.

    Raises:
        DataError: If the line is not a round record.
    """
    try:
        record: RoundRecord = _from_table(RoundRecord, json.loads(line))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{source} is not a round record: {error}") from error
    return record


def read_rounds(path: Path) -> list[RoundRecord]:
    """Read `rounds.jsonl`.

    Raises:
        DataError: If the file is missing or a line is not a round record.
    """
    lines = _read_text(path).splitlines()
    return [round_from_json(line, source=f"{path} line {number}") for number, line in enumerate(lines, 1)]


def rewards_to_csv(rows: Iterable[RewardRow], *, header: bool) -> str:
    """Return rows as CSV text; floats keep every bit, what does not exist is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(REWARD_COLUMNS)
    for row in rows:
        values = (getattr(row, name) for name in REWARD_COLUMNS)
        writer.writerow(
            ["" if value is None else repr(value) if isinstance(value, float) else value for value in values]
        )
    return text.getvalue()


def read_rewards(path: Path) -> list[RewardRow]:
    """Read `rewards.csv`.

    Raises:
        DataError: If the file is missing, or a column or a number is wrong.
    """
    rows = list(csv.reader(io.StringIO(_read_text(path))))
    if not rows or tuple(rows[0]) != REWARD_COLUMNS:
        raise DataError(f"{path} begins with {rows[:1]}, expected the columns {','.join(REWARD_COLUMNS)}")
    try:
        return [_reward_row(row) for row in rows[1:]]
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} holds a row that is not a reward: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _reward_row(row: Sequence[str]) -> RewardRow:
    cells = dict(zip(REWARD_COLUMNS, row, strict=True))
    number = {name: float(cells[name]) if cells[name] else None for name in ("value", "se", "ci_low", "ci_high")}
    return RewardRow(
        round=int(cells["round"]),
        node=int(cells["node"]),
        **number,
        reputation=float(cells["reputation"]),
        payout_nano=int(cells["payout_nano"]),
        flag=cells["flag"],
    )


def _from_table(kind: type[Any], table: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for item in fields(kind):
        is_optional = item.default is not MISSING or item.default_factory is not MISSING
        if is_optional and item.name not in table:
            continue
        value, hint = table[item.name], hints[item.name]
        section = next((part for part in (hint, *getattr(hint, "__args__", ())) if is_dataclass(part)), None)
        arguments[item.name] = _from_table(section, value) if section and value is not None else value  # type: ignore[arg-type]
    return kind(**arguments)
