"""Read a run folder into what the report shows."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from nerv_fl.config import RunConfig, build, flatten
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.records import (
    FINAL_CLOSED,
    STOPPED,
    FinalPool,
    RewardRow,
    RoundRecord,
    final_measures,
    read_rewards,
    read_rounds,
)

RUN_FILES: Final = "config.toml, manifest.json, rounds.jsonl and rewards.csv"
REFERENCES: Final = {"random_weights": "Random weights", "v_alone": "V alone"}
"""Keys of the manifest's reference rows, and what the report calls them."""
NOT_FACTS: Final = (
    "references",
    "final",
    "final_round",
    "final_model_hash",
    STOPPED,
    FINAL_CLOSED,
    "sha256",
    "sessions",
    "data_files",
)
"""Fields of the manifest that the report shows elsewhere, or not at all: a report may be published, hosts are not."""
ALWAYS: Final = ("loss", "seconds", "measures", "trivial")
"""Fields of a round that are numbers, or made of numbers, in every round."""
OF_ENCODERS: Final = ("homomorphism", "drift", "residual_share", "effective_rank", "masked_ce")
"""The same, in every round of an encoder."""


@dataclass(frozen=True, kw_only=True)
class ModelNumbers:
    """What is measured of one model; None where the measure does not exist for it. `measures` are another task's."""

    homomorphism_max: float | None
    drift: float | None
    relative: float | None
    ratio: float | None
    residual_share: float | None
    effective_rank: float | None
    loss: float | None
    masked_ce: float | None
    measures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder. `rewards` holds the rows of recorded rounds only; `facts` are the manifest's, by dotted key.

    `final_round` is the round whose model the final pool measured; None if that is the last model of the run.
    `roles` holds the attack of each simulated adversary, and its operator's first identity. `stopped` says why the run
    stopped for want of updates, `final_closed` why the final pool was not opened; each is empty in any other run.
    """

    config: RunConfig
    rounds: tuple[RoundRecord, ...]
    rewards: tuple[RewardRow, ...]
    references: Mapping[str, ModelNumbers]
    final: FinalPool | None
    final_round: int | None = None
    facts: Mapping[str, str]
    roles: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    stopped: str = ""
    final_closed: str = ""

    @cached_property
    def federated(self) -> tuple[RoundRecord, ...]:
        """The rounds of the federation: all but the bootstrap."""
        return tuple(record for record in self.rounds if record.round > 0)

    @cached_property
    def rejected(self) -> frozenset[int]:
        """Numbers of the rejected rounds."""
        return frozenset(record.round for record in self.federated if not record.accepted)

    @cached_property
    def paid_nano(self) -> Mapping[int, int]:
        """The sum of payouts of each round, in NANO."""
        paid = {record.round: 0 for record in self.rounds}
        for row in self.rewards:
            paid[row.round] += row.payout_nano
        return paid

    @property
    def is_encoder(self) -> bool:
        """Whether the model is the encoder, with drift and a bound."""
        return self.config.task == "encoder"

    @property
    def complete(self) -> bool:
        """Whether every round that was asked for is recorded."""
        return bool(self.rounds) and self.rounds[-1].round >= self.config.federation.num_rounds


def load_run(run_dir: Path) -> Run:
    """Read a run folder.

    Raises:
        DataError: If a file is missing, unreadable, or not what a run writes.
    """
    for name in ("config.toml", "manifest.json", "rounds.jsonl"):
        if not (run_dir / name).is_file():
            raise DataError(f"{run_dir / name} is missing, expected a run folder with {RUN_FILES}")
    manifest = _read_manifest(run_dir / "manifest.json")
    config = _read_config(run_dir / "config.toml")
    rounds = _read_rounds(run_dir / "rounds.jsonl", task=config.task)
    return Run(
        config=config,
        rounds=tuple(rounds),
        rewards=_read_rewards(run_dir / "rewards.csv", rounds=rounds),
        references=_references(manifest, source=run_dir / "manifest.json"),
        final=_final(manifest, source=run_dir / "manifest.json"),
        final_round=_final_round(manifest, rounds, source=run_dir / "manifest.json"),
        facts={key: _fact(value) for key, value in flatten(manifest).items() if not _shown_elsewhere(key)},
        roles=_read_roles(run_dir / "roster.json"),
        stopped=str(manifest.get(STOPPED) or ""),
        final_closed=str(manifest.get(FINAL_CLOSED) or ""),
    )


def numbers_of(record: RoundRecord) -> ModelNumbers:
    """Return what a round's record measured."""
    return _numbers(asdict(record))


def _read_config(path: Path) -> RunConfig:
    try:
        return build(flatten(tomllib.loads(path.read_text(encoding="utf-8"))))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ConfigError) as error:
        raise DataError(f"{path} is not a run's configuration: {error}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path} holds a {type(manifest).__name__}, expected a JSON object")
    return manifest


def _read_rounds(path: Path, *, task: str) -> list[RoundRecord]:
    rounds = read_rounds(path)
    measured = (*ALWAYS, *(OF_ENCODERS if task == "encoder" else ()))
    for line, record in enumerate(rounds, 1):
        table = asdict(record)
        for name, value in flatten({key: table[key] for key in measured}).items():
            if not isinstance(value, int | float):
                raise DataError(f"{path} line {line}: {name} is {value!r}, expected a number")
    return rounds


def _read_rewards(path: Path, *, rounds: list[RoundRecord]) -> tuple[RewardRow, ...]:
    numbers = {record.round for record in rounds}
    if not path.is_file():
        if numbers - {0}:
            raise DataError(f"{path} is missing, expected the payouts of {len(numbers - {0})} recorded rounds")
        return ()
    return tuple(row for row in read_rewards(path) if row.round in numbers)


def _read_roles(path: Path) -> dict[int, tuple[str, int]]:
    if not path.is_file():
        return {}
    try:
        roster = json.loads(path.read_text(encoding="utf-8"))
        return {
            int(node): (str(item["role"]), int(item["operator"])) for node, item in roster.items() if "role" in item
        }
    except (UnicodeDecodeError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a roster: {error}") from error


def _references(manifest: Mapping[str, Any], *, source: Path) -> dict[str, ModelNumbers]:
    table = manifest.get("references") or {}
    if not isinstance(table, dict):
        raise DataError(f"{source}: references is {table!r}, expected an object of {' and '.join(REFERENCES)}")
    return {title: _numbers(table[key]) for key, title in REFERENCES.items() if key in table}


def _numbers(table: object) -> ModelNumbers:
    measures = table.get("measures") if isinstance(table, dict) else None
    return ModelNumbers(
        homomorphism_max=_number(table, "homomorphism", "max"),
        drift=_number(table, "drift", "mean"),
        relative=_number(table, "drift", "relative"),
        ratio=_number(table, "drift", "ratio"),
        residual_share=_number(table, "residual_share"),
        effective_rank=_number(table, "effective_rank"),
        loss=_number(table, "loss"),
        masked_ce=_number(table, "masked_ce", "value"),
        measures=measures if isinstance(measures, dict) else {},
    )


def _number(table: object, *path: str) -> float | None:
    for key in path:
        table = table.get(key) if isinstance(table, dict) else None
    return float(table) if isinstance(table, int | float) else None


def _final(manifest: Mapping[str, Any], *, source: Path) -> FinalPool | None:
    table = manifest.get("final")
    if table is None:
        return None
    expected = [item.name for item in fields(FinalPool)]
    lacking = [name for name in expected[:7] if _number(table, name) is None]
    if lacking:
        raise DataError(f"{source}: final lacks the number {lacking[0]!r}, expected {', '.join(expected)}")
    numbers = {name: table[name] for name in expected if _number(table, name) is not None}
    return FinalPool(**numbers)


def _final_round(manifest: Mapping[str, Any], rounds: Sequence[RoundRecord], *, source: Path) -> int | None:
    number = manifest.get("final_round")
    if number is not None and not isinstance(number, int):
        raise DataError(f"{source}: final_round is {number!r}, expected the number of a round")
    last = rounds[-1] if rounds else None
    if last is None or final_measures(manifest, round_number=last.round, model_hash=last.model_hash):
        return None
    return number


def _shown_elsewhere(key: str) -> bool:
    return key.partition(".")[0] in NOT_FACTS


def _fact(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_fact(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)
