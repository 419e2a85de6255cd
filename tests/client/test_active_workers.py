"""Who is at work: those who say so and live."""

import os
from pathlib import Path

import pytest

from nerv_fl.client.active_workers import FOLDER, num_present, present


def test_a_process_is_there_while_it_works(tmp_path: Path) -> None:
    assert num_present(tmp_path) == 0
    with present(tmp_path):
        assert num_present(tmp_path) == 1
        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [str(os.getpid())]
    assert num_present(tmp_path) == 0


def test_it_is_gone_when_its_work_fails(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="planted"), present(tmp_path):
        raise MemoryError("planted")
    assert num_present(tmp_path) == 0


def test_who_was_killed_does_not_count(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / str(2**22 + 1)).touch()  # above any process number of Linux
    (tmp_path / FOLDER / "notes").touch()
    assert num_present(tmp_path) == 0


def test_a_folder_that_takes_no_file_stops_no_work(tmp_path: Path) -> None:
    with present(tmp_path / "absent" / "nodes"):
        assert num_present(tmp_path / "absent" / "nodes") == 0
