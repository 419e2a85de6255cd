"""The app that nodes run, and no other."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import get_fab_metadata
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supernode import start_client_internal as internal
from hypothesis import given, settings
from hypothesis import strategies as st

from nerv_fl.deploy.flower_app_bundle import APP_ID, APP_VERSION, FILES, MAX_BYTES, is_own, write_app
from nerv_fl.deploy.supernode import verify_own, verifying


def built(folder: Path, **changes: str) -> bytes:
    """Return what `flwr run` would send, with files of the app changed or added."""
    write_app(folder / "app")
    for name, text in changes.items():
        (folder / "app" / name.replace("_dot_", ".")).write_text(text)
    return build_fab_from_disk(folder / "app")


def archive(files: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return out.getvalue()


MANIFEST = "\n".join(
    f"{name},{hashlib.sha256(text.encode()).hexdigest()},{8 * len(text)}" for name, text in FILES.items()
)
OWN: dict[str, str | bytes] = {**FILES, ".info/CONTENT": MANIFEST}


def test_what_flower_builds_from_the_app_is_the_app(tmp_path: Path) -> None:
    assert is_own(built(tmp_path))
    assert is_own(archive(OWN))


@pytest.mark.parametrize(
    "changes",
    [
        {"nerv_node_dot_py": FILES["nerv_node.py"] + "\nimport os\n"},
        {"nerv_server_dot_py": "server_app = None\n"},
        {"flwr_dot_py": "print('in place of the library')\n"},
        {"pyproject_dot_toml": FILES["pyproject.toml"].replace("nerv_node:client_app", "nerv_server:server_app")},
        {"pyproject_dot_toml": FILES["pyproject.toml"].replace("dependencies = []", 'dependencies = ["malware"]')},
    ],
)
def test_any_other_is_not(tmp_path: Path, changes: dict[str, str]) -> None:
    assert not is_own(built(tmp_path, **changes))


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"PK\x03\x04",
        archive({}),
        archive({name: text for name, text in OWN.items() if name != "nerv_node.py"}),
        archive({**OWN, "nerv_node.pyc": b"\0"}),
        archive({**OWN, "pyproject.toml": "not toml ="}),
        archive({**OWN, "pyproject.toml": b"\xff\xfe"}),
        archive({**OWN, ".info/CONTENT": b"\0" * (MAX_BYTES + 1)}),
        archive(OWN) + b"\0" * MAX_BYTES,
        archive({**OWN, ".info/CONTENT": ""}),
        archive({**OWN, ".info/CONTENT": MANIFEST + "\n/dev/zero,00,1"}),
        archive({**OWN, ".info/CONTENT": MANIFEST.replace("nerv_node.py", "/etc/hostname")}),
    ],
    ids=range(12),
)
def test_damaged_and_enlarged_ones_are_not(bundle: bytes) -> None:
    assert not is_own(bundle)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_file_that_is_there_twice_is_not_hidden_by_the_other() -> None:
    out = io.BytesIO(archive(OWN))
    with zipfile.ZipFile(out, "a") as made:
        made.writestr("nerv_node.py", "client_app = None\n")
    assert not is_own(out.getvalue())


@settings(max_examples=2000)
@given(st.integers(0, 10**4), st.integers(0, 255))
def test_no_changed_byte_makes_it_run_other_code(position: int, value: int) -> None:
    """A byte may stand where nothing is read, such as a date; what is extracted is the same then."""
    bundle = bytearray(archive(OWN))
    bundle[position % len(bundle)] = value
    if is_own(bytes(bundle)):
        with zipfile.ZipFile(io.BytesIO(bytes(bundle))) as made:
            assert {name: made.read(name).decode() for name in FILES} == FILES
            assert made.read(".info/CONTENT").decode() == MANIFEST


# --- Where Flower asks ------------------------------------------------------------------------------------------------


def fab_of(content: bytes) -> Fab:
    return Fab(hash_str="0" * 64, content=content, verifications={})


def test_an_app_is_verified_by_its_content(caplog: pytest.LogCaptureFixture) -> None:
    assert verify_own(fab_of(archive(OWN)), {})
    assert not verify_own(fab_of(b"x" * 17), {})
    assert caplog.messages == ["the server sent another app than nerv_fl's, 17 bytes: it is not run"]


def run_of(**changes: str) -> Run:
    run = Run.create_empty(1)
    run.fab_id, run.fab_version, run.primary_task_type = APP_ID, APP_VERSION, "flwr-serverapp"
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def pulled(run: Run, content: bytes) -> Fab:
    """Return the app that Flower would verify, for a run and an app that the server sends."""
    seen: list[Fab] = []

    def pull(**given: Any) -> int:
        assert given["state"] == "kept"
        assert given["trusted_entities"]
        found = given["get_run"](1)
        seen.append(given["get_fab"](found.fab_hash, 1))
        return 7

    answered = verifying(pull)(
        get_run=lambda number: run, get_fab=lambda *of: fab_of(content), trusted_entities=None, state="kept"
    )
    assert answered == 7
    return seen[0]


def test_flower_is_made_to_verify_every_app() -> None:
    fab = pulled(run_of(), b"x")

    assert fab.verifications["valid_license"]
    assert fab.content == b"x"
    assert not verify_own(fab, {})
    assert verify_own(pulled(run_of(), archive(OWN)), {})


@pytest.mark.parametrize(
    "changes",
    [
        {"fab_id": "nerv/other"},
        {"fab_version": "0.1.0.x/../../tmp/evil"},
        {"fab_id": "../../tmp/evil"},
        {"primary_task_type": "flwr-agentapp"},
    ],
)
def test_the_own_app_under_another_name_is_another(changes: dict[str, str]) -> None:
    """Flower makes a path of the name and the version, and looks for the app there."""
    assert not verify_own(pulled(run_of(**changes), archive(OWN)), {})


def test_what_the_app_is_called_is_what_flower_reads_from_it(tmp_path: Path) -> None:
    assert get_fab_metadata(built(tmp_path)) == (APP_ID, APP_VERSION)


def test_this_flower_has_what_is_replaced() -> None:
    assert callable(internal._pull_and_store_message)
    assert callable(internal._verify_fab)
