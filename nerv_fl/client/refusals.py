"""Refusals of the nodes of one process: why each gives no update, and whether it has spent privacy by then."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from nerv_fl.errors import BudgetError
from nerv_fl.failure_reasons import count_reasons, kind_of, reason_of

MAX_KINDS: Final = 1000
"""Kinds of reasons that a process remembers to have logged with their traceback."""

log = logging.getLogger(__name__)

_logged_kinds: Final[set[str]] = set()
"""Kinds of reasons whose traceback is in this process's log: a simulation asks one process thousands of times."""


class NodeLostError(Exception):
    """Raised when a node stops in the middle of a round without returning a result, as a killed process does."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a node gives no update.

    Attributes:
        reason: One printable line. It may name what the node holds, so it leaves no deployed node.
        has_spent: Whether the node has accounted for the round, before it failed or in an earlier attempt.
        is_over_budget: Whether it refuses since the round would exceed its privacy budget.
    """

    reason: str
    has_spent: bool
    is_over_budget: bool


class Refusals:
    """Refusals of one request, by node.

    Args:
        round_number: The round that the nodes are asked for.
        has_spent: Returns whether a node's spending ledger holds the round.
    """

    def __init__(self, round_number: int, *, has_spent: Callable[[int], bool]) -> None:
        self._round_number = round_number
        self._has_spent = has_spent
        self._found: dict[int, Refusal] = {}

    @property
    def by_node(self) -> Mapping[int, Refusal]:
        """The refusals, by the nodes' numbers, ascending."""
        return dict(sorted(self._found.items()))

    @contextmanager
    def isolate(self, number: int) -> Iterator[None]:
        """Isolate a node's exception so that it cannot affect the other nodes; it becomes the node's refusal."""
        try:
            yield
        except NodeLostError:
            log.info("node %d is lost in round %d", number, self._round_number)
        except Exception as error:  # noqa: BLE001 (a task's own code may raise anything)
            self.add(number, error)

    def add(self, number: int, error: Exception) -> None:
        """Record that a node gives no update; the traceback of each kind of reason is logged once in a process."""
        reason = reason_of(error)
        self._found[number] = Refusal(
            reason=reason, has_spent=self._has_spent(number), is_over_budget=isinstance(error, BudgetError)
        )
        if _is_new(kind_of(reason)):
            log.error("node %d gives no update for round %d", number, self._round_number, exc_info=error)

    def log_counts(self, num_nodes: int) -> None:
        """Log each kind of reason once, with the number of nodes that it stopped.

        Args:
            num_nodes: Nodes that were asked here.
        """
        for reason, count in count_reasons({node: item.reason for node, item in self._found.items()}).items():
            log.error("round %d: %d of %d nodes give no update: %s", self._round_number, count, num_nodes, reason)


def _is_new(kind: str) -> bool:
    if kind in _logged_kinds:
        return False
    if len(_logged_kinds) >= MAX_KINDS:
        _logged_kinds.clear()
    _logged_kinds.add(kind)
    return True
