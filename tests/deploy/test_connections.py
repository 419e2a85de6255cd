"""Limits on connections, with sockets that do not exist and a clock that is set."""

import resource
import socket

import pytest

from nerv_fl.deploy.connections import (
    HEADER_TIMEOUT_S,
    LOCAL_RESERVE,
    OVER_ADDRESS,
    OVER_TOTAL,
    OWN_DESCRIPTORS,
    ConnectionLimits,
    Connections,
    LimitedListener,
    Peer,
    connection_limits,
)
from nerv_fl.deploy.refusals import LOG_INTERVAL_S, RefusalLog

OWN = "10.1.0.1"


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class FakeSocket:
    """Notes that it was shut down."""

    was_shut_down = False

    def shutdown(self, _how: int) -> None:
        self.was_shut_down = True


def connections(clock: Clock, *, total: int = 200, per_address: int = 50) -> Connections:
    limits = ConnectionLimits(total=total, per_address=per_address)
    return Connections(limits, refusals=RefusalLog(clock=clock), clock=clock)


def fill(opened: Connections, number: int, *, address: str) -> None:
    for port in range(number):
        opened.opened((address, port), FakeSocket())


def test_one_address_does_not_take_all(clock: Clock) -> None:
    opened = connections(clock)
    fill(opened, 50, address="10.1.0.2")

    assert opened.refusal(("10.1.0.2", 99), own_address=OWN) == OVER_ADDRESS
    assert opened.refusal(("10.1.0.3", 99), own_address=OWN) is None

    opened.closed(("10.1.0.2", 7))
    opened.closed(("10.1.0.2", 7))
    assert opened.refusal(("10.1.0.2", 99), own_address=OWN) is None
    assert len(opened) == 49


@pytest.mark.parametrize("local", ["127.0.0.1", OWN, "::1"])
def test_this_machine_has_connections_left_when_others_took_theirs(clock: Clock, local: str) -> None:
    opened = connections(clock)
    for number in range(200 - LOCAL_RESERVE):
        opened.opened((f"10.2.0.{number}", 1), FakeSocket())

    assert opened.refusal(("10.3.0.1", 1), own_address=OWN) == OVER_TOTAL
    assert opened.refusal((local, 1), own_address=OWN) is None


def test_a_connection_without_a_request_is_closed_and_one_with_a_request_is_not(clock: Clock) -> None:
    opened = connections(clock)
    peers: list[Peer] = [("10.1.0.2", port) for port in range(3)]
    sockets = [FakeSocket() for _ in peers]
    for peer, connection in zip(peers, sockets, strict=True):
        opened.opened(peer, connection)
    opened.began_request(peers[1])
    opened.began_request(peers[2])
    opened.ended_request(peers[2])

    clock.now = HEADER_TIMEOUT_S - 1
    opened.close_slow()
    assert [connection.was_shut_down for connection in sockets] == [False, False, False]
    clock.now = HEADER_TIMEOUT_S + 1
    opened.close_slow()
    assert [connection.was_shut_down for connection in sockets] == [True, False, True]


def test_a_request_that_began_before_the_end_of_the_last_one_is_not_cut_off(clock: Clock) -> None:
    """The other side sends the next one as soon as it has the answer, which is before the app returns."""
    opened, peer, connection = connections(clock), ("10.1.0.2", 1), FakeSocket()
    opened.opened(peer, connection)
    opened.began_request(peer)
    opened.began_request(peer)
    opened.ended_request(peer)
    clock.now = 10 * HEADER_TIMEOUT_S
    opened.close_slow()
    assert not connection.was_shut_down
    opened.ended_request(peer)
    clock.now = 12 * HEADER_TIMEOUT_S
    opened.close_slow()
    assert connection.was_shut_down


def test_refusals_are_one_line_a_minute_with_their_counts(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    refusals = RefusalLog(clock=clock)
    refusals.flush()
    for number in range(1001):
        refusals.add("connection", f"10.1.0.{number % 7}")
        refusals.flush()
    refusals.add("body", "10.1.0.9")
    clock.now = LOG_INTERVAL_S - 1
    refusals.flush()
    assert len(caplog.messages) == 1
    clock.now = LOG_INTERVAL_S
    refusals.flush()
    refusals.flush()

    assert caplog.messages == [
        "refused since the last such line: 1 x connection (last: 10.1.0.0)",
        "refused since the last such line: 1,000 x connection (last: 10.1.0.6); 1 x body (last: 10.1.0.9)",
    ]


@pytest.mark.parametrize(
    ("soft", "total"), [(1024, 1024 - OWN_DESCRIPTORS), (65_536, 1000), (resource.RLIM_INFINITY, 1000)]
)
def test_limits_leave_open_files_for_the_process_itself(soft: int, total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, soft))

    assert connection_limits() == ConnectionLimits(total=total, per_address=total // 4)


def test_a_listener_closes_what_is_over_the_limit_and_counts_what_is_closed(clock: Clock) -> None:
    opened = connections(clock, per_address=1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with LimitedListener(listening, connections=opened) as listener:
            with socket.create_connection(address), socket.create_connection(address) as second:
                accepted, _ = listener.accept()
                with pytest.raises(ConnectionAbortedError, match=OVER_ADDRESS):
                    listener.accept()
                assert second.recv(1) == b""
            accepted.close()
            assert len(opened) == 0
            with socket.create_connection(address):
                listener.accept()[0].close()
