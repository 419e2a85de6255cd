"""Leaving at the end of a round when asked to (SIGTERM), at once when asked again.

At every moment the run folder holds the last finished round whole, so leaving at once, or SIGKILL, loses the round
that runs and nothing else; leaving at the end of it loses nothing.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from nerv_fl.records import RewardRow, RoundRecord
from nerv_fl.server.recorder import OnRound

TERMINATED: Final = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended, as shells give it."""


class GracefulStop:
    """Turns SIGTERM into the end of the round.

    Args:
        on_round: What else is told of each finished round.
        say: Shows a line.
        leave: Ends the process.
    """

    def __init__(
        self, on_round: OnRound, *, say: Callable[[str], None], leave: Callable[[int], None] = os._exit
    ) -> None:
        self._on_round = on_round
        self._say = say
        self._leave = leave
        self._main: int | None = None
        self.is_asked = False

    def listen(self) -> None:
        """Handle SIGTERM from now on; in the main thread alone, which also handles SIGUSR2 from then on."""
        self._main = threading.get_ident()
        signal.signal(signal.SIGUSR2, self._handle)
        self._handle()

    def on_round(self, record: RoundRecord, rows: Sequence[RewardRow]) -> None:
        """Pass a finished round on, and end the process if that was asked: its checkpoint is written."""
        self._on_round(record, rows)
        if self.is_asked:
            self._say(f"stopped after round {record.round}; --resume goes on from it")
            self._leave(TERMINATED)
        elif self._main is not None:
            # Ray takes SIGTERM for itself when it starts, and rounds end in another thread, which can set no handler.
            signal.pthread_kill(self._main, signal.SIGUSR2)

    def _handle(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self.is_asked:
            self._say("stopped in the middle of a round; the last finished one is kept, --resume goes on from it")
            self._leave(TERMINATED)
        self.is_asked = True
        self._say("SIGTERM: the round is finished first; a second one abandons it")
