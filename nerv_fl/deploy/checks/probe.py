"""One connection to the SuperLink: its certificate and its clock, or the stage at which no answer came.

The connection is made directly. Nothing is sent over it but a request for a path that does not exist.
"""

import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final

from cryptography import x509

TIMEOUT_S: Final = 5.0
PATH: Final = "/v1/fleet/"
"""Beginning of the paths of SuperNodes, which other machines may ask for; this one by itself is nobody's."""


class Stage(StrEnum):
    """The step at which a connection failed."""

    NAME = "name"
    CONNECTION = "connection"
    HANDSHAKE = "handshake"
    AUTHORITY = "authority"
    HOST = "host"
    DATE = "date"
    REPLY = "reply"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What came of a connection.

    Attributes:
        failed_at: The stage at which it ended, `NONE` if the server answered.
        reason: The system's or OpenSSL's words for the failure.
        certificate: What the server showed, if the handshake went so far.
        ahead_s: Seconds by which this machine's clock is ahead of the server's, negative if behind; None if unknown.
        uncertainty_s: Largest error of `ahead_s`.
    """

    failed_at: Stage
    reason: str = ""
    certificate: x509.Certificate | None = None
    ahead_s: float | None = None
    uncertainty_s: float = 0.0


def probe_server(host: str, port: int, *, authority: Path, timeout_s: float = TIMEOUT_S) -> Probe:
    """Connect to a server once, and return what came of it.

    Args:
        host: Name or address.
        port: Port.
        authority: Certificate of the authority that must have issued the server's.
        timeout_s: Longest wait for each step.

    Raises:
        OSError: If the authority's certificate cannot be read.
    """
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        return Probe(failed_at=Stage.NAME, reason=_reason(error))
    context = ssl.create_default_context(cafile=str(authority))
    connection = HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            pass
    except OSError as error:
        return Probe(failed_at=Stage.CONNECTION, reason=_reason(error))
    try:
        connection.connect()
        return _ask(connection)
    except ssl.SSLCertVerificationError as error:
        return Probe(
            failed_at=_stage_of(error), reason=error.verify_message, certificate=_shown(host, port, timeout_s=timeout_s)
        )
    except OSError as error:
        return Probe(failed_at=Stage.HANDSHAKE, reason=_reason(error))
    finally:
        connection.close()


def _ask(connection: HTTPSConnection) -> Probe:
    """Compare clocks: the reply's Date header is a whole second, and servers renew it once a second."""
    certificate = x509.load_der_x509_certificate(connection.sock.getpeercert(binary_form=True) or b"")
    before = time.time()
    try:
        connection.request("GET", PATH)
        date = connection.getresponse().getheader("Date", "")
    except (OSError, HTTPException) as error:
        return Probe(failed_at=Stage.REPLY, reason=_reason(error), certificate=certificate)
    waited_s = time.time() - before
    try:
        server = parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return Probe(failed_at=Stage.NONE, certificate=certificate)
    local = datetime.fromtimestamp(before + waited_s / 2, UTC).timestamp()
    return Probe(
        failed_at=Stage.NONE, certificate=certificate, ahead_s=local - (server + 1), uncertainty_s=1 + waited_s / 2
    )


def _stage_of(error: ssl.SSLCertVerificationError) -> Stage:
    """Return the stage for OpenSSL's verification codes (x509_vfy.h)."""
    out_of_date, other_name = (9, 10), (62, 64)
    if error.verify_code in out_of_date:
        return Stage.DATE
    return Stage.HOST if error.verify_code in other_name else Stage.AUTHORITY


def _shown(host: str, port: int, *, timeout_s: float) -> x509.Certificate | None:
    """Return the certificate that a server shows, whoever issued it: it is described to the operator, not trusted."""
    try:
        return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, port), timeout=timeout_s).encode())
    except (OSError, ValueError):
        return None


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
