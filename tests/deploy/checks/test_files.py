"""Files that another user may write, owns, or may read though they are private."""

import errno
import os
from pathlib import Path

import pytest

from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.membership import add_node
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.checks.faults import require_found
from tests.deploy.tiny import problems_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
STRANGER = 4242


@pytest.mark.parametrize("mode", [0o660, 0o602])
@pytest.mark.parametrize(
    "name", ["node-1/machine.env", "server/machine.env", "server/app/nerv_node.py", "node-1/ca.crt"]
)
def test_a_file_that_others_may_write_is_found(deployment: Deployment, name: str, mode: int) -> None:
    path = deployment.root / name
    path.chmod(mode)
    root = deployment.root / Path(name).parts[0]
    require_found(
        root,
        rf"^{path} can be written by others \(mode {mode:04o}\), expected its owner alone; chmod -R go-w {root}; "
        r"whoever writes here decides what this machine runs and trusts$",
    )


@pytest.mark.parametrize("name", ["node-1/supernode.sh", "server/run.sh", "server/superlink.sh"])
def test_a_script_that_others_may_write_is_found(deployment: Deployment, name: str) -> None:
    (deployment.root / name).chmod(0o770)
    require_found(deployment.root / Path(name).parts[0], rf"{name} can be written by others \(mode 0770\)")


@pytest.mark.parametrize("name", ["node-1", "server", "server/app", "server/run/enclave", "node-1/state"])
def test_a_folder_that_others_may_write_is_found(deployment: Deployment, name: str) -> None:
    (deployment.root / name).chmod(0o777)
    require_found(
        deployment.root / Path(name).parts[0], rf"^{deployment.root / name} can be written by others \(mode 0777\)"
    )


def test_many_files_are_one_finding(deployment: Deployment) -> None:
    for path in deployment.server.root.glob("*.sh"):
        path.chmod(0o777)
    require_found(deployment.server.root, r"register\.sh, .*run\.sh, .*stop\.sh and 2 more can be written by others")


@pytest.mark.parametrize(("mode", "severity"), [(0o777, ""), (0o775, "warning: ")])
def test_a_folder_above_that_others_may_write_is_found(deployment: Deployment, mode: int, severity: str) -> None:
    deployment.root.chmod(mode)
    require_found(
        deployment.node(1).root,
        rf"^{severity}{deployment.root} has mode {mode:04o}, expected no write permission for others: .*node-1 lies",
    )


def test_a_folder_above_in_which_each_removes_his_own_is_sound(deployment: Deployment) -> None:
    deployment.root.chmod(0o1777)
    assert problems_of(deployment.node(1).root) == []


@pytest.mark.parametrize("name", ["server/run/.tmp-checkpoint", "server/state.db-journal"])
def test_a_file_that_vanishes_while_it_is_looked_at_is_passed_over(
    deployment: Deployment, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleeting, stat_really, exists_really = deployment.root / name, Path.stat, Path.exists
    fleeting.touch()

    def stat_path(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path == fleeting:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return stat_really(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat_path)
    monkeypatch.setattr(Path, "exists", lambda path: path == fleeting or exists_really(path))
    assert problems_of(deployment.server.root) == []


@needs_root
@pytest.mark.parametrize("name", ["node-1/supernode.sh", "server/machine.env"])
def test_a_file_of_another_user_is_found(deployment: Deployment, name: str) -> None:
    os.chown(deployment.root / name, STRANGER, -1)
    require_found(
        deployment.root / Path(name).parts[0],
        rf"{name} belongs to user {STRANGER}, expected root, who owns .*; chown -R root",
    )


@needs_root
def test_a_folder_above_of_another_user_is_a_warning(deployment: Deployment) -> None:
    os.chown(deployment.root, STRANGER, -1)
    require_found(
        deployment.server.root, rf"^warning: {deployment.root} belongs to user {STRANGER}, expected root or root"
    )


@pytest.mark.parametrize(
    "name",
    [
        "node-1/supernode.key",
        "node-1/state/00001/signing.key",
        "node-1/data.h5",
        "server/tls/server.key",
        "server/superexec.secret",
        "server/run/enclave/opening.key",
    ],
)
@pytest.mark.parametrize("mode", [0o640])
def test_a_private_file_that_others_may_read_is_found(deployment: Deployment, name: str, mode: int) -> None:
    (deployment.root / name).chmod(mode)
    require_found(
        deployment.root / Path(name).parts[0],
        rf"{name} has mode {mode:04o}, expected 0600: others than its owner may read it; chmod 600 .*make a new key",
    )


def test_pools_that_others_reach_are_found(deployment: Deployment) -> None:
    run = RunFolder(deployment.server.run)
    deployment.server.root.chmod(0o755)
    assert problems_of(deployment.server.root) == []
    run.root.chmod(0o755)
    require_found(
        deployment.server.root,
        *[rf"run/data/{pool}\.h5 can be read by others than its owner" for pool in ("search", "certify", "final")],
    )


@pytest.mark.parametrize("umask", [0o002, 0o000])
def test_what_add_makes_is_its_owners_whatever_the_umask(deployment: Deployment, umask: int) -> None:
    before = os.umask(umask)
    try:
        add_node(deployment)
    finally:
        os.umask(before)
    assert [path for path in deployment.root.rglob("*") if path.stat().st_mode & 0o022] == []
