"""A plausible fake run folder, so that the report is tested without a run."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nerv_fl.config import FederationConfig, RunConfig, to_toml
from nerv_fl.records import (
    Drift,
    EpsilonSpread,
    GateSummary,
    Homomorphism,
    MaskedCrossEntropy,
    NodeCounts,
    RewardRow,
    RoundRecord,
    Seconds,
    ShapleySummary,
    ValueSummary,
    rewards_to_csv,
    to_json,
)

POOL_NANO = 93_632_876_712_328_767
REASONS = {
    6: "p-value 0.21 is above 0.05",
    11: "34 of 50 nodes heard, expected at least 35",
    15: "masked cross-entropy ratio 1.013 is above 1.01",
}


@dataclass(frozen=True, kw_only=True)
class FakeRun:
    """What a fake run writes; a test changes what it needs."""

    config: RunConfig
    rounds: list[RoundRecord]
    rewards: list[RewardRow]
    manifest: dict[str, object]

    def write(self, folder: Path) -> Path:
        """Write the run folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(to_toml(self.config))
        (folder / "manifest.json").write_text(json.dumps(self.manifest))
        (folder / "rounds.jsonl").write_text("".join(f"{to_json(record)}\n" for record in self.rounds))
        (folder / "rewards.csv").write_text(rewards_to_csv(self.rewards, header=True))
        return folder


def make_run(
    *, num_rounds: int = 20, recorded: int | None = None, num_nodes: int = 100, cohort: int = 50,
    reasons: dict[int, str] = REASONS, name: str = "quickstart",
) -> FakeRun:  # fmt: skip
    """Return a run of `recorded` of `num_rounds` rounds, the ones in `reasons` rejected."""
    generator = np.random.default_rng(7)
    recorded = num_rounds if recorded is None else recorded
    federation = FederationConfig(num_nodes=num_nodes, cohort_size=cohort, num_rounds=num_rounds)
    rounds, rewards, carried, progress = [_bootstrap()], [], 0, 0.0
    for number in range(1, recorded + 1):
        accepted = number not in reasons
        progress += accepted * (1.6 / 20) / (1 + 0.4 * progress)
        record = _round(rounds[0], number, progress=progress, reason=reasons.get(number), generator=generator)
        record = replace(record, carried_nano=carried)
        rewards += _rewards(record, generator=generator, num_nodes=num_nodes, cohort=cohort)
        carried = 0 if accepted else carried + POOL_NANO
        rounds.append(record)
    config = RunConfig(name=name, federation=federation)
    return FakeRun(config=config, rounds=rounds, rewards=rewards, manifest=_manifest(complete=recorded == num_rounds))


def _bootstrap() -> RoundRecord:
    return RoundRecord(
        round=0, accepted=True, reason="bootstrap", step=0.0,
        homomorphism=Homomorphism(max=6.66e-16, p999=4.4e-16, mean=9.3e-17, bound=1e-9, n=30_000, violations=0),
        drift=Drift(mean=8.8e-4, relative=0.217, ratio=0.272, max=3.9e-3),
        residual_share=1.42e-2, effective_rank=29.3, loss=3.7604,
        masked_ce=MaskedCrossEntropy(value=3.7312, unigram=3.7251, per_account=3.0514),
        epsilon=None, nodes=None, shapley=None, gate=None, value=None, pool_nano=0, carried_nano=0,
        seconds=Seconds(train=0.0, open=0.0, aggregate=0.0, shapley=0.0, gate=0.0, report=0.4, total=2.1),
        model_hash="5f" * 32,
    )  # fmt: skip


def _round(
    start: RoundRecord, number: int, *, progress: float, reason: str | None, generator: np.random.Generator
) -> RoundRecord:
    shrink = float(np.exp(-progress))
    drift, noise = start.encoder.drift, float(generator.normal())
    spent = 3.2 + 0.14 * number
    heard = 34 if reason and "heard" in reason else 50
    stages = {"train": 4.1 + 0.2 * noise, "open": 0.31, "aggregate": 0.12, "shapley": 2.2, "gate": 1.9, "report": 0.05}
    return replace(
        start,
        round=number,
        accepted=reason is None,
        reason=reason or "accepted",
        step=0.0 if reason else float(generator.choice([0.25, 0.5, 1.0, 2.0])),
        homomorphism=replace(start.encoder.homomorphism, max=float(generator.uniform(5e-16, 8e-16))),
        drift=Drift(
            mean=drift.mean * shrink, relative=drift.relative * (0.4 + 0.6 * shrink),
            ratio=0.272 + 0.002 * noise, max=drift.max * shrink * (1 + 0.05 * abs(noise)),
        ),
        residual_share=start.encoder.residual_share * shrink**1.2,
        effective_rank=start.encoder.effective_rank + 0.3 * progress,
        loss=start.loss - 0.028 * progress,
        masked_ce=replace(start.encoder.masked_ce, value=start.encoder.masked_ce.value - 0.012 * progress),
        epsilon=EpsilonSpread(min=spent * 0.93, median=spent, max=spent * 1.03, delta=1e-5),
        nodes=NodeCounts(sampled=50, heard=heard, admitted=heard - 1, refused={"bad signature": 1}, clones=number % 2),
        shapley=None if reason else ShapleySummary(method="surrogate", evaluations=128, se_max=2.1e-5, stop="budget"),
        gate=GateSummary(p_value=0.21 if reason else 1e-4 * number, relative_drift=0.97, rank_ratio=1.001),
        value=None if reason else ValueSummary(total=2.4e-3, empty=6.1e-4),
        pool_nano=POOL_NANO,
        seconds=Seconds(**stages, total=sum(stages.values()) + 0.35),
        model_hash=f"{number:02x}" * 32,
    )  # fmt: skip


def _rewards(record: RoundRecord, *, generator: np.random.Generator, num_nodes: int, cohort: int) -> list[RewardRow]:
    nodes = sorted(generator.choice(num_nodes, size=cohort, replace=False).tolist())
    values = generator.normal(4.8e-5, 2.4e-5, size=cohort)
    errors = generator.uniform(0.9e-5, 1.6e-5, size=cohort)
    shares = np.maximum(values - 1.28 * errors, 0)
    if not record.accepted:
        return [_row(record, node, flag="") for node in nodes]
    total = record.pool_nano + record.carried_nano
    payouts = [int(total * float(share)) for share in shares / shares.sum()]
    payouts[int(np.argmax(payouts))] += total - sum(payouts)
    rows = [
        replace(_row(record, node, flag=""), value=value, se=error, ci_low=value - 1.96 * error,
                ci_high=value + 1.96 * error, payout_nano=payout)
        for node, value, error, payout in zip(nodes, values.tolist(), errors.tolist(), payouts, strict=True)
    ]  # fmt: skip
    unpaid = next((index for index, row in enumerate(rows) if row.payout_nano == 0), None)
    if unpaid is not None:
        rows[unpaid] = _row(record, rows[unpaid].node, flag="clone")
    return rows


def _row(record: RoundRecord, node: int, *, flag: str) -> RewardRow:
    return RewardRow(
        round=record.round, node=node, value=None, se=None, ci_low=None, ci_high=None,
        reputation=0.3 + 0.01 * record.round, payout_nano=0, flag=flag,
    )  # fmt: skip


def _manifest(*, complete: bool) -> dict[str, object]:
    manifest: dict[str, object] = {
        "schema_version": 1,
        "versions": {"nerv_fl": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "flwr": "1.41.0", "ray": "2.55.1"},
        "seed": 7,
        "hashes": {"data": "9c" * 32, "code": "41" * 32, "config": "e7" * 32},
        "references": {
            "random_weights": {
                "homomorphism": {"max": 5.6e-16}, "drift": {"mean": 0.211, "relative": 4.1, "ratio": 0.93, "max": 0.6},
                "residual_share": 0.71, "effective_rank": 61.2, "loss": 28.71, "masked_ce": {"value": 6.93},
            },
            "v_alone": {
                "homomorphism": {"max": 6.7e-16}, "drift": {"mean": 0.0, "relative": 0.0, "ratio": None, "max": 0.0},
                "residual_share": 0.0, "effective_rank": 29.4, "loss": None, "masked_ce": None,
            },
        },
    }  # fmt: skip
    if complete:
        manifest["final"] = {
            "loss_before": 3.7611, "loss_after": 3.7283, "difference": -0.0328, "ci_low": -0.0411, "ci_high": -0.0246,
            "chains": 1024, "confidence": 0.95, "drift_before": 8.9e-4, "drift_after": 2.7e-4,
        }  # fmt: skip
    return manifest
