"""What other machines reach of the SuperLink."""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.types import Message, Scope

from nerv_fl.deploy.refusals import RefusalLog
from nerv_fl.deploy.superlink import NodesAlone, chosen_limits, is_local, main
from tests.deploy.machines import Machines, deploy
from tests.simulations.processes import wait_for

SERVER: Final = ("10.1.0.1", 9092)
CONTROL, FLEET, RUNTIME = "/v1/control/StartRun", "/v1/fleet/PullMessages", "/v1/runtime/PullTask"


def status_of(path: str, *, client: tuple[str, int] | None, server: tuple[str, int] | None = SERVER) -> int:
    """Return the status of a request by its path and addresses; 200 if it came through."""
    sent: list[Message] = []

    async def inner(_scope: Scope, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "path": path, "client": client, "server": server, "method": "POST", "headers": []}
    asyncio.run(NodesAlone(inner, refusals=RefusalLog())(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", SERVER[0]])
def test_this_machine_reaches_everything(client: str) -> None:
    assert [status_of(path, client=(client, 4)) for path in (CONTROL, FLEET, RUNTIME)] == [200, 200, 200]


@pytest.mark.parametrize("client", [("10.1.0.2", 4), ("192.0.2.7", 4), ("not an address", 4), None])
def test_other_machines_reach_the_part_for_nodes_alone(client: tuple[str, int] | None) -> None:
    found = [status_of(path, client=client) for path in (CONTROL, RUNTIME, "/docs", "/", "", FLEET)]
    assert found == [403, 403, 403, 403, 403, 200]


@pytest.mark.parametrize("path", ["/v1/fleet", "//v1/fleet/x", "/V1/FLEET/x", "/v1/control/../fleet/"])
def test_a_path_that_only_looks_like_it_is_not_for_nodes(path: str) -> None:
    assert status_of(path, client=("10.1.0.2", 4)) == 403


def test_a_websocket_from_afar_is_closed_and_what_it_asked_for_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    path = "/v1/control/\nINFO all is well"
    scope: Scope = {"type": "websocket", "path": path, "client": ("10.1.0.2", 4), "server": SERVER}
    refusals = RefusalLog()
    asyncio.run(NodesAlone(None, refusals=refusals)(scope, None, send))  # type: ignore[arg-type]
    refusals.flush()

    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert "\n" not in caplog.messages[0]


def test_a_server_that_does_not_know_its_address_trusts_nobody() -> None:
    assert not is_local({"client": ("10.1.0.2", 4), "server": None})
    assert status_of(CONTROL, client=("10.1.0.2", 4), server=None) == 403


# --- With addresses of its own ----------------------------------------------------------------------------------------

HERE, AFAR, SPACE = "10.213.77.1", "10.213.77.2", f"nerv-test-{os.getpid()}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def machine_afar() -> Iterator[list[str]]:
    """The beginning of a command that runs it on another machine of the network: a network namespace."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 to make a network namespace")
    ip("netns", "add", SPACE)
    try:
        ip("link", "add", "nervtest0", "type", "veth", "peer", "name", "nervtest1", "netns", SPACE)
        ip("addr", "add", f"{HERE}/30", "dev", "nervtest0")
        ip("link", "set", "nervtest0", "up")
        ip("-n", SPACE, "addr", "add", f"{AFAR}/30", "dev", "nervtest1")
        for device in ("lo", "nervtest1"):
            ip("-n", SPACE, "link", "set", device, "up")
        yield ["ip", "netns", "exec", SPACE]
    finally:
        ip("netns", "del", SPACE)


ASK: Final = """
import ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
for url in sys.argv[2:]:
    try:
        print(urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST"), context=context).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


@pytest.mark.slow
def test_a_machine_afar_can_take_part_and_administer_nothing(tmp_path: Path, machine_afar: list[str]) -> None:
    deployment = deploy(tmp_path / "deployment", host=HERE)
    machines = Machines(deployment)
    try:
        machines.start("superlink")
        wait_for(lambda: "Uvicorn running" in machines.log("superlink").read_text(), seconds=60)
        port = deployment.server.env.read_text().partition('PORT="')[2].partition('"')[0]
        urls = [f"https://{HERE}:{port}{path}" for path in ("/v1/control/list-runs", "/v1/fleet/nothing", "/docs")]
        ask = [sys.executable, "-c", ASK, str(deployment.server.ca_certificate), *urls]
        afar = subprocess.run([*machine_afar, *ask], check=True, capture_output=True, text=True, timeout=60)
        here = subprocess.run(ask, check=True, capture_output=True, text=True, timeout=60)
        machines.call("register")
        machines.start("node-0", on=machine_afar)
        machines.wait_for_log("node-0", "SuperNode ID")
        machines.wait_for_log("superlink", f"{AFAR} asked for '/docs'")  # the last one is named
    finally:
        machines.stop()

    assert afar.stdout.split() == ["403", "401", "403"]
    assert "403" not in here.stdout


@pytest.mark.parametrize("number", [0, -5])
def test_a_number_of_connections_below_one_is_refused(number: int) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--max-connections", str(number)])

    assert caught.value.code == f"--max-connections is {number}, expected 1 or more"


@pytest.mark.parametrize(
    ("asked", "total", "why"),
    [
        (10, 128, "fewer would keep out this machine itself"),
        (4000, 1024 - 128, "ulimit -n allows no more open files"),
        (500, 500, ""),
    ],
)
def test_another_number_of_connections_than_was_asked_for_is_said(
    asked: int, total: int, why: str, *, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (1024, 1024))

    assert chosen_limits(asked).total == total
    assert capsys.readouterr().err == (f"--max-connections is {asked}, taken for {total}: {why}\n" if why else "")
