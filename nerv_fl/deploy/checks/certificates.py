"""Certificates: whether they can be read, are in date, are for the right host, and are of the right authority."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Certificate

from nerv_fl.deploy.certificates import (
    LOOPBACK,
    names_of,
    plain_host,
    read_certificate,
    read_key,
    require_issued_by,
)
from nerv_fl.deploy.checks.machines import FederationView, NodeView, PairView, ServerView
from nerv_fl.deploy.diagnostics import Finding, Severity

WARN_DAYS: Final = 30
"""A certificate that expires sooner is reported: renewing needs the operator who holds the authority's key."""

RENEW: Final = "call `nerv-fl deploy renew`, copy server/tls to the server and restart superlink.sh"
RENEW_AUTHORITY: Final = "an authority cannot be renewed: finish the run, and make a new federation from its weights"


def authority_is_in_date_on_node(node: NodeView) -> Iterator[Finding]:
    """Find an authority's certificate that has expired, or soon will."""
    path = node.machine.ca_certificate
    yield from _in_date(read_certificate(path), what=str(path), remedy=RENEW_AUTHORITY)


def authority_is_in_date_on_server(server: ServerView) -> Iterator[Finding]:
    """Find an authority's certificate that has expired, or soon will."""
    path = server.machine.ca_certificate
    yield from _in_date(read_certificate(path), what=str(path), remedy=RENEW_AUTHORITY)


def server_certificate_is_in_date(server: ServerView) -> Iterator[Finding]:
    """Find a server's certificate that has expired, or soon will."""
    path = server.machine.certificate
    yield from _in_date(read_certificate(path), what=str(path), remedy=RENEW)


def shown_certificate_is_in_date(node: NodeView) -> Iterator[Finding]:
    """Find, from a node, a server's certificate that soon will expire."""
    if node.asks_server and node.probe.certificate is not None and node.probe.ahead_s is not None:
        what = f"certificate that {node.endpoint.address} shows"
        yield from _in_date(node.probe.certificate, what=what, remedy=RENEW)


def server_certificate_names_the_host(server: ServerView) -> Iterator[Finding]:
    """Find a host under which nodes reach the server, and that its certificate is not for."""
    path = server.machine.certificate
    names = names_of(read_certificate(path))
    for wanted in (server.env["HOST"], LOOPBACK):
        if plain_host(wanted) not in names:
            yield Finding(
                what=str(path),
                value=f"is for {', '.join(names)}",
                expected=f"{wanted} among them",
                remedy=f"set HOST in {server.machine.env} to one of these names, or {RENEW}",
            )


def server_certificate_is_of_the_authority(server: ServerView) -> Iterator[Finding]:
    """Find a server's certificate that the authority beside it did not issue."""
    path = server.machine.certificate
    require_issued_by(read_certificate(path), read_certificate(server.machine.ca_certificate), path=path)
    yield from ()


def server_key_is_of_the_certificate(server: ServerView) -> Iterator[Finding]:
    """Find a private key that is not that of the certificate."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key, certificate = server.machine.key, server.machine.certificate
    if key.exists() and read_key(key).public_key().public_bytes(*form) != read_certificate(
        certificate
    ).public_key().public_bytes(*form):
        yield Finding(what=str(key), value="is another key", expected=f"that of {certificate}", remedy=RENEW)


def server_has_the_authoritys_certificate(federation: FederationView) -> Iterator[Finding]:
    """Find another authority on the server than the one whose private key the operator has."""
    if federation.deployment.ca_key.parent.exists():
        yield from _same(federation.server.machine.ca_certificate, of=federation.deployment.ca_certificate)


def node_has_the_servers_authority(pair: PairView) -> Iterator[Finding]:
    """Find a node that trusts another authority than the server's."""
    yield from _same(pair.node.machine.ca_certificate, of=pair.server.machine.ca_certificate)


def _same(path: Path, *, of: Path) -> Iterator[Finding]:
    if read_certificate(path) != read_certificate(of):
        yield Finding(
            what=str(path),
            value="is another authority's certificate",
            expected=f"that of {of}",
            remedy="copy that here",
        )


def _in_date(certificate: Certificate, *, what: str, remedy: str) -> Iterator[Finding]:
    begins, ends, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    dates = f"is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}"
    if now < begins:
        also = "set this machine's clock"
        yield Finding(what=what, value=dates, expected=f"{now:%Y-%m-%d} within", remedy=also)
    elif now > ends:
        yield Finding(what=what, value=dates, expected=f"{now:%Y-%m-%d} within", remedy=remedy)
    elif (days := (ends - now).days) < WARN_DAYS:
        yield Finding(
            what=what,
            value=f"{dates}, {days} days from now",
            expected=f"at least {WARN_DAYS} days",
            remedy=remedy,
            severity=Severity.WARNING,
        )
