"""A deployed node's disk: a round is spent only where its envelope has room."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from nerv_fl.client.outbox import RESERVED_FILE, SENT_FILE, Label, envelope_of, keep, release, reserve
from nerv_fl.errors import PrivacyError
from tests.client.conftest import Field

LABEL = Label(run="run-1", round_number=3, base_hash="ab" * 32)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has room for small files, and for nothing that is reserved."""

    def refuse(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)


@pytest.mark.usefixtures("full_disk")
def test_without_room_for_the_envelope_nothing_is_spent(field: Field) -> None:
    before = names(field.folder.node(3))
    with pytest.raises(OSError, match=r"No space left on device: no room for the envelope of [\d,]+ bytes") as caught:
        field.answer(3, simulated=False)

    assert caught.value.errno == errno.ENOSPC
    assert str(field.folder.node(3) / RESERVED_FILE) in str(caught.value)
    assert names(field.folder.node(3)) == before


@pytest.mark.usefixtures("full_disk")
def test_a_simulation_reserves_nothing(field: Field) -> None:
    assert field.answer(3)


def test_an_answer_leaves_no_reservation(field: Field) -> None:
    envelope = field.answer(3, simulated=False)

    assert envelope_of(field.folder.node(3)) == envelope
    assert RESERVED_FILE not in names(field.folder.node(3))


def test_a_refused_round_gives_its_space_back(field: Field) -> None:
    field.answer(3, field.order(round_number=2), simulated=False)
    (field.folder.node(3) / SENT_FILE).unlink()
    field.answer(3, field.order(round_number=4), simulated=False)
    (field.folder.node(3) / SENT_FILE).unlink()
    with pytest.raises(PrivacyError, match="was answered before"):
        field.answer(3, field.order(round_number=2), simulated=False)

    assert RESERVED_FILE not in names(field.folder.node(3))


def test_an_envelope_shorter_or_longer_than_its_reservation_is_kept_whole(tmp_path: Path) -> None:
    for size in (1, 9_000):
        reserve(tmp_path, 4_000)
        keep(tmp_path, LABEL, b"e" * size)
        assert envelope_of(tmp_path) == b"e" * size
        assert names(tmp_path) == {SENT_FILE}


def test_what_a_killed_process_reserved_is_used_again(tmp_path: Path) -> None:
    reserve(tmp_path, 50_000)
    reserve(tmp_path, 10_000)
    keep(tmp_path, LABEL, b"e" * 100)

    assert envelope_of(tmp_path) == b"e" * 100
    release(tmp_path)
    assert names(tmp_path) == {SENT_FILE}


# --- On a disk of its own ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """A small file system in memory."""

    root: Path

    def resize(self, kib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", self.root], check=True, timeout=20)

    def fill(self) -> None:
        """Write until nothing more fits."""
        with (self.root / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 64 KiB."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=20).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", root], check=True, timeout=20)


def node_on(disk: Disk, field: Field) -> Path:
    folder = disk.root / "00003"
    folder.mkdir()
    (folder / "signing.key").write_bytes((field.folder.node(3) / "signing.key").read_bytes())
    return folder


def test_a_disk_with_room_for_the_ledger_alone_costs_a_node_nothing(field: Field, disk: Disk) -> None:
    folder = node_on(disk, field)
    for _ in range(3):
        with pytest.raises(OSError, match="nothing is spent"):
            field.answer(3, simulated=False, folder=folder)
    assert names(folder) == {"signing.key"}

    disk.resize(4096)
    envelope = field.answer(3, simulated=False, folder=folder)

    assert envelope_of(folder) == envelope


def test_the_envelope_has_its_room_though_the_disk_is_full_when_it_is_written(field: Field, disk: Disk) -> None:
    disk.resize(1024)
    folder = node_on(disk, field)
    node, order = field.node(3, simulated=False, folder=folder), field.order()
    assert node.prepare(order, num_parameters=field.trainer.num_parameters) is None
    disk.fill()

    envelope = node.train(order, trainer=field.trainer, data=field.ledger)
    node.keep(order, envelope)

    assert envelope_of(folder) == envelope
