"""Worker processes of scripts that have no main guard, or no file."""

import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from nerv_fl.processes import worker_pool

ROOT = Path(__file__).parents[1]

IN_A_POOL = """
print("begun", flush=True)
import os
from concurrent.futures import ProcessPoolExecutor
from nerv_fl.processes import spawn_context
with ProcessPoolExecutor(2, mp_context=spawn_context()) as pool:
    assert os.getpid() not in {pool.submit(os.getpid).result() for _ in range(4)}
print("ended")
"""

KEYS_IN_A_PROCESS = """
print("begun", flush=True)
from pathlib import Path
from nerv_fl.enclave.create_identity import prepare_identity
prepare_identity(Path("keys"), run="a", place="process")
print("ended")
"""

FIRST_PROCESS = """
import sys
import subprocess
from nerv_fl.processes import spawn_context
command = ["grep", "-Po", "SigBlk:\\\\s*\\\\K.*", "/proc/self/status"]
process = spawn_context().Process(target=subprocess.run, args=(command,))
process.start()
process.join()
sys.exit(process.exitcode)
"""


def run(script: str, folder: Path, *, how: str) -> subprocess.CompletedProcess[str]:
    """Run a script from its file, as a module, piped into Python, or as an argument."""
    path = folder / "unguarded.py"
    path.write_text(script)
    arguments = {"file": [str(path)], "module": ["-m", "unguarded"], "piped": ["-"], "argument": ["-c", script]}[how]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NERV_FL_MACHINE": str(folder / "machine.secret")}
    return subprocess.run(
        [sys.executable, *arguments],
        input=script if how == "piped" else "",
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("how", ["file", "module", "piped", "argument"])
def test_a_script_without_a_guard_runs_once(tmp_path: Path, how: str) -> None:
    done = run(IN_A_POOL, tmp_path, how=how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\nended\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "piped"])
def test_the_enclaves_process_runs_in_such_scripts(tmp_path: Path, how: str) -> None:
    done = run(KEYS_IN_A_PROCESS, tmp_path, how=how)
    assert (done.returncode, done.stdout) == (0, "begun\nended\n"), done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signals' masks are read in /proc")
def test_ctrl_c_never_reaches_the_workers() -> None:
    with worker_pool(2) as pool:
        masks = list(pool.map(blocked_signals, range(4)))
    assert all(mask >> (signal.SIGINT - 1) & 1 for mask in masks), masks
    assert not blocked_signals(0) >> (signal.SIGINT - 1) & 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signals' masks are read in /proc")
def test_nor_the_first_process_of_an_interpreter(tmp_path: Path) -> None:
    done = run(FIRST_PROCESS, tmp_path, how="file")
    assert (done.returncode, int(done.stdout, 16) >> (signal.SIGINT - 1) & 1) == (0, 1), done.stderr


def test_a_block_that_fails_drops_what_has_not_begun() -> None:
    waiting: list[Future[int]] = []

    def interrupted() -> None:
        with worker_pool(1) as pool:
            waiting.extend(pool.submit(blocked_signals, number) for number in range(1000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert waiting[-1].cancelled()


def blocked_signals(_number: int) -> int:
    """Return this process's mask of blocked signals, bit n - 1 for signal n."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16)
