"""The supervision of a run, with a server of a few lines in place of Flower's."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from nerv_fl.deploy.run_supervisor import MAX_FAILURES, RunFiles, Supervisor, hold_supervision, main
from nerv_fl.errors import CheckpointError
from nerv_fl.io.locks import holder_of
from nerv_fl.server.run_folder import RunFolder
from tests.simulations.processes import ROOT, wait_for

ROUNDS: Final = 3

SERVER: Final = """
import fcntl, json, os, pathlib, sys, time
run, plan = pathlib.Path("run"), pathlib.Path("plan")
starts = json.loads(plan.read_text())
rounds, how = starts.pop(0)
plan.write_text(json.dumps(starts))
if how == "no server":
    sys.exit(0)
lock = open(run / ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(f"{os.getpid()}\\n")
lock.flush()
for number in range(rounds):
    with open(run / "rounds.jsonl", "a+") as file:
        file.seek(0)
        file.write(json.dumps({"round": len(file.read().splitlines())}) + "\\n")
time.sleep(0.15)
while how == "waits" and not pathlib.Path("go").exists():
    time.sleep(0.05)
if how == "killed":
    os.kill(os.getpid(), 9)
if how == "stopped":
    (run / "stop").touch()
if how == "finished":
    (run / "manifest.json").write_text(json.dumps({"final": {}}))
if how == "closed":
    (run / "manifest.json").write_text(json.dumps({"final_closed": "the model has not changed", "stopped": None}))
if how == "in vain":
    (run / "manifest.json").write_text(json.dumps({"stopped": "no update was admitted", "final_closed": None}))
"""

SUPERVISE: Final = [sys.executable, "-m", "nerv_fl.deploy.run_supervisor", "."]
"""To be called in the server's folder."""


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    """A server's folder before round 1."""
    files = RunFiles(tmp_path)
    files.run.mkdir()
    (files.run / "config.toml").write_text(f"[federation]\nnum_rounds = {ROUNDS}\n")
    (files.run / "manifest.json").write_text("{}")
    (files.run / "rounds.jsonl").write_text('{"round": 0}\n')
    (tmp_path / "server.py").write_text(SERVER)
    return files


def supervised(
    files: RunFiles, *starts: tuple[int, str], monkeypatch: pytest.MonkeyPatch, prepare: str = "pass"
) -> tuple[int, list[str]]:
    """Supervise servers of so many rounds each and such ends; return the status and what was said."""
    import time

    from nerv_fl.deploy import run_supervisor

    for name, seconds in (("POLL_S", 0.02), ("FIRST_PAUSE_S", 0.01), ("STREAM_S", 0.5)):
        monkeypatch.setattr(run_supervisor, name, seconds)
    monkeypatch.chdir(files.server)
    (files.server / "plan").write_text(json.dumps(starts))
    said: list[str] = []
    command = [sys.executable, "server.py"]
    supervisor = Supervisor(
        files, start=command, prepare=[sys.executable, "-c", prepare], say=said.append, sleep=time.sleep
    )
    return supervisor.run(), said


def test_the_files_are_the_run_folders() -> None:
    files, folder = RunFiles(Path("server")), RunFolder(Path("server/run"))

    assert (files.lock, files.stop, files.run) == (folder.lock, folder.stop, folder.root)


def test_a_server_that_is_killed_is_started_again_until_the_run_is_finished(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = supervised(files, (1, "killed"), (0, "killed"), (2, "finished"), monkeypatch=monkeypatch)

    assert status == 0
    assert [line for line in said if line.startswith("the run ended")] == [
        "the run ended after round 1 of 3, before it was finished: starts again in 0.01 s",
        "the run ended after round 1 of 3, before it was finished: starts again in 0.02 s",
    ]
    assert said[-1] == "the run is finished: 3 rounds"
    assert sum(line.startswith("the server, process ") and line.endswith("has ended") for line in said) == 3


def test_a_run_that_never_gets_further_is_given_up_with_a_status(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = [(0, "no server"), (0, "killed")] * 5
    status, said = supervised(files, *starts, monkeypatch=monkeypatch)

    assert status == 1
    assert said[-1].startswith(
        f"the run ended {MAX_FAILURES + 1} times without a new round, expected to finish round 1"
    )
    assert len(json.loads((files.server / "plan").read_text())) == len(starts) - MAX_FAILURES - 1


def test_a_run_whose_final_pool_stays_closed_is_finished(files: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = supervised(files, (3, "closed"), monkeypatch=monkeypatch)

    assert (status, said[-1]) == (0, "the run is finished: 3 rounds")


def test_a_run_that_has_done_its_rounds_in_vain_is_not_started_again(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = supervised(files, (1, "in vain"), (2, "in vain"), monkeypatch=monkeypatch)

    assert (status, said[-1]) == (
        1,
        "the run has done its 3 rounds and is not started again: no update was admitted",
    )


def test_a_run_that_is_asked_to_stop_is_not_started_again(files: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = supervised(files, (1, "stopped"), monkeypatch=monkeypatch)

    assert (status, said[-1]) == (0, "stopped after round 1; run.sh goes on from it")


def test_without_a_superlink_it_says_so(files: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = supervised(files, monkeypatch=monkeypatch, prepare="raise SystemExit(1)")

    assert status == 1
    assert f"{sys.executable} failed: is superlink.sh running?" in said


HOLD: Final = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from nerv_fl.io.locks import lock_file
    lock_file(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(60)
""")


def test_a_second_one_refuses_with_a_status_and_names_the_process(
    files: RunFiles, capfd: pytest.CaptureFixture[str]
) -> None:
    path = files.supervisor_lock
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        files.stop.touch()
        status = main([str(files.server)])
        other.kill()

    assert status == 1
    assert f"is being written by process {other.pid}" in capfd.readouterr().err
    assert files.stop.exists()  # what the one at work was asked is not taken back


def test_a_lock_that_nobody_holds_any_more_refuses_nothing(files: RunFiles) -> None:
    files.lock.write_text("1\n")
    hold_supervision(files)
    with pytest.raises(CheckpointError):
        hold_supervision(files)


@contextmanager
def program(files: RunFiles, *, flwr: str) -> Iterator[Mapping[str, str]]:
    """Give the environment in which a supervisor runs shell scripts in place of Flower and `register.sh`."""
    binaries = files.server / "bin"
    binaries.mkdir()
    for path, text in ((binaries / "flwr", flwr), (files.server / "register.sh", "exit 0")):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
    yield os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{binaries}:{os.environ['PATH']}"}


def test_a_server_that_lost_its_run_sh_is_waited_for(files: RunFiles) -> None:
    """As after a kill of `run.sh`: what was asked of the server meanwhile is not taken back."""
    (files.server / "plan").write_text(json.dumps([(1, "waits")]))
    server = [sys.executable, "server.py"]
    with (
        program(files, flwr="touch streaming") as environment,
        subprocess.Popen(server, cwd=files.server) as other,
    ):
        wait_for(lambda: holder_of(files.lock) == str(other.pid), seconds=20)
        files.stop.touch()
        with subprocess.Popen(SUPERVISE, cwd=files.server, env=environment, stderr=subprocess.PIPE) as supervisor:
            assert supervisor.stderr is not None
            first = supervisor.stderr.readline().decode()
            (files.server / "go").touch()
            _, rest = supervisor.communicate(timeout=20)

    assert first == (
        f"run.sh: process {other.pid} holds run/.lock, a server at work or another command on the run folder: "
        "waits until it ends\n"
    )
    assert rest.decode().splitlines() == [
        f"run.sh: process {other.pid} has ended",
        "run.sh: stopped after round 1; run.sh goes on from it",
    ]
    assert supervisor.returncode == 0
    assert not (files.server / "streaming").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", None),
        ("manifest.json", "{"),
        ("manifest.json", "[1]"),
        ("config.toml", None),
        ("config.toml", "[federation]"),
        ("config.toml", "\udc80"),
        ("rounds.jsonl", "{"),
        ("rounds.jsonl", "[1]"),
    ],
)
def test_a_damaged_file_is_a_line_that_names_it_and_the_remedy(files: RunFiles, name: str, content: str | None) -> None:
    path = files.run / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes((content + "\n").encode(errors="surrogateescape"))
    with program(files, flwr="exit 0") as environment:
        process = subprocess.run(
            SUPERVISE, cwd=files.server, env=environment, capture_output=True, text=True, timeout=20, check=False
        )

    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    last = process.stderr.splitlines()[-1]
    assert last.startswith(f"run.sh: run/{name} cannot be read ("), process.stderr
    assert last.endswith("expected what the run wrote: `nerv-fl recover run` restores it, then start run.sh again")


def test_a_signal_ends_the_supervision_and_not_the_server(files: RunFiles) -> None:
    with (
        program(files, flwr="touch streaming; exec sleep 60") as environment,
        subprocess.Popen(SUPERVISE, cwd=files.server, env=environment, stderr=subprocess.PIPE) as supervisor,
    ):
        wait_for((files.server / "streaming").exists, seconds=20)
        os.kill(supervisor.pid, signal.SIGTERM)
        _, said = supervisor.communicate(timeout=20)

    assert supervisor.returncode == 128 + signal.SIGTERM
    assert b"a server at work goes on without it" in said
