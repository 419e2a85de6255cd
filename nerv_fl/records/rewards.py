"""What each node's update was worth, and was paid: the rows of `rewards.csv`."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from nerv_fl.errors import DataError
from nerv_fl.records.text import read_text


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


REWARD_COLUMNS = tuple(item.name for item in fields(RewardRow))


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
    rows = list(csv.reader(io.StringIO(read_text(path))))
    if not rows or tuple(rows[0]) != REWARD_COLUMNS:
        raise DataError(f"{path} begins with {rows[:1]}, expected the columns {','.join(REWARD_COLUMNS)}")
    try:
        return [_reward_row(row) for row in rows[1:]]
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} holds a row that is not a reward: {error}") from error


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
