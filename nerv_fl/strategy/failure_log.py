"""Log of a run's failures: each reason once, with the number of nodes or SuperNodes that it stopped."""

import logging
from collections.abc import Collection, Mapping
from typing import Final

from nerv_fl.failure_reasons import count_reasons, kind_of
from nerv_fl.strategy.replies import CommonFailure, RoundReplies, group_errors

MAX_NODES_LOGGED: Final = 20
"""Nodes that a line of the log names: a cohort may have thousands."""

log = logging.getLogger(__name__)


class FailureLog:
    """Logs what rounds lost, without repeating a reason that an earlier round has named."""

    def __init__(self) -> None:
        self._known: set[tuple[str, ...]] = set()

    def report(
        self,
        round_number: int,
        received: RoundReplies,
        *,
        failed: Mapping[int, str],
        expected: frozenset[int],
        num_supernodes: int,
    ) -> None:
        """Log a round's new reasons, and the nodes for which none is known.

        Args:
            round_number: The round.
            received: Its replies.
            failed: Reason of each node that failed, as far as it is known.
            expected: Nodes that were asked and that no simulated fault stopped.
            num_supernodes: SuperNodes that were asked.
        """
        for reason, names in group_errors(received.errors).items():
            named = sorted(filter(None, names))
            if self._is_new(reason, *named):
                whose = f" ({', '.join(named)})" if named else ""
                share = f"{len(names)} of {num_supernodes}"
                log.warning("round %d: %s SuperNodes failed%s: %s", round_number, share, whose, reason)
        known = {node: failed[node] for node in received.refusing & failed.keys()}
        for reason, count in count_reasons(known).items():
            if self._is_new(reason):
                log.warning("round %d: %d of %d nodes: %s", round_number, count, len(expected), reason)
        refusing = received.refusing - failed.keys()
        silent = expected - received.answering - received.refusing - failed.keys()
        if refusing or silent:
            log.warning(
                "round %d: nodes %s refuse, nodes %s are silent", round_number, _words(refusing), _words(silent)
            )

    def _is_new(self, reason: str, *names: str) -> bool:
        kind = (kind_of(reason), *names)
        is_new = kind not in self._known
        self._known.add(kind)
        return is_new


def stop_words(round_number: int, failure: CommonFailure) -> str:
    """Return what stopped a run, and how it goes on, in words."""
    spent = (
        f"; {failure.num_charged} of them have accounted for the round, which counts once when it is repeated"
        if failure.num_charged
        else ""
    )
    return (
        f"round {round_number}: {failure.num_failed} of {failure.num_asked} nodes: {failure.reason}{spent}. The run "
        f"stops here, and its final pool stays closed; once that is mended, --resume repeats round {round_number}"
    )


def _words(nodes: Collection[int]) -> str:
    """Return the numbers of some nodes, `MAX_NODES_LOGGED` of them at most."""
    first = ", ".join(map(str, sorted(nodes)[:MAX_NODES_LOGGED]))
    rest = len(nodes) - MAX_NODES_LOGGED
    return f"[{first}]" if rest <= 0 else f"[{first}] and {rest} more"
