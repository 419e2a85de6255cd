"""A run in processes of its own, and who is who among them."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from nerv_fl.config import Flat

ROOT: Final = Path(__file__).parents[2]
BUSY_ACTOR: Final = "ray::ClientAppActor.run"
"""What Ray calls an actor's process while it works on a block."""

Found = TypeVar("Found")


def start(out: Path, settings: Flat, *extra: str) -> subprocess.Popen[str]:
    """Start or resume a run of the quickstart with other settings, in a process group of its own."""
    overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={_toml(value)}")]
    command = [sys.executable, "-m", "simulations", "quickstart", "--out", str(out), *overrides, *extra]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so are tests started that a shell runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a run to end well, and return what it printed."""
    printed, _ = process.communicate(timeout=2400)
    assert process.returncode == 0, printed
    return printed


def descendants(pid: int) -> dict[int, str]:
    """Return the command line of every process below one, by pid."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:  # it has just ended
                continue
    found: dict[int, str] = {}
    generation = [pid]
    while generation:
        generation = [child for child, parent in parents.items() if parent in generation]
        found |= {child: names[child] for child in generation if child in names}
    return found


def wait_for(condition: Callable[[], Found], *, seconds: float = 1200.0) -> Found:
    """Return what a condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{condition} never came true"
        time.sleep(0.02)
    return found


def busy_actors(pid: int) -> list[int]:
    """Return the Ray actors below a process that are at work."""
    return sorted(child for child, name in descendants(pid).items() if name.startswith(BUSY_ACTOR))


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
