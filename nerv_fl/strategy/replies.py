"""Replies of a round: which nodes answered, which refused and why, and what follows for privacy and for the run.

Nothing in a reply is trusted but an envelope that verifies. Reasons, and whether a node that refused has spent privacy,
are read in a simulation only, whose nodes are this project's own processes.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from nerv_fl.failure_reasons import count_reasons, end_of_traceback, kind_of, on_one_line

UNKNOWN_REASON = "no reason given"


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Participation in a round.

    Attributes:
        trained: Nodes that may have spent privacy: exact in a simulation, every node that was asked in a deployment.
        seconds: Wall time from asking to the last answer.
        faults: Nodes that a simulation lost, counted by fate; None if it simulates no faults.
        failures: Nodes that failed, counted by reason, the most frequent first; None where no reason is known.
    """

    trained: frozenset[int]
    seconds: float
    faults: Mapping[str, int] | None = None
    failures: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class RoundReplies:
    """Contents of a round's replies: only the envelopes prove anything, the rest is claimed by the sender.

    Attributes:
        envelopes: Sealed updates, without those that are late.
        answering: Nodes whose envelopes the replies claim to hold, late ones included.
        refusing: Nodes that give no update.
        reasons: Why, by node, where a simulation's nodes say it.
        charged: Nodes that refuse and have spent privacy on the round.
        over_budget: Nodes that refuse because of their privacy budget.
        errors: Name, empty if it has none, and reason of each SuperNode that failed as a whole.
        num_replies: SuperNodes that replied at all.
    """

    envelopes: list[bytes] = field(default_factory=list)
    answering: frozenset[int] = frozenset()
    refusing: frozenset[int] = frozenset()
    reasons: Mapping[int, str] = field(default_factory=dict)
    charged: frozenset[int] = frozenset()
    over_budget: frozenset[int] = frozenset()
    errors: Sequence[tuple[str, str]] = ()
    num_replies: int = 0


@dataclass(frozen=True, kw_only=True)
class CommonFailure:
    """The one reason for which no node of a round could send an update."""

    reason: str
    num_failed: int
    num_asked: int
    num_charged: int


def read_replies(
    answers: Iterable[Mapping[str, object]],
    errors: Iterable[tuple[str, str]],
    *,
    cohort: frozenset[int],
    late: frozenset[int],
    with_reasons: bool,
) -> RoundReplies:
    """Return the contents of the replies; nodes outside the cohort are ignored.

    Args:
        answers: Fields of each reply; their names and types are checked here.
        errors: Name, empty if it has none, and reason of each SuperNode that replied with an error.
        cohort: Nodes that were asked.
        late: Nodes whose envelopes come after the simulated deadline.
        with_reasons: Whether reasons are read, as in a simulation.
    """
    envelopes: list[bytes] = []
    reasons: dict[int, str] = {}
    claims: dict[str, set[int]] = {
        name: set() for name in ("nodes", "refusing_nodes", "charged_nodes", "over_budget_nodes")
    }
    failed = [(name, end_of_traceback(reason)) for name, reason in errors]
    num_replies = len(failed)
    for answer in answers:
        num_replies += 1
        numbered = zip_longest(filter(_is_number, _list_of(answer, "nodes")), _list_of(answer, "envelopes"))
        envelopes.extend(item for node, item in numbered if isinstance(item, bytes) and node not in late)
        for name, nodes in claims.items():
            nodes.update(cohort.intersection(filter(_is_number, _list_of(answer, name))))
        if with_reasons:
            reasons |= _reasons(answer, cohort=cohort)
    return RoundReplies(
        envelopes=envelopes,
        answering=frozenset(claims["nodes"]),
        refusing=frozenset(claims["refusing_nodes"]),
        reasons=reasons,
        charged=frozenset(claims["charged_nodes"]) if with_reasons else frozenset(),
        over_budget=frozenset(claims["over_budget_nodes"]) if with_reasons else frozenset(),
        errors=failed,
        num_replies=num_replies,
    )


def trained_nodes(replies: RoundReplies, asked: frozenset[int], *, simulated: bool) -> frozenset[int]:
    """Return the nodes that may have spent privacy on a round.

    Args:
        replies: The round's replies.
        asked: Nodes that were sent the request.
        simulated: Whether the replies are those of a simulation's own processes.

    Guarantees:
        An upper bound. In a simulation a node that refused is left out if its own ledger did not hold the round, and
        a silent one never is. In a deployment no claim is believed: a SuperNode could make it for a node that spent.
    """
    return asked - (replies.refusing - replies.charged) if simulated else asked


def failure_reasons(replies: RoundReplies, expected: frozenset[int], *, num_supernodes: int) -> dict[int, str]:
    """Return why each failed node of a simulation's round gave no update.

    A SuperNode that fails as a whole does not say which nodes it hosts. If every SuperNode has replied, they are those
    of which nothing was heard.

    Args:
        replies: The round's replies.
        expected: Nodes that were asked and that no simulated fault stopped.
        num_supernodes: SuperNodes that were asked.
    """
    found = {node: replies.reasons.get(node, UNKNOWN_REASON) for node in replies.refusing}
    if replies.errors and replies.num_replies >= num_supernodes:
        unheard = expected - replies.answering - replies.refusing
        found |= dict.fromkeys(unheard, _common_words([reason for _, reason in replies.errors]))
    return found


def common_failure(
    failed: Mapping[int, str], replies: RoundReplies, *, expected: frozenset[int]
) -> CommonFailure | None:
    """Return the reason that stopped every node of a simulation's round, or None if there is no such reason.

    Args:
        failed: Reason of each failed node.
        replies: The round's replies.
        expected: Nodes that were asked and that no simulated fault stopped.
    """
    kinds = {kind_of(reason) for reason in failed.values()}
    if not expected or not expected <= failed.keys() or len(kinds) != 1:
        return None
    ((reason, count),) = count_reasons(failed).items()
    return CommonFailure(
        reason=reason, num_failed=count, num_asked=len(expected | failed.keys()), num_charged=len(replies.charged)
    )


def group_errors(errors: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names of the SuperNodes that failed, by reason; reasons that differ in numbers only count as one."""
    words: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for name, reason in errors:
        groups.setdefault(words.setdefault(kind_of(reason), reason), []).append(name)
    return groups


def _common_words(reasons: Collection[str]) -> str:
    """Return the most frequent of some reasons, and how many others there are."""
    counts = Counter(kind_of(reason) for reason in reasons)
    (kind, _), *others = counts.most_common()
    first = next(reason for reason in reasons if kind_of(reason) == kind)
    return f"{first} (or one of {len(others)} other reasons)" if others else first


def _reasons(answer: Mapping[str, object], *, cohort: frozenset[int]) -> dict[int, str]:
    pairs = zip_longest(_list_of(answer, "refusing_nodes"), _list_of(answer, "reasons"))
    return {
        node: on_one_line(reason)
        for node, reason in pairs
        if _is_number(node) and node in cohort and isinstance(reason, str) and reason
    }


def _is_number(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _list_of(answer: Mapping[str, object], key: str) -> list[Any]:
    """Return a list of a reply, empty if there is none."""
    value = answer.get(key)
    return list(value) if isinstance(value, list) else []
