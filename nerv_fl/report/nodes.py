"""Who was worth what: values and payouts of one round, and the leaderboard of the run."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from nerv_fl.records import RewardRow
from nerv_fl.report.bars import Bar, Interval, bar_chart, interval_chart
from nerv_fl.report.formatting import exact_nano, fixed, nerv, plural, short, signed, tiny
from nerv_fl.report.layout import Cell, figure, section, strong, table
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, el, join
from nerv_fl.tokens import NANO_PER_NERV

SHOWN: Final = 15
"""Rows of the leaderboard that are not folded away."""
BEST, WORST = 40, 20
"""Rows of the value chart where a cohort is larger than both together."""


@dataclass(frozen=True, kw_only=True)
class NodeTotals:
    """A node over the whole run; `mean_value` is over the rounds that valued it."""

    node: int
    rounds: int
    payout_nano: int
    mean_value: float | None
    reputation: float
    flags: int


def nodes_section(run: Run) -> Html:
    """Return the last accepted round's values and payouts, and the leaderboard."""
    what = (
        "A node's value is its Shapley value in the round's game: what its update added to the held-out loss over all "
        "coalitions. It is paid on the lower confidence bound of that value times its reputation, so noise around zero "
        "earns nothing, and so does what is negative."
    )
    if not run.rewards:
        empty = el("p", "No node has been valued yet.", class_="empty")
        return section("nodes", "Nodes", prose=(what,), figures=[empty], wide=True)
    return section(
        "nodes",
        "Nodes",
        prose=(what, *_last_words(run), *_money_words(run)),
        figures=[*_values(run), _board(run)],
        wide=True,
    )


def leaderboard(rows: tuple[RewardRow, ...]) -> list[NodeTotals]:
    """Return every node's totals, best paid first; ties go to the higher mean value, then the lower node number."""
    of_node: dict[int, list[RewardRow]] = defaultdict(list)
    for row in rows:
        of_node[row.node].append(row)
    totals = [_totals(node, taken) for node, taken in of_node.items()]
    return sorted(totals, key=lambda item: (-item.payout_nano, -(item.mean_value or 0.0), item.node))


def _totals(node: int, rows: list[RewardRow]) -> NodeTotals:
    values = [row.value for row in rows if row.value is not None]
    return NodeTotals(
        node=node,
        rounds=len(rows),
        payout_nano=sum(row.payout_nano for row in rows),
        mean_value=sum(values) / len(values) if values else None,
        reputation=max(rows, key=lambda row: row.round).reputation,
        flags=sum(bool(row.flag) for row in rows),
    )


def _last_valued(run: Run) -> list[RewardRow]:
    accepted = [record.round for record in run.federated if record.accepted]
    rows = [row for row in run.rewards if accepted and row.round == accepted[-1]]
    return sorted(rows, key=lambda row: (row.value is None, -(row.value or 0.0), row.node))


def _last_words(run: Run) -> list[Html]:
    rows = _last_valued(run)
    if not rows:
        return [join("No round was accepted, so no node was valued and nobody was paid.")]
    left_out = [row for row in rows if row.value is None]
    positive = sum((row.ci_low or 0.0) > 0 for row in rows)
    paid = sum(row.payout_nano > 0 for row in rows)
    words = [
        join(
            f"In round {rows[0].round}, the last accepted one, {plural(len(rows) - len(left_out), 'node')} ",
            "were valued: ",
            strong(f"{positive} clearly above zero"),
            f" (whole 95 % interval), {paid} paid.",
        )
    ]
    if left_out:
        names = ", ".join(f"node {row.node} ({row.flag or 'no update'})" for row in left_out)
        words.append(join(f"Not valued: {names}."))
    return words


def _money_words(run: Run) -> list[Html]:
    """Return how unequally the rounds paid and what was taken back, if the run recorded it."""
    summaries = [record.rewards for record in run.federated if record.rewards is not None]
    ginis = [item.gini for item in summaries if item.gini is not None]
    if not ginis:
        return []
    slashed_nano = sum(item.slashed_nano for item in summaries)
    return [
        join(
            "The payouts' Gini index (0: all alike, near 1: one node takes all) was "
            f"{fixed(ginis[-1], places=2)} in the last round that paid, "
            f"{fixed(min(ginis), places=2)} to {fixed(max(ginis), places=2)} over the run. ",
            f"{nerv(slashed_nano)} NERV were slashed for repeated negative values."
            if slashed_nano
            else "Nothing was slashed.",
        )
    ]


def _values(run: Run) -> list[Html]:
    rows = [row for row in _last_valued(run) if row.value is not None]
    if not rows:
        return []
    shown = rows if len(rows) <= BEST + WORST else rows[:BEST] + rows[-WORST:]
    note = None if len(shown) == len(rows) else f"The best {BEST} and the last {WORST} of {len(rows)} nodes."
    number = rows[0].round
    values = interval_chart(
        [_interval(row) for row in shown],
        label=f"Value of each node in round {number} with its 95 % interval",
        title="value, nats",
    )
    places = 0 if max(row.payout_nano for row in shown) >= 1000 * NANO_PER_NERV else 4
    payouts = bar_chart(
        [_bar(row, places=places) for row in shown],
        label=f"Payout of each node in round {number}",
        title="payout, NERV",
    )
    drawing = el("div", values, payouts, class_="pair")
    return [figure(f"Value and payout by node, round {number}", drawing, unit="95 % interval", note=note)]


def _interval(row: RewardRow) -> Interval:
    value = row.value or 0.0
    low, high = (value if end is None else end for end in (row.ci_low, row.ci_high))
    return Interval(
        name=f"node {row.node}",
        value=value,
        low=low,
        high=high,
        text=_tooltip(row),
        style="flagged" if row.flag else "good" if low > 0 else "bad" if high < 0 else "",
    )


def _bar(row: RewardRow, *, places: int) -> Bar:
    label = nerv(row.payout_nano, places=places) if row.payout_nano else "0"
    return Bar(length=row.payout_nano / NANO_PER_NERV, label=f"{label} {row.flag}".strip(), text=_tooltip(row))


def _tooltip(row: RewardRow) -> str:
    lines = [f"Node {row.node}" + (f", {row.flag}" if row.flag else "")]
    if row.value is not None:
        lines += [f"value {signed(row.value)}, se {short(row.se)}"]
    if row.ci_low is not None and row.ci_high is not None:
        lines += [f"95 % interval {signed(row.ci_low)} to {signed(row.ci_high)}"]
    lines += [f"reputation {fixed(row.reputation, places=2)}", f"paid {exact_nano(row.payout_nano)}"]
    return "\n".join(lines)


def _board(run: Run) -> Html:
    header = ("Rank", "Node", "Rounds", "Payout, NERV", "Mean value", "Reputation", "Flags")
    rows = [_board_row(rank, totals) for rank, totals in enumerate(leaderboard(run.rewards), 1)]
    first = table("Leaderboard of the run", header=header, rows=rows[:SHOWN], sortable=True)
    if len(rows) <= SHOWN:
        return first
    rest = table("Leaderboard, continued", header=header, rows=rows[SHOWN:], sortable=True)
    return el("div", first, el("details", el("summary", f"The other {plural(len(rows) - SHOWN, 'node')}"), rest))


def _board_row(rank: int, totals: NodeTotals) -> list[Cell]:
    mean = totals.mean_value
    return [
        Cell(show=str(rank), sort=float(rank), style="label"),
        Cell(show=f"node {totals.node}", sort=float(totals.node), style="text"),
        Cell(show=str(totals.rounds), sort=float(totals.rounds)),
        Cell(show=nerv(totals.payout_nano), sort=str(totals.payout_nano), title=exact_nano(totals.payout_nano)),
        Cell(show=tiny(mean), sort=mean),
        Cell(show=fixed(totals.reputation, places=2), sort=totals.reputation),
        Cell(show=str(totals.flags) if totals.flags else "0", sort=float(totals.flags)),
    ]
