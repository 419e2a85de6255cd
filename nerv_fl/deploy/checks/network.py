"""Whether this machine reaches the SuperLink: name, port, TLS, the names of the certificate, and the clocks."""

import errno
import socket
from collections.abc import Iterator
from typing import Final, TypeAlias

from nerv_fl.deploy.certificates import LOOPBACK, fingerprint, names_of, plain_host, read_certificate
from nerv_fl.deploy.checks.machines import NodeView, PairView, ServerView
from nerv_fl.deploy.checks.probe import Stage
from nerv_fl.deploy.diagnostics import Finding, Severity
from nerv_fl.deploy.layout import port_of

Asking: TypeAlias = NodeView | ServerView

MAX_AHEAD_S: Final = 5.0
MAX_BEHIND_S: Final = 305.0
"""Flower 1.41 refuses a request whose signed time is outside of these (`flwr.common.constant`: SYSTEM_TIME_TOLERANCE,
TIMESTAMP_TOLERANCE)."""

WARN_AHEAD_S: Final = 3.0
WARN_BEHIND_S: Final = 60.0
MARGIN_S: Final = 1.0
"""Clocks drift: what is this close to being refused counts as refused."""

_UNREACHABLE: Final = (
    "start superlink.sh on the server, and let its firewall pass this port; --no-server skips this check"
)


def runtime_port_is_free(node: NodeView) -> Iterator[Finding]:
    """Find another program at the port of the SuperNode's own app."""
    if node.options.ports:
        text = node.env["RUNTIME_PORT"]
        port = port_of(node.machine.env, "RUNTIME_PORT", text)
        yield from _port_taken(f"{node.machine.env}: RUNTIME_PORT", LOOPBACK, port=port)


def port_is_free(server: ServerView) -> Iterator[Finding]:
    """Find another program at the SuperLink's port, or an address to bind that this machine does not have."""
    if server.options.ports:
        port = port_of(server.machine.env, "PORT", server.env["PORT"])
        for found in _port_taken(f"{server.machine.env}: PORT", server.env["BIND"], port=port):
            if server.here or found.remedy == _TAKEN:
                yield found


def server_name_is_known(machine: Asking) -> Iterator[Finding]:
    """Find a name that this machine's resolver does not know."""
    endpoint = machine.endpoint
    try:
        socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        yield Finding(
            what=endpoint.setting,
            value=f"is {endpoint.address!r}, a name that is unknown on this machine ({error})",
            expected="a name that resolves",
            remedy="correct it, or make the name known in DNS or in /etc/hosts",
            # The folder of a federation may lie on a machine that is no part of it.
            severity=Severity.ERROR if machine.here else Severity.WARNING,
        )


def server_answers(machine: Asking) -> Iterator[Finding]:
    """Find a server that is down, a port that is closed, and a program there that speaks no TLS."""
    if not machine.asks_server:
        return
    endpoint, probe = machine.endpoint, machine.probe
    where = f"is {endpoint.address!r}"
    if probe.failed_at == Stage.CONNECTION:
        yield Finding(
            what=endpoint.setting,
            value=f"{where}, which cannot be connected to ({probe.reason})",
            expected="the SuperLink there",
            remedy=_UNREACHABLE,
        )
    elif probe.failed_at in {Stage.HANDSHAKE, Stage.REPLY}:
        yield Finding(
            what=endpoint.setting,
            value=f"{where}, where something does not answer as the SuperLink does ({probe.reason})",
            expected="HTTPS",
            remedy="correct the address, or end the other program; nothing between the machines may end TLS",
        )


def server_shows_a_trusted_certificate(machine: Asking) -> Iterator[Finding]:
    """Find a certificate of another authority, for another name, or out of date, as the server shows it."""
    if not machine.asks_server:
        return
    endpoint, probe = machine.endpoint, machine.probe
    shown = probe.certificate
    what = f"certificate that {endpoint.address} shows"
    if probe.failed_at == Stage.AUTHORITY:
        yield Finding(
            what=what,
            value=f"is issued by another authority than {endpoint.authority} ({probe.reason})",
            expected=f"one of the authority {fingerprint(read_certificate(endpoint.authority))}",
            remedy="this is another server, or ca.crt is of another federation: copy the right ca.crt here, or make "
            "the server's certificate with `nerv-fl deploy renew`",
        )
    elif probe.failed_at == Stage.HOST:
        names = ", ".join(names_of(shown)) if shown is not None else "other names"
        yield Finding(
            what=what,
            value=f"is for {names}",
            expected=f"{endpoint.host} among them ({endpoint.setting})",
            remedy="use one of these names, or set HOST in the server's machine.env and call `nerv-fl deploy renew`",
        )
    elif probe.failed_at == Stage.DATE:
        dates = f"from {shown.not_valid_before_utc:%Y-%m-%d} to {shown.not_valid_after_utc:%Y-%m-%d}" if shown else ""
        yield Finding(
            what=what,
            value=f"is not valid now ({probe.reason}; {dates})",
            expected="one that is valid by this machine's clock",
            remedy="call `nerv-fl deploy renew` and restart superlink.sh; or set this machine's clock",
        )


def clock_agrees_with_the_server(machine: Asking) -> Iterator[Finding]:
    """Find a clock that is so far off that the SuperLink refuses, or soon will refuse, what a node signs."""
    if not machine.asks_server or machine.probe.ahead_s is None:
        return
    ahead_s, unsure_s = machine.probe.ahead_s, machine.probe.uncertainty_s
    refused = ahead_s + MARGIN_S > MAX_AHEAD_S or -ahead_s + MARGIN_S > MAX_BEHIND_S
    if refused or ahead_s - unsure_s > WARN_AHEAD_S or -ahead_s - unsure_s > WARN_BEHIND_S:
        yield Finding(
            what="clock of this machine",
            value=f"is {_duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} the server's "
            f"({machine.endpoint.address}, to within {unsure_s:.1f} s)",
            expected=f"at most {MAX_AHEAD_S:.0f} s ahead and {MAX_BEHIND_S:.0f} s behind, or the SuperLink refuses it",
            remedy="let both machines keep time by NTP, such as with `timedatectl set-ntp true`",
            severity=Severity.ERROR if refused else Severity.WARNING,
        )


def superlink_shows_the_certificate_on_disk(server: ServerView) -> Iterator[Finding]:
    """Find a SuperLink that was not restarted after its certificate was renewed."""
    if not server.asks_server or server.probe.certificate is None:
        return
    if server.probe.failed_at != Stage.AUTHORITY and server.probe.certificate != read_certificate(
        server.machine.certificate
    ):
        yield Finding(
            what=f"certificate that {server.endpoint.address} shows",
            value="is another one",
            expected=f"that of {server.machine.certificate}",
            remedy="restart superlink.sh: it reads the certificate when it starts",
            severity=Severity.WARNING,
        )


def node_reaches_the_servers_address(pair: PairView) -> Iterator[Finding]:
    """Find a node that has another port than the server, or a host that is not in the server's certificate."""
    node, server = pair.node, pair.server
    names = names_of(read_certificate(server.machine.certificate))
    if node.endpoint.port != server.endpoint.port or plain_host(node.endpoint.host) not in names:
        yield Finding(
            what=node.endpoint.setting,
            value=f"is {node.endpoint.address!r}",
            expected=f"{server.endpoint.address!r}, or another name that the certificate is for ({', '.join(names)})",
            remedy="correct it; for another name set HOST in the server's machine.env and call `nerv-fl deploy renew`",
        )


_TAKEN: Final = "end the other program, or set another port; --no-ports if it is this federation's own"


def _port_taken(what: str, host: str, *, port: int) -> Iterator[Finding]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except UnicodeError as error:  # such as "fl..example.org": no label of a name may be empty, or too long
        yield Finding(
            what=what,
            value=f"is {port} on {host!r}, which is no host name ({error})",
            expected="a name or an address of this machine",
            remedy="correct the address",
        )
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        remedy = _TAKEN if taken else "set it to one that this machine and this user can listen on"
        expected = f"one that is free ({error.strerror})" if taken else f"one to listen on ({error.strerror})"
        yield Finding(what=what, value=f"is {port} on {host}", expected=expected, remedy=remedy)


def _duration(seconds: float) -> str:
    minute, hour = 60, 3600
    if seconds < 2 * minute:
        return f"{seconds:.0f} s"
    return f"{seconds / minute:.1f} min" if seconds < 2 * hour else f"{seconds / hour:.1f} h"
