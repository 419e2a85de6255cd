"""Whoever reads the server's process and the run folder finds neither an update nor a private key.

The same search finds them where the enclave is in the server's process, and in the enclave's own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from nerv_fl.crypto import Context
from nerv_fl.crypto.canonical_json import to_base64
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.strategy.client_sampling import draw_cohort
from tests.federation.conftest import NewRun
from tests.federation.tiny_run import Forger, bootstrap_hash, num_parameters
from tests.simulations.processes import ROOT, descendants, wait_for

pytestmark = pytest.mark.slow

SETTINGS: Final = {"federation.num_rounds": 1, "enclave.noise_alarm": 0.0, "enclave.outlier_sigmas": 0.0}
SECRETS: Final = {"update", "opening key", "signing key"}
PIECE: Final = 2**24
WINDOW: Final = 64

Needles = Mapping[str, list[bytes]]


@dataclass(frozen=True)
class Watched:
    """A run that stands at a door.

    Attributes:
        server: The process of the strategy.
        folder: The run.
        needles: What to look for.
        doors: Where it says at which door it stands.
    """

    server: subprocess.Popen[bytes]
    folder: RunFolder
    needles: Needles
    doors: Path

    def wait_at(self, door: str) -> int:
        """Return the process that stands at a door, as soon as one does."""
        wait_for(lambda: self._arrivals(door), seconds=300)
        (arrived,) = self._arrivals(door)
        return int(arrived.suffix.removeprefix("."))

    def let_through(self, door: str) -> None:
        (self.doors / f"{door}.open").touch()

    def found_in(self, pid: int) -> set[str]:
        """Return which secrets are in a process's memory."""
        return found(memory_of(pid), self.needles)

    def found_in_files(self) -> set[str]:
        """Return which secrets are in the run folder."""
        files = [path for path in self.folder.root.rglob("*") if path.is_file()]
        return found((path.read_bytes() for path in files), self.needles)

    def _arrivals(self, door: str) -> list[Path]:
        assert self.server.poll() is None, "the run ended by itself"
        return list(self.doors.glob(f"{door}.*"))


def found(contents: Iterator[bytes], needles: Needles) -> set[str]:
    names: set[str] = set()
    for content in contents:
        names |= {name for name, parts in needles.items() if any(part in content for part in parts)}
    return names


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield all that a process could have written, in pieces that overlap by a window."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            addresses, permissions, *_ = line.split()
            if not permissions.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            for position in range(start, end, PIECE):
                size = min(PIECE + WINDOW, end - position)
                try:
                    yield os.pread(memory.fileno(), size, position)
                except OSError:  # mapped, but nothing is there
                    continue


@contextmanager
def watched(folder: RunFolder, place: str, *, scratch: Path) -> Iterator[Watched]:
    """Start the run of one round whose envelopes hold updates drawn here."""
    run, seen = str(folder.read_manifest()["run"]), scratch / "doors"
    envelopes = scratch / "envelopes"
    for path in (seen, envelopes):
        path.mkdir()
    forger = Forger(folder, Context(run=run, round=1, node=0, base_hash=bootstrap_hash(folder)), ())
    updates = {
        node: np.random.default_rng(node).normal(0, 0.5 / 32, num_parameters()).astype(np.float32)
        for node in draw_cohort(folder.config, 1)
    }
    for node, update_P in updates.items():
        (envelopes / str(node)).write_bytes(forger.seal(node, update_P))
    keys = EnclaveIdentity.load(folder.enclave, run=run, place=place)
    body = updates[min(updates)].tobytes()
    needles = {
        "update": [body[start : start + WINDOW] for start in range(0, len(body) - WINDOW, len(body) // 16)],
        "opening key": [keys.opening_key.raw[:64], keys.opening_key.raw[64:], to_base64(keys.opening_key.raw).encode()],
        "signing key": [keys.signing_key.raw, to_base64(keys.signing_key.raw).encode()],
    }
    command = [sys.executable, "-m", "tests.federation.watched_run", str(folder.root), str(envelopes), str(seen)]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        yield Watched(server, folder, needles, seen)
    finally:
        for door in ("inside", "after"):
            (seen / f"{door}.open").touch()
        try:
            server.wait(timeout=120)
        finally:
            server.kill()


def test_the_servers_process_holds_them_where_the_enclave_is_in_it(new_run: NewRun, tmp_path: Path) -> None:
    with watched(new_run(**SETTINGS), "here", scratch=tmp_path) as run:
        assert run.wait_at("inside") == run.server.pid
        assert run.found_in(run.server.pid) == SECRETS
        run.let_through("inside")

        assert run.wait_at("after") == run.server.pid
        assert run.found_in(run.server.pid) >= {"opening key", "signing key"}
        assert run.found_in_files() == {"opening key", "signing key"}
    assert run.server.returncode == 0


def test_the_servers_process_never_holds_them_where_the_enclave_has_its_own(new_apart: NewRun, tmp_path: Path) -> None:
    with watched(new_apart(**SETTINGS), "process", scratch=tmp_path) as run:
        enclave = run.wait_at("inside")
        assert enclave in descendants(run.server.pid)
        assert run.found_in(enclave) == SECRETS
        assert run.found_in(run.server.pid) == set()
        assert run.found_in_files() == set()
        run.let_through("inside")

        assert run.wait_at("after") == run.server.pid
        assert run.found_in(run.server.pid) == set()
        assert run.found_in_files() == set()
    assert run.server.returncode == 0
    assert [record.round for record in run.folder.rounds()] == [0, 1]
