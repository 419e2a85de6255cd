"""SuperNodes' requests that are refused before Flower reads them, with a fake app in Flower's place."""

import asyncio
import errno
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from google.protobuf.message import Message as Protobuf
from starlette.types import Message, Receive, Scope, Send

from nerv_fl.deploy import fleet_guard
from nerv_fl.deploy.fleet_guard import FleetGuard, OutOfService
from nerv_fl.deploy.fleet_paths import ACTIVATE, HEARTBEAT, KIND_HEADER
from nerv_fl.deploy.refusals import RefusalLog

PULL, PUSH = "/v1/fleet/pull-messages", "/v1/fleet/push-object"
KEY = ec.generate_private_key(ec.SECP384R1())
LIMIT: Final = 1000


def signed(*, ahead_s: float = 0.0, key: ec.EllipticCurvePrivateKey = KEY) -> dict[str, str]:
    """Return the headers of a SuperNode whose clock is ahead."""
    time = (now() + timedelta(seconds=ahead_s)).isoformat()
    return {
        "flwr-public-key": b64encode(public_key_to_bytes(key.public_key())).decode(),
        "flwr-signature": b64encode(sign_message(key, time.encode())).decode(),
        "flwr-timestamp": time,
    }


@dataclass
class Server:
    """The guard, with Flower behind it that notes the bodies it gets."""

    is_registered: bool = True
    bodies: list[bytes] = field(default_factory=list)
    chunks_read: int = 0
    refusals: RefusalLog = field(default_factory=RefusalLog)

    def ask(self, path: str, headers: dict[str, str], chunks: list[bytes] | None = None) -> tuple[int, str, str]:
        """Return status, kind and text of the answer to a request."""
        return asyncio.run(self.answer(path, headers, chunks or [b""]))

    async def answer(self, path: str, headers: dict[str, str], chunks: list[bytes]) -> tuple[int, str, str]:
        sent: list[Message] = []
        waiting = list(chunks)

        async def receive() -> Message:
            self.chunks_read += 1
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: Message) -> None:
            sent.append(message)

        guard = FleetGuard(
            self._flower, is_registered=lambda _key: self.is_registered, max_body_bytes=LIMIT, refusals=self.refusals
        )
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope: Scope = {"type": "http", "path": path, "client": ("10.1.0.2", 4), "method": "POST", "headers": raw}
        await guard(scope, receive, send)
        answered = dict(sent[0]["headers"])
        return sent[0]["status"], answered.get(KIND_HEADER.encode(), b"").decode(), sent[-1].get("body", b"").decode()

    async def _flower(self, _scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})


def test_a_registered_nodes_request_reaches_flower_whole() -> None:
    server = Server()

    assert server.ask(PUSH, signed(), [b"ab", b"", b"cd"])[0] == 200
    assert server.bodies == [b"abcd"]


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in signed().items() if key != name}


RSA: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        without("flwr-public-key"),
        without("flwr-signature"),
        without("flwr-timestamp"),
        signed() | {"flwr-timestamp": now().isoformat()},
        signed() | {"flwr-timestamp": "2026-11-29T12:00:00"},
        signed() | {"flwr-timestamp": "yesterday"},
        signed() | {"flwr-signature": "?"},
        signed() | {"flwr-public-key": "AAAA"},
        signed() | {"flwr-public-key": b64encode(public_key_to_bytes(RSA)).decode()},  # type: ignore[arg-type]
        signed(key=ec.generate_private_key(ec.SECP384R1())) | {"flwr-public-key": signed()["flwr-public-key"]},
    ],
)
def test_a_request_that_nobody_signed_is_refused_unread(headers: dict[str, str]) -> None:
    server = Server()
    status, kind, _ = server.ask(PUSH, headers, [b"x" * 100] * 10**4)

    assert (status, kind) == (401, "signature")
    assert server.chunks_read == 0
    assert not server.bodies


@pytest.mark.parametrize(
    ("ahead_s", "text"), [(5.5, "5.5 s ahead of the SuperLink's"), (-306.0, "306.0 s behind the SuperLink's")]
)
def test_a_clock_that_is_off_is_waited_for_and_says_how_far(ahead_s: float, text: str) -> None:
    status, kind, said = Server().ask(PULL, signed(ahead_s=ahead_s))

    assert (status, kind) == (503, "clock")
    assert f"this SuperNode's clock is {text}" in said


@pytest.mark.parametrize("ahead_s", [4.0, -303.0])
def test_a_clock_that_is_nearly_right_is_right(ahead_s: float) -> None:
    assert Server().ask(PULL, signed(ahead_s=ahead_s))[0] == 200


@pytest.mark.parametrize(("path", "status"), [(ACTIVATE, 503), (HEARTBEAT, 503), (PULL, 401), (PUSH, 401)])
def test_a_key_that_is_not_registered_is_waited_for_where_a_node_begins_or_trains(path: str, status: int) -> None:
    server = Server(is_registered=False)

    text = "this SuperNode's key is not registered\n"
    assert server.ask(path, signed(), [b"x" * 10]) == (status, "unregistered", text)
    assert server.chunks_read == 0


@pytest.mark.parametrize("length", [str(10**9), "-1", "many", str(LIMIT + 1)])
def test_a_body_that_says_it_is_too_large_is_refused_unread(length: str) -> None:
    server = Server()
    status, kind, _ = server.ask(PUSH, signed() | {"content-length": length}, [b"x"])

    assert (status, kind) == (413, "body")
    assert server.chunks_read == 0


def test_a_body_that_does_not_say_so_is_read_up_to_the_limit() -> None:
    server = Server()
    status, kind, _ = server.ask(PUSH, signed(), [b"x" * 100] * 1000)

    assert (status, kind) == (413, "body")
    assert server.chunks_read == LIMIT // 100 + 1
    assert Server().ask(PUSH, signed(), [b"x" * LIMIT])[0] == 200


def test_a_body_that_pauses_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_guard, "BODY_PAUSE_S", 0.05)

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(fleet_guard.Refusal) as caught:
        asyncio.run(fleet_guard._receive_in_time(never, deadline=1e12))
    assert (caught.value.status, caught.value.kind) == (408, "slow body")


ANNOUNCING: Final[list[tuple[str, Callable[..., Protobuf]]]] = [
    (ACTIVATE, ActivateNodeRequest),
    (HEARTBEAT, SendNodeHeartbeatRequest),
]


@pytest.mark.parametrize(("path", "request_of"), ANNOUNCING)
@pytest.mark.parametrize(("interval_s", "status"), [(30, 200), (60, 200), (61, 400), (1800, 400), (float("nan"), 400)])
def test_a_node_announces_no_long_silence(
    path: str, request_of: Callable[..., Protobuf], interval_s: float, status: int
) -> None:
    body = request_of(heartbeat_interval=interval_s).SerializeToString()

    assert Server().ask(path, signed(), [body])[0] == status


def test_what_is_not_for_nodes_passes() -> None:
    server = Server(is_registered=False)

    assert server.ask("/v1/control/start-run", {}, [b"x" * 2 * LIMIT])[0] == 200


def test_each_refusal_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    for _ in range(3):
        server.ask(PUSH, {})
    server.ask(PULL, signed(ahead_s=100))
    server.refusals.flush()

    (line,) = caplog.messages
    assert "3 x SuperNode's request, signature (last: 10.1.0.2: the request is not signed" in line
    assert "1 x SuperNode's request, clock (last: 10.1.0.2: this SuperNode's clock is 100.0 s ahead" in line


# --- A server that cannot write ---------------------------------------------------------------------------------------


def answered(error: Exception) -> int:
    """Return the status of a request whose answer fails."""
    sent: list[Message] = []

    async def failing(*_: Any) -> None:
        raise error

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "path": PULL}
    asyncio.run(OutOfService(failing, refusals=RefusalLog())(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk is full"), OSError(errno.ENOSPC, "full")])
def test_a_database_that_fails_is_to_be_asked_again(error: Exception) -> None:
    assert answered(error) == 503


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.EPERM, "no")])
def test_another_error_stays_one(error: Exception) -> None:
    with pytest.raises(type(error)):
        answered(error)
