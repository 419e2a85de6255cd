"""One process at a time writes a file or a folder, and the lock ends with that process."""

import errno
import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from nerv_fl.errors import CheckpointError
from nerv_fl.io import locks
from nerv_fl.io.locks import exclusive, hold, holder_of, lock_file, output_lock, unlock_file

HOLD = """
import subprocess, sys
from pathlib import Path
from nerv_fl.io.locks import lock_file
lock_file(Path(sys.argv[1]))
{more}
print("held", flush=True)
sys.stdin.read()
"""
BACKGROUND = "subprocess.Popen(['sleep', '60'], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)"
FORK = """
import os, time
reading, writing = os.pipe()
if os.fork() == 0:
    os.close(1)
    os.write(writing, b"x")
    time.sleep(60)
os.read(reading, 1)  # the child runs
"""


def holder(path: Path, *, more: str = "") -> subprocess.Popen[str]:
    """Start a process that holds a lock until its input closes."""
    command = [sys.executable, "-c", HOLD.format(more=more), str(path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as process:
        message = (
            f"{tmp_path} is being written by process {process.pid}, which holds {path}, "
            "expected one writer at a time: wait until it ends, or stop it"
        )
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"), exclusive(path, written=tmp_path):
            pass
        process.communicate()

    with exclusive(path, written=tmp_path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


@pytest.mark.parametrize("lock", [hold, exclusive])
def test_a_reader_that_asks_for_the_holder_keeps_no_writer_out(
    tmp_path: Path, lock: Callable[..., AbstractContextManager[None] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pause = tmp_path / ".lock", time.sleep
    path.write_text("1\n")
    with path.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)  # as `holder_of` does between two of its steps

        def read_on(seconds: float) -> None:
            reader.close()
            pause(seconds)

        monkeypatch.setattr(time, "sleep", read_on)
        context = lock(path, written=tmp_path)
        with context or nullcontext():
            assert holder_of(path) == str(os.getpid())


def test_a_lock_is_refused_within_its_own_process_too(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path, written=tmp_path), pytest.raises(CheckpointError, match=f"process {os.getpid()}, "):
        hold(path, written=tmp_path)


@pytest.mark.parametrize("more", ["", BACKGROUND, FORK], ids=["alone", "with a background command", "forked"])
def test_a_killed_holder_holds_nothing_whatever_it_has_started(tmp_path: Path, more: str) -> None:
    path = tmp_path / ".lock"
    with holder(path, more=more) as process:
        process.kill()
        process.wait()
        try:
            with exclusive(path, written=tmp_path):
                pass
        finally:
            if more:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_lock_file_that_is_removed_while_another_waits_is_locked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise two processes would each hold a file of the same name, one of which no longer exists."""
    path, original = tmp_path / ".lock", fcntl.flock
    removed: list[int] = []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            path.unlink()
            removed.append(descriptor)
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    descriptor = lock_file(path)

    assert os.path.samestat(os.fstat(descriptor), path.stat())
    unlock_file(descriptor)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_a_writer_goes_on_and_says_so_once(
    code: int, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_unsupported", set())
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            with exclusive(tmp_path / name, written=tmp_path):
                pass

    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'one'} cannot be locked ({os.strerror(code)}): a second process that writes there would not be "
        "noticed, start only one"
    ]
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        lock_file(tmp_path / "node.lock")


def test_two_spellings_of_one_output_share_a_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)

    assert output_lock(tmp_path / "link" / "a.h5") == output_lock(tmp_path / "b" / ".." / "a.h5")
