"""A run's manifest says when, where and by which command it was started."""

import os
import platform
import sys
from datetime import datetime
from pathlib import Path

import pytest

from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.sessions import session


def test_each_start_is_recorded_with_its_duration(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with session(folder):
        assert folder.read_manifest()["sessions"][0]["seconds"] is None
    with pytest.raises(KeyboardInterrupt), session(folder):
        raise KeyboardInterrupt

    first, second = folder.read_manifest()["sessions"]
    assert first["host"] == platform.node()
    assert first["cores"] == len(os.sched_getaffinity(0))
    assert first["command"].split()[0] == sys.orig_argv[0]
    assert datetime.fromisoformat(first["started"]).utcoffset() is not None
    assert first["seconds"] >= 0
    assert second["seconds"] >= 0


def test_a_killed_start_has_no_duration_and_loses_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.update_manifest(run="demo")
    context = session(folder)
    context.__enter__()

    with session(folder):
        pass

    manifest = folder.read_manifest()
    assert manifest["run"] == "demo"
    assert [start["seconds"] is None for start in manifest["sessions"]] == [True, False]
