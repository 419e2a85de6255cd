"""Each file of a run folder is lost or damaged, one at a time: a run never starts over, and names what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.errors import CheckpointError, NervError
from nerv_fl.io.checksums import with_sum
from nerv_fl.server.recovery import recover
from nerv_fl.server.run_folder import RunFolder
from simulations.prepare import claimed_folder, prepare
from tests.federation.leavings import leavings
from tests.federation.tiny_run import copy_run, run_rounds, tiny_config

DONE, MORE = 2, 3

KINDS: Final[dict[str, Callable[[Path], object]]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": lambda path: path.write_bytes(_flipped(path.read_bytes())),
}
FILES: Final = (
    "config.toml",
    "manifest.json",
    "copies/config.toml",
    "copies/manifest.json",
    "digests.json",
    "rounds.jsonl",
    "rewards.csv",
    "ledger.jsonl",
    "certificates/round-1.json",
    "checkpoint/latest",
    "checkpoint/round-00001.json",
    "checkpoint/round-00001.safetensors",
    "checkpoint/round-00002.json",
    "checkpoint/round-00002.safetensors",
    "data/nodes.h5",
    "data/genesis.h5",
    "data/search.h5",
    "data/certify.h5",
    "data/final.h5",
    "bootstrap.safetensors",
    "roster.json",
    "report.html",
    "enclave/admitted.json",
    "enclave/evidence.json",
    "enclave/opening.key",
    "enclave/signing.key",
    "enclave/vendor-root.pub",
    "nodes/00002/signing.key",
    "nodes/00002/spending.json",
    "nodes/00002/sent.envelope",
)
"""Every file of the run, of its nodes and certificates one each."""

CHECKPOINT: Final = ("checkpoint/latest", "checkpoint/round-00002.json", "checkpoint/round-00002.safetensors")

QUICK: Final = (("checkpoint/latest", "deleted"), ("checkpoint/round-00002.safetensors", "flipped"))
"""Tried in every run of the tests; the rest takes minutes."""


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two rounds; copy it, never change it."""
    folder = copy_run(tmp_path_factory.mktemp("done") / "run", **{"federation.num_rounds": DONE})
    prepare(folder)
    run_rounds(folder)
    return folder


@pytest.fixture(scope="module")
def extended(done: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run, undamaged, extended by a round."""
    return go_on(copy_of(done, tmp_path_factory.mktemp("extended") / "run"))


def copy_of(folder: RunFolder, target: Path) -> RunFolder:
    shutil.copytree(folder.root, target)
    return RunFolder(target)


def go_on(folder: RunFolder) -> RunFolder:
    """Resume a run as the command line does, with a round more to go."""
    with claimed_folder(folder.root, tiny_config({"federation.num_rounds": MORE}), resume=True) as opened:
        prepare(opened)
        run_rounds(opened)
    return opened


def test_every_file_of_a_run_is_tried(done: RunFolder) -> None:
    paths = {path.relative_to(done.root).as_posix() for path in done.root.rglob("*") if path.is_file()}
    kept = {name for name in paths if not name.startswith("nodes/") or name.startswith("nodes/00002/")}
    assert kept - {"certificates/round-2.json"} == set(FILES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_a_resume_gives_the_same_result_or_names_the_file(
    name: str, kind: str, *, done: RunFolder, extended: RunFolder, tmp_path: Path
) -> None:
    folder = copy_of(done, tmp_path / "run")
    KINDS[kind](folder.root / name)
    before = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}
    refusal = refusal_of(folder)
    if not refusal:
        assert leavings(folder) == leavings(extended)
        return

    assert str(folder.root / name) in refusal
    assert "\n" not in refusal
    after = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}
    changed = {path.name for path in before if after.get(path) != before[path]}
    assert changed <= {"manifest.json", "config.toml", "roster.json"}


def refusal_of(folder: RunFolder) -> str:
    """Return what a resume refuses with, or nothing if it does not refuse."""
    try:
        go_on(folder)
    except NervError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*FILES[:9], *CHECKPOINT])
def test_readers_work_or_name_the_file(name: str, kind: str, *, done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    commands = {
        "report": ["report", str(folder.root)],
        "rewards": ["rewards", str(folder.root), "--verify"],
        "verify": ["verify", str(folder.certificate_path(1))],
    }
    sound = {title: CliRunner().invoke(app, command).output for title, command in commands.items()}
    report = (folder.root / "report.html").read_bytes()
    KINDS[kind](folder.root / name)

    for title, command in commands.items():
        result = CliRunner().invoke(app, command)
        if result.exception is None:
            assert result.output == sound[title]
            assert (folder.root / "report.html").read_bytes() == report
        else:
            assert isinstance(result.exception, NervError | OSError), result.exception
            assert name in str(result.exception)
            assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.slow)
        for name in CHECKPOINT
        for kind in KINDS
    ],
)
def test_a_lost_checkpoint_is_refused_and_recovered(
    name: str, kind: str, *, done: RunFolder, extended: RunFolder, tmp_path: Path
) -> None:
    folder = copy_of(done, tmp_path / "run")
    KINDS[kind](folder.root / name)
    back = 2 if name.endswith("latest") else 1
    with pytest.raises(CheckpointError, match=rf"recover {folder.root}` goes back to round {back}, the newest whole"):
        run_rounds(folder)
    assert len(folder.rounds()) == DONE + 1

    with folder.exclusive():
        found = recover(folder)

    assert (found.round_number, found.rounds_lost) == (back, DONE - back)
    assert leavings(go_on(folder)) == leavings(extended)


@pytest.mark.parametrize("kind", ["deleted", "halved", "flipped"])
@pytest.mark.parametrize("name", ["config.toml", "manifest.json"])
def test_settings_and_manifest_are_restored_from_their_copies(
    name: str, kind: str, *, done: RunFolder, tmp_path: Path
) -> None:
    folder = copy_of(done, tmp_path / "run")
    KINDS[kind](folder.root / name)
    with pytest.raises(CheckpointError, match=rf"{name} (is missing|was changed|is not JSON).*`nerv-fl recover "):
        go_on(folder)

    with folder.exclusive():
        found = recover(folder)

    assert found.replaced == (name,)
    assert (folder.root / name).read_bytes() == (done.root / name).read_bytes()
    assert (found.kept is None) == (kind == "deleted")


def test_a_whole_run_is_left_alone(done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}

    assert recover(folder).replaced == ()
    assert {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()} == before


def test_an_earlier_round_can_be_chosen_and_gives_the_same_run(
    done: RunFolder, extended: RunFolder, tmp_path: Path
) -> None:
    folder = copy_of(done, tmp_path / "run")

    with pytest.raises(CheckpointError, match=r"holds whole checkpoints of rounds \[1, 2\], expected round 0"):
        recover(folder, round_number=0)
    found = recover(folder, round_number=1)

    assert found.kept == folder.root / "damaged-1"
    assert (found.kept / "rounds.jsonl").read_bytes() == (done.root / "rounds.jsonl").read_bytes()
    assert len(folder.rounds()) == 2
    assert leavings(go_on(folder)) == leavings(extended)


def test_records_that_were_cut_are_kept_whole_aside(done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    folder.rounds_path.write_bytes(folder.rounds_path.read_bytes()[:-100])

    found = recover(folder)

    assert (found.round_number, found.kept) == (1, folder.root / "damaged-1")
    for name in ("rewards.csv", "ledger.jsonl", "certificates/round-2.json"):
        assert (folder.root / "damaged-1" / name).read_bytes() == (done.root / name).read_bytes()


@pytest.mark.parametrize("how", ["lost with the envelope", "set back"])
def test_a_node_never_forgets_what_it_has_spent(how: str, *, done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    paths = sorted(folder.nodes.glob("*/spending.json"))
    path = max(paths, key=lambda path: len(json.loads(path.read_text())["steps"]))
    if how == "set back":
        table = json.loads(path.read_text())
        assert len(table["steps"]) > 1
        first = min(table["steps"])
        path.write_text(json.dumps(with_sum(table | {"steps": {first: table["steps"][first]}})))
    else:
        path.unlink()
    path.with_name("sent.envelope").unlink()

    with pytest.raises(CheckpointError, match=r"spending\.json lacks round \d, which node \d has answered"):
        go_on(folder)


def test_a_recovery_changes_nothing_where_spending_is_damaged(done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    path = folder.node(2) / "spending.json"
    path.write_text(path.read_text().replace(": 1", ": 0", 1))
    before = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}

    with pytest.raises(CheckpointError, match=r"00002/spending\.json is damaged, expected what its node has spent"):
        recover(folder, round_number=1)

    assert {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()} == before


def test_a_manifest_lost_with_its_copy_is_refused(done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    shutil.rmtree(folder.copies)
    folder.manifest_path.unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json lacks the run's identity though rounds were run"):
        go_on(folder)


def test_settings_lost_with_their_copy_are_not_changed_unnoticed(done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    shutil.rmtree(folder.copies)
    folder.config_path.write_text(folder.config_path.read_text().replace("seed = 7", "seed = 8"))
    with pytest.raises(CheckpointError, match=r"config\.toml was changed"):
        go_on(folder)


@pytest.mark.parametrize("kind", ["deleted", "flipped"])
def test_records_are_read_where_their_digests_are_lost(kind: str, *, done: RunFolder, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path / "run")
    folder.digests_path.unlink()
    KINDS[kind](folder.rounds_path)
    if kind == "flipped":
        folder.rounds_path.write_bytes(b"{" + folder.rounds_path.read_bytes())
    with pytest.raises(CheckpointError, match=r"rounds\.jsonl (lacks round 0|holds a line that cannot be read)"):
        go_on(folder)


def test_what_is_no_run_is_not_recovered(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no run, expected a folder with config\.toml"):
        recover(RunFolder(tmp_path))
