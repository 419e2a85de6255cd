"""The start scripts as a shell runs them, with programs of a line in place of Python and Flower."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from nerv_fl.deploy.certificates import make_supernode_key
from nerv_fl.deploy.scripts import NODE_SCRIPTS, SERVER_SCRIPTS
from tests.simulations.processes import ROOT, wait_for


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o700)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with all scripts of a server and of a node."""
    for name, text in {**SERVER_SCRIPTS, **NODE_SCRIPTS}.items():
        write_program(tmp_path / name, text)
    settings = {"HOST": "fl.example.org", "BIND": "10.1.0.1", "PORT": 9092, "NODE": 4}
    settings |= {"SUPERLINK": "fl.example.org:9092", "RUNTIME_PORT": 9200}
    (tmp_path / "machine.env").write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))
    write_program(tmp_path / "bin" / "flower-superlink", "#!/bin/sh\n")
    return tmp_path


def environment(machine: Path, **changes: str) -> Mapping[str, str]:
    names = {name.lower() for name in os.environ} & {"no_proxy"}
    kept = {name: value for name, value in os.environ.items() if name.lower() not in names}
    # A narrow terminal, to whose width ps cuts command lines.
    return kept | {"PATH": f"{machine / 'bin'}:{os.environ['PATH']}", "COLUMNS": "20"} | changes


def said_by(machine: Path, script: str, program: str, **changes: str) -> str:
    """Return what a script's Python prints, which is a shell script here."""
    write_program(machine / "bin" / "python", f"#!/bin/sh\n{program}\n")
    command = [machine / script]
    process = subprocess.run(
        command, env=environment(machine, **changes), capture_output=True, check=True, text=True, timeout=20
    )
    return process.stdout


def test_a_proxy_does_not_reach_this_machines_own_names(machine: Path) -> None:
    said = said_by(machine, "superlink.sh", 'echo "$no_proxy $NO_PROXY"', no_proxy="example.com", NO_PROXY="10.9.9.9")
    lower, upper = said.split()

    assert lower == upper
    names = lower.split(",")
    assert names[:2] == ["example.com", "10.9.9.9"]
    assert {"localhost", "127.0.0.1", "::1", "fl.example.org", "10.1.0.1"} <= set(names)


def test_open_files_are_raised_as_far_as_allowed(machine: Path) -> None:
    (machine / "low.sh").write_text(f"ulimit -S -n 256; ulimit -H -n 2048; exec {machine}/superlink.sh\n")
    write_program(machine / "bin" / "python", "#!/bin/sh\nulimit -S -n\n")
    command = ["sh", str(machine / "low.sh")]
    process = subprocess.run(command, env=environment(machine), capture_output=True, check=True, text=True, timeout=20)

    assert process.stdout == "2048\n"


def test_options_are_passed_to_the_superlink(machine: Path) -> None:
    write_program(machine / "bin" / "python", '#!/bin/sh\necho "$@"\n')
    command = [str(machine / "superlink.sh"), "--max-connections", "4000"]
    process = subprocess.run(command, env=environment(machine), capture_output=True, check=True, text=True, timeout=20)

    assert process.stdout.endswith(" --max-connections 4000\n")


@pytest.mark.parametrize(("database", "kept"), [(None, False), ("", False), ("rows", True)])
def test_a_lost_state_db_loses_the_notes_of_who_is_registered(machine: Path, database: str | None, kept: bool) -> None:
    note = machine / "supernodes" / "node-0.json"
    note.parent.mkdir()
    note.write_text("{}")
    if database is not None:
        (machine / "state.db").write_text(database)
    said_by(machine, "superlink.sh", "exit 0")

    assert note.exists() == kept


@pytest.mark.parametrize("status", [0, 1, 137])
def test_a_supernode_that_ends_in_any_way_is_started_again_until_stop_sh_is_called(machine: Path, status: int) -> None:
    write_program(machine / "bin" / "python", f"#!/bin/sh\necho started >> starts\nexit {status}\n")
    write_program(machine / "bin" / "sleep", "#!/bin/sh\nexec /bin/sleep 0.1\n")
    starts = machine / "starts"
    with subprocess.Popen([machine / "supernode.sh"], env=environment(machine), stderr=subprocess.PIPE) as script:
        wait_for(lambda: starts.exists() and starts.read_text().count("started") >= 3, seconds=20)
        stop = subprocess.run(
            [machine / "stop.sh"], env=environment(machine), check=True, capture_output=True, text=True, timeout=20
        )
        _, said = script.communicate(timeout=20)

    assert script.returncode == 0
    assert stop.stdout == f"supernode.sh, process {script.pid}, has ended\n"
    assert f"node 4: SuperNode ended with status {status}, starts again in 5 s" in said.decode()
    assert f"status {status}, starts again in 10 s" in said.decode()
    assert not (machine / "supernode.pid").exists()


@pytest.mark.parametrize("pid", ["", "1", "999999999", "no number"])
def test_stop_sh_ends_nothing_else(machine: Path, pid: str) -> None:
    (machine / "supernode.pid").write_text(pid)
    said = said_by(machine, "stop.sh", "exit 0")

    assert said == f"no supernode.sh is at work in {machine}\n"


@contextmanager
def started(machine: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a supernode.sh; it and what it started are gone when the context ends."""
    with subprocess.Popen(
        [machine / "supernode.sh"], env=environment(machine), stderr=subprocess.PIPE, start_new_session=True
    ) as script:
        try:
            yield script
        finally:
            with suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)


def test_a_second_supernode_sh_in_one_folder_is_refused(machine: Path) -> None:
    write_program(machine / "bin" / "python", "#!/bin/sh\necho started >> starts\nexec sleep 60\n")
    with started(machine) as first:
        wait_for((machine / "starts").exists, seconds=20)
        second = subprocess.run(
            [machine / "supernode.sh"],
            env=environment(machine),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        noted = (machine / "supernode.pid").read_text()
        said_by(machine, "stop.sh", "exit 0")

    assert (second.returncode, noted) == (1, f"{first.pid}\n")
    assert second.stderr == (
        f"supernode.pid is {first.pid}, a supernode.sh at work, expected one at a time in {machine}: stop.sh ends it\n"
    )
    assert (machine / "starts").read_text() == "started\n"


@contextmanager
def left_alone(machine: Path) -> Iterator[int]:
    """Start a SuperNode, kill its supernode.sh and give the number of what is left."""
    write_program(machine / "bin" / "python", "#!/bin/sh\nwhile :; do sleep 0.1; done\n")
    quiet, own = subprocess.DEVNULL, environment(machine)
    with subprocess.Popen([machine / "supernode.sh"], env=own, stderr=quiet, start_new_session=True) as script:
        try:
            wait_for((machine / "supernode.child").exists, seconds=20)
            left = int(wait_for((machine / "supernode.child").read_text, seconds=20))
            wait_for(lambda: is_running(left), seconds=20)
            script.kill()
            script.wait()
            yield left
        finally:
            with suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return "nerv_fl.deploy.supernode" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_stop_sh_ends_a_supernode_whose_script_was_killed(machine: Path) -> None:
    with left_alone(machine) as left:
        said = said_by(machine, "stop.sh", "exit 0")
        assert not is_running(left)

    assert said == f"no supernode.sh is at work in {machine}\n"
    assert not (machine / "supernode.child").exists()


def test_supernode_sh_ends_a_supernode_whose_script_was_killed(machine: Path) -> None:
    with left_alone(machine) as left, started(machine) as script:
        assert script.stderr is not None
        said = script.stderr.readline().decode()
        assert not is_running(left)
        wait_for((machine / "supernode.child").exists, seconds=20)
        said_by(machine, "stop.sh", "exit 0")

    assert said == f"SuperNode, process {left}, was left without its supernode.sh and has ended\n"


def test_a_process_of_another_folder_is_left_alone(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """After a restart of the machine, a noted number may be that of another node's script."""
    elsewhere = tmp_path_factory.mktemp("other")
    write_program(elsewhere / "supernode.sh", "#!/bin/sh\nwhile :; do sleep 0.1; done\n")
    with subprocess.Popen([elsewhere / "supernode.sh"], cwd=elsewhere) as other:
        (machine / "supernode.pid").write_text(f"{other.pid}\n")
        said = said_by(machine, "stop.sh", "exit 0")
        ended = other.poll()
        other.kill()

    assert said == f"no supernode.sh is at work in {machine}\n"
    assert ended is None


def test_a_supernode_that_is_started_by_hand_says_again_what_it_waits_for(machine: Path) -> None:
    write_program(machine / "bin" / "python", "#!/bin/sh\nexec sleep 60\n")
    noted = machine / "flower" / "waits-for"
    noted.parent.mkdir()
    noted.write_text("unregistered")
    with started(machine):
        wait_for((machine / "supernode.child").exists, seconds=20)
        said_by(machine, "stop.sh", "exit 0")

    assert not noted.exists()


def test_a_key_that_is_registered_and_has_no_note_gets_one(machine: Path) -> None:
    (machine / "supernodes").mkdir()
    make_supernode_key(machine / "a.key", machine / "supernodes" / "node-4.pub")
    public = load_ssh_public_key((machine / "supernodes" / "node-4.pub").read_bytes())
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with closing(sqlite3.connect(machine / "state.db")) as database, database:
        database.execute("CREATE TABLE node (node_id INTEGER, status VARCHAR, public_key BLOB)")
        database.executemany(
            "INSERT INTO node VALUES (?, ?, ?)", [(7, "unregistered", pem), (8, "online", b""), (-2, "registered", pem)]
        )
    taken = '{"success": false, "error-message": "Public key already in use."}'
    write_program(machine / "bin" / "flwr", f"#!/bin/sh\necho '{taken}'\nexit 1\n")
    said = said_by(machine, "register.sh", f'exec "{sys.executable}" "$@"', PYTHONPATH=str(ROOT))

    assert said == "registered supernodes/node-4.pub\n"
    assert json.loads((machine / "supernodes" / "node-4.json").read_text())["node-id"] == 2**64 - 2


def test_a_key_that_cannot_be_registered_is_a_status(machine: Path) -> None:
    (machine / "supernodes").mkdir()
    make_supernode_key(machine / "a.key", machine / "supernodes" / "node-4.pub")
    write_program(machine / "bin" / "flwr", "#!/bin/sh\necho '{\"success\": false}'\n")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        said_by(machine, "register.sh", "exit 0")

    assert caught.value.stderr == '{"success": false}\n'
    assert not (machine / "supernodes" / "node-4.json").exists()
