"""Every command that writes a folder or a file refuses while another process writes it; those that read do not."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.errors import CheckpointError
from nerv_fl.io.locks import output_lock
from nerv_fl.server.run_folder import RunFolder
from tests.federation.tiny_run import SETTINGS, copy_run, run_rounds

HOLD = """
import sys
from pathlib import Path
from nerv_fl.io.locks import lock_file
for path in sys.argv[1:]:
    lock_file(Path(path))
print("held", flush=True)
sys.stdin.read()
"""
OUT = "out"
WRITERS = {
    "datagen ledger": ["datagen", "ledger", "--preset", "sample"],
    "datagen ledger --resume": ["datagen", "ledger", "--preset", "sample", "--resume"],
    "datagen sharding": ["datagen", "sharding", "--resume"],
    "datagen consensus": ["datagen", "consensus", "--resume"],
    "datagen export": ["datagen", "export", "data.h5"],
    "datagen bundle": ["datagen", "bundle", "data.h5"],
    "bootstrap encoder": ["bootstrap", "encoder", "--data", "data.h5", "--resume"],
    "bootstrap predictor": ["bootstrap", "predictor", "--data", "data.h5", "--encoder", "e", "--resume"],
    "bootstrap forecaster": ["bootstrap", "forecaster", "--data", "data.h5", "--resume"],
    "sweep": ["sweep", "quickstart", "--resume"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of one round; read it, never change it."""
    folder = copy_run(tmp_path_factory.mktemp("finished") / "run", **{"federation.num_rounds": 1})
    run_rounds(folder)
    return folder


@pytest.fixture(scope="module")
def writer(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A process that writes the finished run's folder, and an output."""
    out = tmp_path_factory.mktemp("written") / OUT
    command = [sys.executable, "-c", HOLD, str(finished.lock), str(output_lock(out))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid, out
        process.communicate()


def settings() -> list[str]:
    """Return the finished run's settings as options."""
    values = SETTINGS | {"federation.num_rounds": 1}
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def refusal(arguments: Sequence[str]) -> str:
    """Return what stops a command."""
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, CheckpointError), result.output
    return str(result.exception)


@pytest.mark.parametrize("name", WRITERS)
def test_a_command_refuses_an_output_that_another_process_writes(name: str, writer: tuple[int, Path]) -> None:
    pid, out = writer

    assert refusal([*WRITERS[name], "--out", str(out)]).startswith(f"{out} is being written by process {pid}, ")
    assert not out.exists()


@pytest.mark.parametrize("command", ["simulate", "report"])
def test_a_run_is_written_by_one_process(command: str, finished: RunFolder, *, writer: tuple[int, Path]) -> None:
    before = {path: path.read_bytes() for path in finished.root.rglob("*") if path.is_file()}
    options = {
        "simulate": ["quickstart", "--out", str(finished.root), "--resume", *settings()],
        "report": [str(finished.root)],
    }

    assert refusal([command, *options[command]]).startswith(f"{finished.root} is being written by process {writer[0]}")
    assert {path: path.read_bytes() for path in finished.root.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("writer")
def test_readers_are_not_held_up(finished: RunFolder) -> None:
    for arguments in (
        ["rewards", str(finished.root)],
        ["rewards", str(finished.root), "--verify"],
        ["verify", str(finished.certificate_path(1))],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
