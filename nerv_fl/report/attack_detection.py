"""What a simulation's adversaries earned and who was found out: its roles against the flags and payouts of its records.

A node counts as detected in a round if it is flagged, refused, or its value's whole interval lies below 0.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nerv_fl.records import RewardRow

HONEST: Final = "honest"

Roles = Mapping[int, tuple[str, int]]
"""The attack of each adversary and its operator's first identity."""


@dataclass(frozen=True, kw_only=True)
class KindSummary:
    """One kind of node over a run.

    Attributes:
        kind: Name of the attack, or "honest".
        identities: Nodes with at least one row.
        operators: Who runs them.
        rows: Rounds in which one of them sent something that is on record.
        earned: Mean payout of a row over an honest row's; None if no honest node was paid.
        earned_by_operator: Mean payout of an operator over that of an honest node, over the whole run.
        detected: Part of the rows that were detected: recall for an attack, the false alarm rate for honest nodes.
        flags: How often each flag was raised; "negative" is a value below 0 without a flag.
    """

    kind: str
    identities: int
    operators: int
    rows: int
    earned: float | None
    earned_by_operator: float | None
    detected: float
    flags: Mapping[str, int]


def flag_of(row: RewardRow) -> str:
    """Return why a row counts as detected, or an empty string."""
    return row.flag or ("negative" if row.ci_high is not None and row.ci_high < 0 else "")


def summarise_kinds(rows: Sequence[RewardRow], roles: Roles) -> list[KindSummary]:
    """Return honest nodes first, then each attack that is on record, by name.

    Args:
        rows: Reward rows of all rounds.
        roles: The adversaries; whoever is not named is honest.
    """
    by_kind: dict[str, list[RewardRow]] = defaultdict(list)
    for row in rows:
        by_kind[_role(row, roles)[0]].append(row)
    honest = by_kind.get(HONEST, [])
    kinds = sorted(by_kind, key=lambda kind: (kind != HONEST, kind))
    return [_summary(kind, by_kind[kind], honest=honest, roles=roles) for kind in kinds]


def precision(rows: Sequence[RewardRow], roles: Roles) -> float | None:
    """Return the part of the detected rows that are adversaries', None if nothing was detected."""
    found = [row for row in rows if flag_of(row)]
    return sum(row.node in roles for row in found) / len(found) if found else None


def _summary(kind: str, rows: Sequence[RewardRow], *, honest: Sequence[RewardRow], roles: Roles) -> KindSummary:
    flags: dict[str, int] = defaultdict(int)
    for row in rows:
        if flag := flag_of(row):
            flags[flag] += 1
    operators = {_role(row, roles)[1] for row in rows}
    honest_nodes = {row.node for row in honest}
    return KindSummary(
        kind=kind,
        identities=len({row.node for row in rows}),
        operators=len(operators),
        rows=len(rows),
        earned=_ratio(_paid(rows) / len(rows), _paid(honest) / max(1, len(honest))),
        earned_by_operator=_ratio(_paid(rows) / len(operators), _paid(honest) / max(1, len(honest_nodes))),
        detected=sum(flags.values()) / len(rows),
        flags=dict(sorted(flags.items())),
    )


def _role(row: RewardRow, roles: Roles) -> tuple[str, int]:
    return roles.get(row.node, (HONEST, row.node))


def _paid(rows: Sequence[RewardRow]) -> int:
    return sum(row.payout_nano for row in rows)


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference else None
