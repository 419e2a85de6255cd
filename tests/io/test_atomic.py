"""Writing a file in one step, and leaving nothing behind when that fails."""

import os
import re
import resource
import stat
from pathlib import Path

import pytest

from nerv_fl.io.atomic import write_atomically


def test_creates_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "round.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two, longer")
    assert path.read_bytes() == b"two, longer"
    assert [file.name for file in tmp_path.iterdir()] == ["round.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
def test_mode_does_not_depend_on_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    before = os.umask(0o077)
    try:
        write_atomically(path, b"", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_replacing_narrows_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomically(path, b"open")
    write_atomically(path, b"closed", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_failure_keeps_the_old_content_and_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "round.json"
    write_atomically(path, b"whole")

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    message = f"[Errno 28] No space left on device: '{path}'"
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        write_atomically(path, b"half")
    assert path.read_bytes() == b"whole"
    assert [file.name for file in tmp_path.iterdir()] == ["round.json"]


def test_disk_that_takes_no_more_is_named_by_the_system_itself(tmp_path: Path) -> None:
    """A limit of 4 KB a file stands for a full disk: the write itself fails, half-way."""
    path = tmp_path / "round.json"
    write_atomically(path, b"whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=f"^{re.escape(f'[Errno 27] File too large: {str(path)!r}')}$"):
            write_atomically(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"whole"
    assert [file.name for file in tmp_path.iterdir()] == ["round.json"]


def test_content_reaches_the_disk_before_its_name_and_the_name_before_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "round.json"
    synced: list[tuple[bool, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
    )
    write_atomically(path, b"whole")
    assert synced == [(False, False), (True, True)]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        write_atomically(tmp_path / "absent" / "round.json", b"")
