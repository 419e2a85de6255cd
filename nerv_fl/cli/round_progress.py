"""How far a running round is, seen from outside: by what its nodes have stored. Nothing is sent for it.

A node stores the envelope it answered with, beside the run and round it was for; an actor at work on a block leaves a
file that says so. Both are read here, by the process that shows them; no result depends on it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Final, Self

from nerv_fl.client.active_workers import num_present
from nerv_fl.client.host import node_folder
from nerv_fl.client.outbox import label_of
from nerv_fl.config import RunConfig
from nerv_fl.errors import PrivacyError
from nerv_fl.strategy.client_sampling import draw_cohort

PERIOD_S: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Glance:
    """A running round at one moment.

    Attributes:
        round_number: The round.
        trained: Nodes that have their update ready.
        cohort: Nodes that were asked.
        per_second: Nodes a second since the first was seen; 0 before there are two looks to compare.
        busy: Actors at work on a block.
        round_left_s: Seconds that this round has left, or None while nothing tells.
        run_left_s: Seconds that the run has left, or None.
    """

    round_number: int
    trained: int
    cohort: int
    per_second: float
    busy: int
    round_left_s: float | None
    run_left_s: float | None


class RoundWatch:
    """Looks at the nodes' folders of a run.

    Args:
        nodes: Folder of the nodes' folders.
        config: The run's settings.
        run: Name of the run.
        rounds_done: Rounds finished before.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        nodes: Path,
        config: RunConfig,
        *,
        run: str,
        rounds_done: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._last = config.federation.num_rounds
        self._nodes, self._config, self._run, self._clock = nodes, config, run, clock
        self._lock = threading.Lock()  # rounds finish in the server's thread
        self._rounds_s: list[float] = []
        self._after_training_s: list[float] = []
        self._first: tuple[float, int] | None = None
        self._waiting: list[int] = []
        self._begin(rounds_done + 1)

    def finished(self, round_number: int, *, total_s: float, train_s: float) -> None:
        """Take note of a finished round: of its wall time, and of the part of it that its nodes trained."""
        with self._lock:
            if round_number > 0:
                self._rounds_s.append(total_s)
                self._after_training_s.append(total_s - train_s)
            self._begin(round_number + 1)

    def look(self) -> Glance | None:
        """Return how far the round is, or None after the last."""
        with self._lock:
            return self._look()

    def _look(self) -> Glance | None:
        federation = self._config.federation
        if self._number > self._last:
            return None
        now = self._clock()
        self._waiting = [node for node in self._waiting if not self._has_answered(node)]
        trained = federation.cohort_size - len(self._waiting)
        if self._first is None or trained < self._first[1]:
            self._first = (now, trained)
        elapsed, done = now - self._first[0], trained - self._first[1]
        per_second = done / elapsed if elapsed > 0 else 0.0
        round_left_s = self._round_left_s(per_second, now)
        rounds_after = self._last - self._number
        typical_s = fmean(self._rounds_s) if self._rounds_s else None
        whole_s = typical_s if typical_s is not None else round_left_s and now - self._began + round_left_s
        return Glance(
            round_number=self._number,
            trained=trained,
            cohort=federation.cohort_size,
            per_second=per_second,
            busy=num_present(self._nodes),
            round_left_s=round_left_s,
            run_left_s=None if round_left_s is None or whole_s is None else round_left_s + rounds_after * whole_s,
        )

    def _begin(self, round_number: int) -> None:
        self._number = round_number
        self._began = self._clock()
        self._first = None
        self._waiting = list(draw_cohort(self._config, round_number)) if round_number <= self._last else []

    def _round_left_s(self, per_second: float, now: float) -> float | None:
        """Return what training and, after it, the server's work have left."""
        after_s = fmean(self._after_training_s) if self._after_training_s else 0.0
        if self._waiting and per_second > 0:
            return len(self._waiting) / per_second + after_s
        if self._rounds_s:
            return max(0.0, fmean(self._rounds_s) - (now - self._began))
        return None

    def _has_answered(self, node: int) -> bool:
        try:
            sent = label_of(node_folder(self._nodes, node))
        except (OSError, PrivacyError):
            return False
        return sent is not None and (sent.run, sent.round_number) == (self._run, self._number)


class Watching:
    """A thread that looks twice a second and hands on what it sees, until the context ends."""

    def __init__(self, watch: RoundWatch, show: Callable[[Glance], None], *, period_s: float = PERIOD_S) -> None:
        self._watch, self._show, self._period_s = watch, show, period_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="round watch", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(self._period_s):
            glance = self._watch.look()
            if glance is not None:
                self._show(glance)
