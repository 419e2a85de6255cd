"""Limits on a server's connections: in all, from one address, and in the time until a request's headers are complete.

A connection takes a file descriptor from the moment it is accepted, before any byte of TLS, so the limits apply where
the listening socket accepts. A connection over a limit is closed at once.
"""

import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from nerv_fl.deploy.refusals import RefusalLog

Peer: TypeAlias = tuple[str, int]
"""Address and port of the other side."""

MAX_CONNECTIONS: Final = 1000
OWN_DESCRIPTORS: Final = 128
"""File descriptors that are kept for the process itself: its database, its threads, its logs."""

LOCAL_RESERVE: Final = 64
"""Connections that only this machine's addresses get: its server and SuperExec must not be locked out."""

HEADER_TIMEOUT_S: Final = 15.0
"""Time from accepting a connection, or from its last response, until the headers of a request are complete."""

OVER_TOTAL: Final = "connection beyond the limit in all"
OVER_ADDRESS: Final = "connection beyond the limit of one address"
SLOW_HEADERS: Final = f"connection without a request in {HEADER_TIMEOUT_S:g} s"


class Connection(Protocol):
    """What is needed of an open connection: that both its directions can be shut down."""

    def shutdown(self, how: int, /) -> None:
        """Shut it down, as a socket does."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Largest numbers of open connections.

    Attributes:
        total: In all.
        per_address: From one address.
    """

    total: int
    per_address: int


def connection_limits(max_connections: int = MAX_CONNECTIONS) -> ConnectionLimits:
    """Return the limits that the process's open files allow: a quarter of all for one address."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = max_connections if soft == resource.RLIM_INFINITY else min(max_connections, soft - OWN_DESCRIPTORS)
    total = max(allowed, 2 * LOCAL_RESERVE)
    return ConnectionLimits(total=total, per_address=max(total // 4, 1))


class Connections:
    """The open connections of a listening socket.

    Args:
        limits: The largest numbers.
        refusals: Where refused and closed connections are counted.
        clock: Monotonic seconds.
    """

    def __init__(
        self, limits: ConnectionLimits, *, refusals: RefusalLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._refusals = refusals
        self._clock = clock
        self._open: dict[Peer, Connection] = {}
        self._per_address: Counter[str] = Counter()
        self._waiting_since: dict[Peer, float] = {}
        self._requests: Counter[Peer] = Counter()
        self._served: set[Peer] = set()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def refusal(self, peer: Peer, *, own_address: str) -> str | None:
        """Return why another connection may not be opened, or None if it may."""
        is_local = peer[0] == own_address or peer[0].startswith("127.") or peer[0] == "::1"
        if len(self._open) >= self._limits.total - (0 if is_local else LOCAL_RESERVE):
            return OVER_TOTAL
        if self._per_address[peer[0]] >= self._limits.per_address:
            return OVER_ADDRESS
        return None

    def opened(self, peer: Peer, connection: Connection) -> None:
        """Note a connection, which now has to send the headers of a request."""
        self._open[peer] = connection
        self._per_address[peer[0]] += 1
        self._waiting_since[peer] = self._clock()

    def closed(self, peer: Peer) -> None:
        """Forget a connection."""
        if self._open.pop(peer, None) is None:
            return
        self._waiting_since.pop(peer, None)
        self._requests.pop(peer, None)
        self._served.discard(peer)
        self._per_address[peer[0]] -= 1
        if not self._per_address[peer[0]]:
            del self._per_address[peer[0]]

    def began_request(self, peer: Peer) -> None:
        """Note that the headers of a request are complete."""
        if peer in self._open:
            self._requests[peer] += 1
            self._waiting_since.pop(peer, None)

    def ended_request(self, peer: Peer) -> None:
        """Note that a request was answered; the next one may have begun before, as soon as its answer was sent."""
        if peer in self._open:
            self._served.add(peer)
            self._requests[peer] -= 1
            if self._requests[peer] <= 0:
                self._waiting_since[peer] = self._clock()

    def close_slow(self) -> None:
        """Shut down the connections that wait too long for the headers of a request.

        Those that had a request before are idle and no offence; Uvicorn's own closing waits for the other side.
        """
        latest = self._clock() - HEADER_TIMEOUT_S
        for peer in [peer for peer, since in self._waiting_since.items() if since < latest]:
            del self._waiting_since[peer]
            if peer not in self._served:
                self._refusals.add(SLOW_HEADERS, peer[0])
            with suppress(OSError):  # the server reads the end of the connection, and closes it
                self._open[peer].shutdown(socket.SHUT_RDWR)

    def refused(self, peer: Peer, reason: str) -> None:
        """Count a connection that was not opened."""
        self._refusals.add(reason, f"{peer[0]}, {len(self._open):,} open")


class _Connection(socket.socket):
    """An accepted connection that is forgotten when it is closed."""

    connections: Connections
    peer: Peer

    def close(self) -> None:
        """Close it."""
        self.connections.closed(self.peer)
        super().close()


class LimitedListener(socket.socket):
    """A listening socket that accepts within limits; asyncio accepts connections through it.

    Args:
        listening: The bound socket, whose descriptor it takes over.
        connections: What is open, and the limits.
    """

    def __init__(self, listening: socket.socket, *, connections: Connections) -> None:
        family, kind, protocol = listening.family, listening.type, listening.proto
        super().__init__(family, kind, protocol, fileno=listening.detach())
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            ConnectionAbortedError: If it was over a limit, and closed: asyncio goes on with its other work.
        """
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        connection = _Connection(self.family, self.type, self.proto, fileno=descriptor)
        connection.connections, connection.peer = self._connections, (str(address[0]), int(address[1]))
        reason = self._connections.refusal(connection.peer, own_address=str(connection.getsockname()[0]))
        if reason is not None:
            connection.close()
            self._connections.refused(connection.peer, reason)
            raise ConnectionAbortedError(reason)
        self._connections.opened(connection.peer, connection)
        return connection, address
