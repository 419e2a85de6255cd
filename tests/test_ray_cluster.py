import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from nerv_fl import ray_cluster
from nerv_fl.errors import ConfigError, SetupError
from nerv_fl.ray_cluster import LONGEST_SOCKET, require_grpc, start_ray

ROOT = Path(__file__).parents[1]
START_AND_STOP = (
    "from nerv_fl.ray_cluster import *; import ray; start_ray('local', num_cpus=1); print(len(ray.nodes()))"
)


@pytest.fixture
def inits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each `ray.init`, which starts nothing; no variable that Ray reads is set."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **arguments: calls.append(arguments))
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    return calls


@contextmanager
def server(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Give the port of a server that answers one connection."""

    def serve() -> None:
        with listener.accept()[0] as connection:
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("variable", ["127.0.0.1:1", "auto", "ray://10.0.0.1:10001"])
def test_local_is_local_whatever_ray_address_says(
    inits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)

    start_ray("local", num_cpus=3)

    assert inits == [
        {
            "address": "local",
            "num_cpus": 3,
            "_node_ip_address": "127.0.0.1",
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.WARNING,
        }
    ]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("folder", ["/tmp/" + 78 * "x", "/tmp/" + 38 * "x", "/tmp/café", "/tmp/実行"])
def test_sockets_get_a_short_ascii_folder(
    inits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str, folder: str
) -> None:
    monkeypatch.setenv(name, folder)

    start_ray("local")

    assert inits[0]["_temp_dir"] == "/tmp/ray"


def test_a_folder_that_sockets_fit_in_is_used(inits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp/" + 30 * "x")

    start_ray("local")

    assert "_temp_dir" not in inits[0]


def test_no_folder_for_sockets_is_one_line(
    inits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(ray_cluster, "SHORT_TEMPORARY", tmp_path / "file" / "ray")
    monkeypatch.setenv("TMPDIR", "/tmp/" + 78 * "x")

    with pytest.raises(
        SetupError, match=r"^Ray's temporary files would go to .* at most \d\d bytes, and .*: set RAY_"
    ) as error:
        start_ray("local")

    assert "\n" not in str(error.value)
    assert inits == []


@pytest.mark.parametrize("error", [ConnectionError("a\nb"), TimeoutError(), ValueError("c"), Exception("d\n\ne")])
def test_whatever_keeps_ray_from_starting_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**_arguments: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)

    first = (str(error) or type(error).__name__).splitlines()[0]
    with pytest.raises(SetupError, match=rf"^Ray cannot start on this machine: {first}; expected a free port [^\n]*$"):
        start_ray("local")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_an_address_where_nothing_listens_is_one_line(inits: list[dict[str, Any]]) -> None:
    address = f"127.0.0.1:{closed_port()}"
    expected = re.escape(f"ray is {address!r}, expected the address of a running cluster (")

    with pytest.raises(ConfigError, match=rf"^{expected}[^\n]*\)$"):
        start_ray(address)

    assert inits == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda connection: connection.sendall(b"HTTP/1.0 400 Bad request\r\n\r\n"),
        lambda connection: connection.sendall(b"SSH"),
        lambda connection: connection.recv(1),
        lambda connection: connection.recv(1000) and connection.recv(1000),
    ],
    ids=["http", "short", "closes", "silent"],
)
def test_what_is_no_cluster_is_found_out_in_seconds(
    inits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], object]
) -> None:
    monkeypatch.setattr(ray_cluster, "REACHED_S", 0.3)
    with server(answer) as port, pytest.raises(ConfigError, match=r"^ray is [^\n]*$"):
        start_ray(f"127.0.0.1:{port}")
    assert inits == []


def test_a_grpc_server_is_recognised() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")

    with server(answer) as port:
        require_grpc("127.0.0.1", port)


def test_workers_find_modules_where_this_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **_arguments: seen.append(os.environ["PYTHONPATH"]))
    monkeypatch.setattr(sys, "path", [*sys.path, "/appended"])
    monkeypatch.setenv("PYTHONPATH", "/before")

    start_ray("local")

    assert seen == [os.pathsep.join(sys.path)]
    assert os.environ["PYTHONPATH"] == "/before"


@pytest.mark.slow
@pytest.mark.parametrize("folder", [83 * "x", "café"])
def test_ray_starts_with_such_folders_and_another_address(folder: str, tmp_path: Path) -> None:
    temporary = tmp_path / folder
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "RAY_ADDRESS": "127.0.0.1:1", "PYTHONPATH": str(ROOT)}
    assert len(str(temporary)) < LONGEST_SOCKET * 3

    done = subprocess.run(
        [sys.executable, "-c", START_AND_STOP],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
