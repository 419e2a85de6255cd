"""A deployment started by its own scripts, every machine on loopback: who runs, and how it is killed."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nerv_fl.config import Flat
from nerv_fl.crypto.sealed_storage import MACHINE_VARIABLE
from nerv_fl.deploy.layout import NODE_ENV, SERVER_ENV, Deployment, read_env, write_env
from nerv_fl.deploy.provision import initialise
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.cable import Cable
from tests.deploy.tiny import NUM_NODES, deployment_config
from tests.simulations.processes import ROOT, descendants, free_port, wait_for

PATIENCE_S: Final = 300.0


def deploy(root: Path, settings: Flat | None = None, *, host: str = "127.0.0.1") -> Deployment:
    """Make a deployment with some settings changed, whose ports are free."""
    initialise(root, deployment_config(**(settings or {})), host=host, port=free_port())
    deployment = Deployment(root)
    for number in range(NUM_NODES):
        change_env(deployment.node(number).env, RUNTIME_PORT=free_port())
    return deployment


def change_env(path: Path, **values: object) -> None:
    """Change some of a machine's settings."""
    names = NODE_ENV if "NODE=" in path.read_text() else SERVER_ENV
    write_env(path, {**read_env(path, names=names), **values})


class Machines:
    """Everything that a deployment starts, each in a process group of its own.

    Args:
        deployment: Its folder.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            MACHINE_VARIABLE: str(deployment.root.parent / "machine.secret"),
        }

    @property
    def run_folder(self) -> RunFolder:
        """The server's run folder."""
        return RunFolder(self.deployment.server.run)

    def start(self, name: str, *, on: Sequence[str] = ()) -> None:
        """Start "superlink", "superexec", "run" or "node-N", perhaps by a command that runs it elsewhere."""
        node = name.startswith("node-")
        folder = self.deployment.root / (name if node else "server")
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*on, folder / ("supernode.sh" if node else f"{name}.sh")],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Return the file that something's output goes to."""
        return self.deployment.root.parent / f"{name}.log"

    def start_all(self) -> None:
        """Start everything but the run, and register the nodes."""
        self.start("superlink")
        wait_for(lambda: "Uvicorn running" in self.log("superlink").read_text(), seconds=PATIENCE_S)
        self.start("superexec")
        self.call("register")
        for number in range(NUM_NODES):
            self.start(f"node-{number}")
        for number in range(NUM_NODES):
            self.wait_for_log(f"node-{number}", "SuperNode ID")

    def call(self, name: str) -> None:
        """Call "register" or "stop", and wait until it is done."""
        script = self.deployment.server.root / f"{name}.sh"
        subprocess.run([script], env=self._environment, check=True, timeout=120)

    def wait_for_log(self, name: str, text: str, *, times: int = 1) -> None:
        """Wait until something has said a text so many times."""
        wait_for(lambda: self.log(name).read_text().count(text) >= times, seconds=PATIENCE_S)

    def kill(self, name: str) -> None:
        """Kill something and whatever it started, without a chance to clean up."""
        process = self._running.pop(name)
        below = descendants(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a script starts just now, too
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def restart(self, name: str) -> None:
        """Kill something and start it again."""
        self.kill(name)
        self.start(name)

    def kill_below(self, name: str, program: str) -> None:
        """Kill the processes of a program that something started."""
        found = [pid for pid, line in descendants(self._running[name].pid).items() if program in line]
        assert found, f"{name} has no {program}"
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    def finish_run(self, *, seconds: float = PATIENCE_S) -> str:
        """Wait until the run has ended, and return what it said."""
        self._running["run"].wait(timeout=seconds)
        del self._running["run"]
        return self.log("run").read_text()

    def wait_for_rounds(self, number: int) -> None:
        """Wait until a round is recorded."""
        wait_for(lambda: any(record.round >= number for record in self.run_folder.rounds()), seconds=PATIENCE_S)

    def spent(self, number: int) -> Path:
        """Return a node's spending ledger."""
        return self.deployment.node(number).state / f"{number:05d}" / "spending.json"

    def cpu_ticks(self, name: str) -> int:
        """Return the CPU time of something, of what it has running and of what it waited for, in clock ticks."""
        pids = [self._running[name].pid, *descendants(self._running[name].pid)]
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(ticks) for fields in stats for ticks in fields[11:15])

    def stop(self) -> None:
        """Kill whatever still runs."""
        for name in list(self._running):
            self.kill(name)


@contextmanager
def running(deployment: Deployment, *, cables: Mapping[int, Cable] | None = None) -> Iterator[Machines]:
    """Give a deployment's machines, all started; what they started is gone when the context ends.

    Args:
        deployment: Its folder.
        cables: Nodes that reach the SuperLink through one.
    """
    for number, cable in (cables or {}).items():
        change_env(deployment.node(number).env, SUPERLINK=f"127.0.0.1:{cable.port}")
    machines = Machines(deployment)
    try:
        machines.start_all()
        yield machines
    finally:
        machines.stop()
