"""What SIGTERM does, with the process that would end replaced by a list."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from nerv_fl.server.shutdown import TERMINATED, GracefulStop
from tests.server.test_tracking import RECORD as ROUND


class Told:
    """What was shown, and how the process left."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.lines: list[str] = []
        self.left: list[int] = []


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def stop(told: Told) -> Iterator[GracefulStop]:
    made = GracefulStop(
        lambda record, _rows: told.rounds.append(record.round), say=told.lines.append, leave=told.left.append
    )
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    made.listen()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_stops_unasked(stop: GracefulStop, told: Told) -> None:
    stop.on_round(ROUND, [])
    assert (told.rounds, told.lines, told.left) == ([ROUND.round], [], [])


def test_it_leaves_at_the_end_of_the_round_and_not_before(stop: GracefulStop, told: Told) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert told.left == []
    assert told.lines == ["SIGTERM: the round is finished first; a second one abandons it"]
    stop.on_round(ROUND, [])
    assert told.rounds == [ROUND.round]
    assert told.lines[1:] == [f"stopped after round {ROUND.round}; --resume goes on from it"]
    assert told.left == [TERMINATED] == [143]


def test_asked_twice_it_leaves_at_once(stop: GracefulStop, told: Told) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert told.left == [TERMINATED]
    assert told.rounds == []


def test_a_round_takes_the_signal_back(stop: GracefulStop, told: Told) -> None:
    """As from Ray, which handles SIGTERM once it has started; rounds end in a thread that is not the main one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    thread = threading.Thread(target=stop.on_round, args=(ROUND, []))
    thread.start()
    thread.join()
    os.kill(os.getpid(), signal.SIGTERM)
    assert told.lines == ["SIGTERM: the round is finished first; a second one abandons it"]
