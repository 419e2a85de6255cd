"""Counts of what a server refuses, logged at most once a minute: a flood of requests is no flood of log lines."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

LOG_INTERVAL_S: Final = 60.0

log = logging.getLogger(__name__)


class RefusalLog:
    """Counts refusals by their reason, with the newest example of each.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._logged_at: float | None = None

    def add(self, reason: str, example: str) -> None:
        """Count a refusal.

        Args:
            reason: One of few texts, which the counts are kept by.
            example: Text about this one, of one line, which may name what the other side sent.
        """
        with self._lock:
            self._counts[reason] = self._counts.get(reason, 0) + 1
            self._examples[reason] = example

    def flush(self) -> None:
        """Log the counts, unless there are none or the last line is less than a minute old."""
        now = self._clock()
        with self._lock:
            if not self._counts or (self._logged_at is not None and now - self._logged_at < LOG_INTERVAL_S):
                return
            counts, examples = self._counts, self._examples
            self._counts, self._examples, self._logged_at = {}, {}, now
        parts = [f"{count:,} x {reason} (last: {examples[reason]})" for reason, count in counts.items()]
        log.warning("refused since the last such line: %s", "; ".join(parts))
