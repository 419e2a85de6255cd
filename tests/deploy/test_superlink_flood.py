"""A real SuperLink process on loopback against requests that nobody signed: large ones, and a thousand slow ones."""

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from nerv_fl.deploy.layout import SERVER_ENV, Deployment, read_env
from tests.deploy.machines import Machines, deploy
from tests.simulations.processes import wait_for

pytestmark = pytest.mark.slow

GIB: Final = 2**30
MIB: Final = 2**20
OPEN_FILES: Final = 1024
BASE_S: Final = 120.0


class Target:
    """A SuperLink that serves.

    Args:
        machines: The deployment it is of.
        script: The process of its start script.
    """

    def __init__(self, machines: Machines, script: subprocess.Popen[bytes]) -> None:
        server = machines.deployment.server
        self.address = ("127.0.0.1", int(read_env(server.env, names=SERVER_ENV)["PORT"]))
        self._context = ssl.create_default_context(cafile=str(server.ca_certificate))
        self._script = script
        self._log = machines.log("superlink")

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def peak_bytes(self) -> int:
        """Return the most memory that its process ever had."""
        status = Path(f"/proc/{self._script.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    def connect(self, *, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """Open a connection with TLS, from some loopback address."""
        plain = socket.create_connection(self.address, timeout=30, source_address=(source, 0))
        return self._context.wrap_socket(plain, server_hostname="127.0.0.1")

    def post(self, path: str, *, length: int, headers: str = "", chunk: bytes = b"x" * MIB) -> tuple[bytes, int]:
        """Send a request of so many bytes until it is answered or closed; return the first line and what was sent."""
        sent = 0
        with self.connect() as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/protobuf\r\n{headers}"
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                while sent < length:
                    sent += connection.send(chunk)
            with contextlib.suppress(OSError):
                return connection.recv(4096).partition(b"\r\n")[0], sent
        return b"", sent


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A SuperLink of which no more files may be open than is usual."""
    deployment: Deployment = deploy(tmp_path / "deployment")
    machines = Machines(deployment)
    limited = ["sh", "-c", f'ulimit -S -n {OPEN_FILES}; ulimit -H -n {OPEN_FILES}; exec "$0"']
    try:
        machines.start("superlink", on=limited)
        wait_for(lambda: "Uvicorn running" in machines.log("superlink").read_text(), seconds=BASE_S)
        yield Target(machines, machines._running["superlink"])
    finally:
        machines.stop()


def test_a_gigabyte_that_nobody_signed_is_not_held_in_memory(target: Target) -> None:
    before = target.peak_bytes()
    answers = [target.post(f"/v1/fleet/{path}", length=GIB) for path in ("push-object", "activate-node", "nothing")]
    grown = target.peak_bytes() - before

    assert {answer for answer, _ in answers} <= {b"HTTP/1.1 401 Unauthorized", b""}
    assert grown < 30 * MIB, f"{grown / MIB:.1f} MiB more than {before / MIB:.0f}"
    wait_for(lambda: "SuperNode's request, signature" in target.log, seconds=60)


def test_a_thousand_slow_connections_lock_nobody_out_and_are_logged(target: Target) -> None:
    before = target.peak_bytes()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(target.address, timeout=30)) for _ in range(600)]
        slow += [stack.enter_context(open_from("127.0.0.9", target)) for _ in range(600)]
        begun = time.monotonic()
        with target.connect(source="127.0.0.3") as other:
            other.sendall(b"POST /v1/fleet/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            assert other.recv(4096).startswith(b"HTTP/1.1 401")
        waited_s = time.monotonic() - begun
        wait_for(lambda: "connection beyond the limit of one address" in target.log, seconds=90)
        wait_for(lambda: "connection without a request in 15 s" in target.log, seconds=120)
        with target.connect():
            pass  # the address that had them all gets in again
    grown = target.peak_bytes() - before

    assert "out of system resource" not in target.log
    assert waited_s < 60
    assert grown < 150 * MIB, f"{grown / MIB:.1f} MiB more for {len(slow)} connections"


def open_from(source: str, target: Target) -> socket.socket:
    return socket.create_connection(target.address, timeout=30, source_address=(source, 0))
