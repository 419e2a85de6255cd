"""State that cannot be written, has no room, or was cut short or changed, is found on the machine that has it."""

import errno
import fcntl
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from nerv_fl.deploy.layout import Deployment
from nerv_fl.io.locks import exclusive
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.checks.faults import Break, require_found
from tests.deploy.tiny import played_root, problems_of

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def played(tmp_path: Path) -> Deployment:
    """A copy of a deployment whose run has ended."""
    shutil.copytree(played_root(), tmp_path / "played")
    return Deployment(tmp_path / "played")


def cut(path: Path, keep: float) -> None:
    """Cut a file short, as a full disk does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def flip(path: Path, at: float) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


def own(deployment: Deployment) -> Path:
    return deployment.node(1).own_folder(1)


def test_nothing_is_wrong_after_a_run(played: Deployment) -> None:
    before = {path: path.stat().st_mtime_ns for path in played.root.rglob("*") if path.is_file()}
    assert problems_of(played.root) == []
    assert problems_of(played.node(1).root) == []
    assert problems_of(played.server.root) == []
    assert {path: path.stat().st_mtime_ns for path in played.root.rglob("*") if path.is_file()} == before


# --- A node -----------------------------------------------------------------------------------------------------------

SPENDING: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: cut(path, 0.0), r"spending\.json is not a spending ledger \(.*\), expected the file this node wrote"),
    (lambda path: cut(path, 0.5), r"spending\.json is not a spending ledger"),
    (lambda path: cut(path, 0.99), r"spending\.json is not a spending ledger"),
    (lambda path: path.write_text("[]"), r"spending\.json is not a spending ledger"),
    (lambda path: edit(path, '/2": 1', '/2": 0'), r"spending\.json is not signed by this node's key [0-9a-f]{16}"),
    (lambda path: edit(path, '"sigma": 0.5', '"sigma": 9.5'), r"spending\.json is not signed by this node's key"),
    (
        lambda path: shutil.copy(path.parents[3] / "node-2" / "state" / "00002" / "spending.json", path),
        r"spending\.json is not signed by this node's key",
    ),
    (
        lambda path: path.unlink(),
        r"spending\.json lacks round 2 of deployment-[0-9a-f]{8}, which this node has answered",
    ),
]


@pytest.mark.parametrize(("change", "says"), SPENDING)
def test_a_spending_ledger_that_is_not_whole_is_found(
    played: Deployment, change: Callable[[Path], object], says: str
) -> None:
    change(own(played) / "spending.json")
    require_found(played.node(1).root, says + r".*; restore the newest spending\.json that this node wrote; without it")


SENT: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: cut(path, 0.0), r"sent\.envelope is damaged \(.*\), expected what this node wrote"),
    (lambda path: cut(path, 0.5), r"sent\.envelope is damaged: it does not end in the envelope that this node sent"),
    (lambda path: flip(path, 0.5), r"sent\.envelope is damaged: it does not end in the envelope"),
    (lambda path: flip(path, 0.99), r"sent\.envelope is damaged: it does not end in the envelope"),
    (
        lambda path: path.write_text("{}\n"),
        r"sent\.envelope is damaged \(its first line lacks run, round or base_hash\)",
    ),
    (lambda path: path.write_text("{"), r"sent\.envelope is damaged"),
]


@pytest.mark.parametrize(("change", "says"), SENT)
def test_an_envelope_that_is_not_whole_is_found(
    played: Deployment, change: Callable[[Path], object], says: str
) -> None:
    change(own(played) / "sent.envelope")
    require_found(played.node(1).root, says + r".*; delete it: the node then trains again")


# --- The server -------------------------------------------------------------------------------------------------------

CHECKPOINT: list[tuple[Break, str]] = [
    (lambda d: cut(d.server.run / "checkpoint" / "round-00002.json", 0.5), r"checkpoint holds no readable checkpoint"),
    (
        lambda d: cut(d.server.run / "checkpoint" / "round-00002.safetensors", 0.9),
        r"round-00002\.safetensors has SHA-256",
    ),
    (lambda d: flip(d.server.run / "checkpoint" / "round-00002.safetensors", 0.5), r"00002\.safetensors has SHA-256"),
    (
        lambda d: edit(d.server.run / "checkpoint" / "round-00002.json", '"carried_nano": ', '"carried_nano": 7'),
        r"round-00002\.json does not have the content it was written with",
    ),
    (lambda d: (d.server.run / "checkpoint" / "round-00002.json").unlink(), r"checkpoint holds no readable checkpoint"),
    (
        lambda d: cut(d.server.run / "checkpoint" / "latest", 0.5),
        r"checkpoint/latest holds 'round', expected the name of a checkpoint",
    ),
    (
        lambda d: (d.server.run / "checkpoint" / "latest").unlink(),
        r"checkpoint/latest does not exist, though rounds are recorded, expected the name of the last whole checkpoint",
    ),
    (
        lambda d: shutil.rmtree(d.server.run / "checkpoint"),
        r"checkpoint/latest does not exist, though rounds are recorded",
    ),
    (
        lambda d: cut(d.server.run / "ledger.jsonl", 0.5),
        r"ledger\.jsonl ends after \d+ entries with hash .*, expected \d+",
    ),
    (
        lambda d: edit(d.server.run / "ledger.jsonl", '"amount_nano":', '"amount_nano":1'),
        r"ledger\.jsonl line 1 has the",
    ),
    (lambda d: (d.server.run / "ledger.jsonl").unlink(), r"ledger\.jsonl ends after 0 entries with hash"),
    (
        lambda d: (d.server.run / "rounds.jsonl").unlink(),
        r"rounds\.jsonl lacks rounds 1, 2, expected every round up to 2",
    ),
]


@pytest.mark.parametrize(("change", "says"), CHECKPOINT)
def test_a_run_folder_that_is_not_whole_is_found(played: Deployment, change: Break, says: str) -> None:
    change(played)
    require_found(played.server.root, says)


def test_a_last_round_that_a_crash_cut_short_is_not_named(played: Deployment) -> None:
    """What a crash leaves of a round after the checkpoint is removed when the run is resumed."""
    run = RunFolder(played.server.run)
    for path in (run.ledger_path, run.rounds_path):
        last = path.read_text().splitlines()[-1].replace('"round": 2', '"round": 3').replace('"round":2', '"round":3')
        path.write_text(path.read_text() + (last + "\n" if path == run.rounds_path else last[:30]))
    assert problems_of(played.server.root) == []


def test_a_line_of_rounds_that_a_crash_cut_short_is_not_named(played: Deployment) -> None:
    path = RunFolder(played.server.run).rounds_path
    path.write_text(path.read_text() + '{"round": 3, "time')
    assert problems_of(played.server.root) == []


def test_a_lock_that_cannot_be_asked_for_hides_nothing(played: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as some mounts of NFS."""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    run = RunFolder(played.server.run)
    run.lock.touch()
    (run.root / "ledger.jsonl").unlink()
    monkeypatch.setattr(fcntl, "flock", refuse)
    require_found(played.server.root, r"ledger\.jsonl ends after 0 entries with hash")


def test_a_run_that_is_at_work_is_not_compared(played: Deployment) -> None:
    run = RunFolder(played.server.run)
    (run.root / "ledger.jsonl").unlink()
    with exclusive(run.lock, written=run.root):
        assert problems_of(played.server.root) == []
    assert len(problems_of(played.server.root)) == 1


@pytest.mark.parametrize("change", [lambda path: flip(path, 0.7), lambda path: cut(path, 0.7)])
def test_other_weights_to_start_from_are_found(deployment: Deployment, change: Callable[[Path], object]) -> None:
    change(RunFolder(deployment.server.run).bootstrap_path)
    found = problems_of(deployment.server.root)
    assert any("bootstrap.safetensors has SHA-256" in line for line in found), found
    assert all("bootstrap.safetensors" in line for line in found), found


# --- Writing ----------------------------------------------------------------------------------------------------------


def refuse_to_open(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    open_really = os.open

    def refusing(path: str | Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT and Path(path).parent == folder:
            raise OSError(number, os.strerror(number), str(path))
        return open_really(path, flags, *mode)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent == folder:  # a read-only file system refuses before it looks whether the file is there
            raise OSError(number, os.strerror(number), str(path))
        unlink_really(path, missing_ok=missing_ok)

    unlink_really = Path.unlink
    monkeypatch.setattr(os, "open", refusing)
    monkeypatch.setattr(Path, "unlink", unlink)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.EDQUOT, "Disk quota exceeded"),
        (errno.ENOSPC, "No space left on device"),
    ],
)
def test_state_that_cannot_be_written_is_found(
    deployment: Deployment, number: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, machine in ((own(deployment), deployment.node(1)), (deployment.server.run, deployment.server)):
        with monkeypatch.context() as patch:
            refuse_to_open(where, number, patch)
            require_found(
                machine.root,
                rf"{where} cannot be written \({says}\), expected a folder in which this user can make files; make",
            )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_to_write_is_found(deployment: Deployment) -> None:
    own(deployment).chmod(0o500)
    try:
        require_found(deployment.node(1).root, r"state/00001 cannot be written \(Permission denied\)")
    finally:
        own(deployment).chmod(0o700)


def test_a_disk_that_is_full_is_found(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be made, and a block written, where an envelope no longer fits."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40, 3 * 2**20))
    require_found(
        deployment.node(1).root,
        r"node-1/state is on a disk with 3 MiB free, expected at least 16 MiB for the next round; make room",
    )
    require_found(deployment.server.root, r"server/run is on a disk with 3 MiB free, expected at least \d\d MiB for")


def test_nothing_stays_behind(deployment: Deployment) -> None:
    before = sorted(deployment.root.rglob("*"))
    problems_of(deployment.root)
    assert sorted(deployment.root.rglob("*")) == before


def test_a_state_folder_that_is_missing_is_found(deployment: Deployment) -> None:
    shutil.rmtree(deployment.node(1).state)
    require_found(
        deployment.node(1).root,
        r"state/00001/signing\.key does not exist",
        r"node-1/state cannot be written \(No such file or directory\)",
    )


def test_spending_of_another_mechanism_is_found(played: Deployment) -> None:
    edit(played.node(1).config, "expected_batch = 32", "expected_batch = 16")
    found = problems_of(played.node(1).root)
    assert any("spending.json holds steps of Mechanism" in line for line in found), found


def test_the_tests_faults_are_of_files_that_are_there(played: Deployment) -> None:
    assert json.loads((own(played) / "spending.json").read_text())["steps"]
