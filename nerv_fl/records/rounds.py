"""What a round leaves behind: the records of `rounds.jsonl`."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from nerv_fl.errors import DataError
from nerv_fl.records.standing import Drift, EncoderStanding, Homomorphism, MaskedCrossEntropy, Standing
from nerv_fl.records.text import read_text

STOPPED: Final = "stopped"
"""Key of `manifest.json`: why a run stopped for want of updates; null or missing in any other run."""
FINAL_CLOSED: Final = "final_closed"
"""Key of `manifest.json`: why the final pool was not opened after the last round; null or missing in any other run."""


@dataclass(frozen=True, kw_only=True)
class EpsilonSpread:
    """Privacy spent so far over all nodes: (epsilon, delta) per unit, Poisson sampling, PRV accountant.

    `min`, `median` and `max` are null where there is no privacy mechanism: epsilon is then infinite. `mechanism` says
    how the mechanism differs from the protocol's; a record of the protocol's has no such key.
    """

    min: float | None
    median: float | None
    max: float | None
    delta: float
    mechanism: str = ""


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
    model that stands after the round, on the fixed monitor samples; a task other than the encoder has `measures` in
    their place, by name, and what trivial models reach in `trivial`. `pool_nano` is the round's own pool and
    `carried_nano` what earlier rounds left over; an accepted round that pays, pays their sum.
    `faults` counts the nodes lost to simulated faults, by fate; null where none are simulated. `failures` counts the
    nodes of a simulation that failed, by reason; null where none did, and in a deployment, whose nodes keep theirs.
    """

    round: int
    accepted: bool
    reason: str
    step: float
    homomorphism: Homomorphism | None
    drift: Drift | None
    residual_share: float | None
    effective_rank: float | None
    loss: float
    masked_ce: MaskedCrossEntropy | None
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
    measures: Mapping[str, float] = field(default_factory=dict)
    trivial: Mapping[str, float] = field(default_factory=dict)
    faults: Mapping[str, int] | None = None
    failures: Mapping[str, int] | None = None

    @property
    def standing(self) -> Standing:
        """The measures of the model that stands."""
        return Standing(**{item.name: getattr(self, item.name) for item in fields(Standing)})

    @property
    def encoder(self) -> EncoderStanding:
        """The measures that only an encoder has; DataError if the run is another task's."""
        return self.standing.encoder


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


def final_measures(manifest: Mapping[str, Any], *, round_number: int, model_hash: str) -> bool:
    """Return whether the final pool measured this model: not if the run was extended or set back after it was opened.

    Runs of versions that recorded no round could not be extended, so their pool measured the last model.
    """
    opened = manifest.get("final_round", round_number), manifest.get("final_model_hash", model_hash)
    return opened == (round_number, model_hash)


def to_json(record: RoundRecord) -> str:
    """Return a record as one line of JSON, without its newline."""
    table = asdict(record)
    if record.epsilon is not None and not record.epsilon.mechanism:
        del table["epsilon"]["mechanism"]
    return json.dumps(table, separators=(",", ":"), allow_nan=False)


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
    lines = read_text(path).splitlines()
    return [round_from_json(line, source=f"{path} line {number}") for number, line in enumerate(lines, 1)]


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
