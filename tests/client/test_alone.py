"""A node's folder is held by one process at a time."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.client.alone import LOCK_FILE, alone_in
from nerv_fl.client.host import NodeHost
from nerv_fl.errors import PrivacyError
from tests.client.conftest import CONSTANTS, Field

HOLD = """
import sys
from pathlib import Path
from nerv_fl.client.alone import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds a folder until its input closes."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        message = (
            f"{tmp_path} is held by process {process.pid}, by {tmp_path / LOCK_FILE}, "
            "expected one process for a node: stop one"
        )
        with pytest.raises(PrivacyError, match=f"^{re.escape(message)}$"), alone_in(tmp_path):
            pass
        process.communicate()

    with alone_in(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait()

        with alone_in(tmp_path):
            pass


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), alone_in(tmp_path / "absent"):
        pass
    assert not list(tmp_path.iterdir())


def deployed(field: Field) -> NodeHost:
    return NodeHost(replace(field.settings, simulated=False), constants=CONSTANTS)


def test_a_deployed_node_that_another_process_answers_for_refuses_and_spends_nothing(field: Field) -> None:
    order, folder = field.order(), field.folder.node(3)
    with holder(folder) as process:
        envelopes, refusing = deployed(field).answer(order, [3, 4])
        process.communicate()

    assert (list(envelopes), list(refusing)) == ([4], [3])
    assert not (folder / "spending.json").exists()
    assert list(deployed(field).answer(order, [3])[0]) == [3]


def test_what_a_deployed_node_saved_is_signed_and_refused_if_it_was_changed(field: Field) -> None:
    order, path = field.order(), field.folder.node(3) / "spending.json"
    first, _ = deployed(field).answer(order, [3])
    assert '"signature"' in path.read_text()
    assert deployed(field).answer(order, [3]) == (first, {})

    path.write_text(path.read_text().replace("/1", "/7"))

    envelopes, refusing = deployed(field).answer(field.moved(order, round_number=2), [3])
    assert (envelopes, list(refusing)) == ({}, [3])


def test_a_deployed_node_whose_ledger_was_set_back_answers_no_more(field: Field) -> None:
    order, path = field.order(), field.folder.node(3) / "spending.json"
    deployed(field).answer(order, [3])
    older = path.read_bytes()
    second = field.moved(order, round_number=2)
    deployed(field).answer(second, [3])

    path.write_bytes(older)
    assert list(deployed(field).answer(second, [3])[1]) == [3]
    path.unlink()
    assert list(deployed(field).answer(second, [3])[1]) == [3]


def test_a_deployed_node_whose_whole_folder_was_set_back_answers_no_more(field: Field, tmp_path: Path) -> None:
    """It cannot know by itself; the server says which round of it was heard last."""
    order, folder = field.order(), field.folder.node(3)
    deployed(field).answer(order, [3])
    shutil.copytree(folder, tmp_path / "older")
    second = field.moved(order, round_number=2)
    deployed(field).answer(second, [3])
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "older", folder)
    third = field.moved(second, round_number=3)

    assert list(deployed(field).answer(replace(third, heard={3: 2, 4: 99}), [3])[1]) == [3]
    assert not deployed(field).answer(replace(third, heard={3: 1, 4: 99}), [3])[1]


def test_a_simulated_node_is_neither_locked_nor_signed(field: Field) -> None:
    field.host().answer(field.order(), [3])

    names = {path.name for path in field.folder.node(3).iterdir()}
    assert names == {"signing.key", "spending.json", "sent.envelope"}
    assert "signature" not in (field.folder.node(3) / "spending.json").read_text()
