"""Standard streams that are closed, or that nobody reads any more."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nerv_fl.cli.streams import BROKEN_PIPE

ROOT = Path(__file__).parents[2]
COMMAND = f"{shlex.quote(sys.executable)} -c 'from nerv_fl.cli import main; main()'"
DESCRIPTORS = (
    "import os; from nerv_fl.cli.streams import open_closed_streams; open_closed_streams(); "
    "print(1); file = open('out', 'w'); assert file.fileno() > 2, file.fileno()"
)


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path: Path, closed: str) -> None:
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(DESCRIPTORS)} {closed}", tmp_path)
    assert done.returncode == 0
    assert not (tmp_path / "out").read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_ends_with_its_own_status_though_streams_are_closed(tmp_path: Path, closed: str) -> None:
    assert shell(f"{COMMAND} simulate no-such-recipe {closed}", tmp_path).returncode == 1


def test_a_reader_that_has_gone_is_no_error_message(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} --help | true", tmp_path)
    assert done.stderr == ""
    assert done.returncode in {0, 1, BROKEN_PIPE}
