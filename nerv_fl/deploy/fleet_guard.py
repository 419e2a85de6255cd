"""Checks on SuperNodes' requests that come before Flower reads them.

Flower reads a request's whole body before it checks who sent it. Here the order is: signature over the time (in the
headers), whether the key is registered, the body's size, the time it takes, and the heartbeat interval it announces.

Answers whose cause passes by itself (a clock that is off, a key that is not registered, a disk that is full) have
status 503: Flower's SuperNode then asks again, where any other would end it. Each refusal names its kind in a header.
"""

import asyncio
import errno
import sqlite3
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from google.protobuf.message import DecodeError
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nerv_fl.deploy.fleet_paths import ACTIVATE, FOR_NODES, HEARTBEAT, KIND_HEADER
from nerv_fl.deploy.refusals import RefusalLog

MAX_HEARTBEAT_S: Final = 60
"""Flower's SuperNode announces 30 s. A node counts as online for twice what it announces, and a round waits for it."""

BODY_PAUSE_S: Final = 20.0
"""Longest time without a byte of a body."""

BODY_BASE_S, BODY_BYTES_PER_S = 60.0, 32 * 1024
"""A body may take this time, and one second more for each so many bytes that are allowed."""

IsRegistered: TypeAlias = Callable[[bytes], bool]
"""Returns whether a SuperNode's public key, in PEM, is registered."""


@dataclass(kw_only=True, eq=False)
class Refusal(Exception):  # noqa: N818 - what is answered, not what went wrong here
    """The answer to a request that is refused.

    Attributes:
        kind: A word for programs, in the header.
        status: HTTP status.
        text: One line for readers.
    """

    kind: str
    status: int
    text: str


def signed_by(headers: Headers, *, at: datetime) -> bytes:
    """Return the public key (PEM) whose signature a request's headers carry, over a time that is near.

    Raises:
        Refusal: "signature" if there is no valid one, "clock" if it is valid and the time is too far off.

    Source: Flower 1.41, `flwr.superlink.routers.fleet.node_auth.authenticate_node`.
    """
    try:
        key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
        signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
        timestamp = headers[TIMESTAMP_HEADER]
        age_s = (at - datetime.fromisoformat(timestamp)).total_seconds()
        is_valid = verify_signature(bytes_to_public_key(key), timestamp.encode("ascii"), signature)
    except (KeyError, ValueError, TypeError, AttributeError, UnicodeError, Base64Error, UnsupportedAlgorithm) as error:
        raise _no_signature() from error
    if not is_valid:
        raise _no_signature()
    if not -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
        raise Refusal(kind="clock", status=503, text=_clock_text(age_s))
    return key


def _no_signature() -> Refusal:
    return Refusal(kind="signature", status=401, text="the request is not signed, expected a SuperNode's signature")


def _clock_text(age_s: float) -> str:
    direction = "behind" if age_s > 0 else "ahead of"
    return (
        f"this SuperNode's clock is {abs(age_s):.1f} s {direction} the SuperLink's, expected less than "
        f"{SYSTEM_TIME_TOLERANCE} s ahead and {TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE} s behind: set the clock "
        "that is wrong (NTP)"
    )


class FleetGuard:
    """Refuses SuperNodes' requests that are unsigned, unregistered, too large, too slow or announce too long a silence.

    Args:
        app: Flower's, which gets the requests that pass with their whole bodies, and all that are not for SuperNodes.
        is_registered: Asked in a thread.
        max_body_bytes: Largest body.
        refusals: Where refusals are counted.
        clock: The time of day, with its zone.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        is_registered: IsRegistered,
        max_body_bytes: int,
        refusals: RefusalLog,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._app = app
        self._is_registered = is_registered
        self._max_body_bytes = max_body_bytes
        self._refusals = refusals
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(FOR_NODES):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._checked_body(scope, receive)
        except Refusal as refusal:
            address = str((scope.get("client") or ("an unknown address",))[0])
            self._refusals.add(f"SuperNode's request, {refusal.kind}", f"{address}: {refusal.text}")
            await _answer(refusal)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _checked_body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body, or None if the other side went away.

        Raises:
            Refusal: If the request is to be refused.
        """
        headers, path = Headers(scope=scope), str(scope["path"])
        key = signed_by(headers, at=self._clock())
        self._check_length(headers)
        if not await self._registered(key):
            # A heartbeat may come in the middle of training, whose result is not thrown away; what is asked next is.
            status = 503 if path in (ACTIVATE, HEARTBEAT) else 401
            raise Refusal(kind="unregistered", status=status, text="this SuperNode's key is not registered")
        body = await self._read(receive)
        if body is not None:
            _check_heartbeat(path, body)
        return body

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body_bytes:
            raise self._too_large(f"{length:.20} bytes")

    def _too_large(self, size: str) -> Refusal:
        text = f"the body has {size}, expected at most {self._max_body_bytes:,}: twice the model"
        return Refusal(kind="body", status=413, text=text)

    async def _registered(self, key: bytes) -> bool:
        try:
            return await run_in_threadpool(self._is_registered, key)
        except Exception as error:
            if not is_out_of_service(error):
                raise
            raise Refusal(kind="database", status=503, text=OUT_OF_SERVICE) from error

    async def _read(self, receive: Receive) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        deadline = time.monotonic() + BODY_BASE_S + self._max_body_bytes / BODY_BYTES_PER_S
        while True:
            message = await _receive_in_time(receive, deadline=deadline)
            if message["type"] != "http.request":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_body_bytes:
                raise self._too_large("more bytes")
            if not message.get("more_body", False):
                return b"".join(chunks)


async def _receive_in_time(receive: Receive, *, deadline: float) -> Message:
    try:
        async with asyncio.timeout(min(BODY_PAUSE_S, deadline - time.monotonic())):
            return await receive()
    except TimeoutError as error:
        raise Refusal(kind="slow body", status=408, text="the body comes too slowly") from error


def _check_heartbeat(path: str, body: bytes) -> None:
    """Refuse an announced silence after which a round would wait too long for a node that is gone."""
    if path not in (ACTIVATE, HEARTBEAT):
        return
    request = ActivateNodeRequest() if path == ACTIVATE else SendNodeHeartbeatRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        return  # Flower says so
    interval_s = request.heartbeat_interval
    if not 0 <= interval_s <= MAX_HEARTBEAT_S:
        text = f"heartbeat interval is {interval_s:g} s, expected at most {MAX_HEARTBEAT_S} s"
        raise Refusal(kind="heartbeat", status=400, text=text)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a function that gives a body that was read, once, and then what comes after it."""
    whole: list[bytes] = [body]

    async def replayed() -> Message:
        if whole:
            return {"type": "http.request", "body": whole.pop(), "more_body": False}
        return await receive()

    return replayed


def _answer(refusal: Refusal) -> PlainTextResponse:
    """Return the response, after which the connection is closed: what is left of the body is not read."""
    headers = {KIND_HEADER: refusal.kind, "connection": "close"}
    return PlainTextResponse(f"{refusal.text}\n", status_code=refusal.status, headers=headers)


# --- A server that cannot write ---------------------------------------------------------------------------------------

OUT_OF_SERVICE: Final = "the SuperLink cannot use its database now (is its disk full?)"


def is_out_of_service(error: BaseException) -> bool:
    """Return whether an error is of the database or the disk, and may pass by itself."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, OperationalError | sqlite3.OperationalError)


class OutOfService:
    """Answers 503 where the database cannot be used: Flower answers 500, at which SuperNodes leave.

    Args:
        app: What answers, inside of everything that makes another error of one.
        refusals: Where refusals are counted.
    """

    def __init__(self, app: ASGIApp, *, refusals: RefusalLog) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or say that it is to be repeated."""
        has_started = False

        async def noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if has_started or scope["type"] != "http" or not is_out_of_service(error):
                raise
            self._refusals.add("request that the database failed", f"{scope['path']}: {' '.join(str(error).split())}")
            response = JSONResponse({"detail": OUT_OF_SERVICE}, status_code=503, headers={KIND_HEADER: "database"})
            await response(scope, receive, send)
