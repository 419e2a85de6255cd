"""Everything that is wrong is said before anything starts, each as one line."""

import re
import shutil
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.crypto import SigningKey
from nerv_fl.deploy import certificates
from nerv_fl.deploy.check import check_folder
from nerv_fl.deploy.checks.machines import CheckOptions
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.renew import renew_server_certificate
from nerv_fl.errors import ConfigError
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.tiny import problems_of

Break = Callable[[Deployment], object]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def other_authority(deployment: Deployment) -> None:
    certificates.make_authority(deployment.ca_key, deployment.ca_certificate)
    renew_server_certificate(deployment, host="localhost")


def give_node_another_signing_key(deployment: Deployment) -> None:
    SigningKey.generate().save_private(deployment.node(1).signing_key(1))


def give_node_another_signing_pair(deployment: Deployment) -> None:
    key = SigningKey.generate()
    key.save_private(deployment.node(1).signing_key(1))
    deployment.node(1).signing_public_key(1).write_text(key.verify_key.to_text())


def give_node_another_supernode_key(deployment: Deployment) -> None:
    certificates.make_supernode_key(deployment.node(0).key, deployment.node(0).public_key)


def new_root(deployment: Deployment) -> None:
    deployment.node(0).vendor_root.write_text(SigningKey.generate().verify_key.to_text())


def lose_node(deployment: Deployment) -> None:
    shutil.rmtree(deployment.node(2).root)


BROKEN: list[tuple[Break, list[str]]] = [
    (lambda d: d.server.key.unlink(), [r"server\.key does not exist"]),
    (lambda d: d.node(1).data.unlink(), [r"node-1/data\.h5 does not exist, expected "]),
    (lambda d: d.node(0).key.chmod(0o644), [r"supernode\.key has mode 0644, expected 0600"]),
    (lambda d: d.node(2).signing_key(2).chmod(0o640), [r"signing\.key has mode 0640, expected 0600"]),
    (lambda d: d.server.secret.chmod(0o604), [r"superexec\.secret has mode 0604, expected 0600"]),
    (lambda d: d.ca_key.chmod(0o666), [r"ca\.key has mode 0666, expected 0600"]),
    (
        lambda d: renew_server_certificate(d, host="elsewhere"),
        [
            r"server\.crt is for elsewhere, 127\.0\.0\.1, "
            r"expected localhost among them",
            *[r"SUPERLINK is 'localhost:19099', expected .* \(elsewhere, 127\.0\.0\.1\)"] * 3,
        ],
    ),
    (
        other_authority,
        [
            r"tls/server\.crt is issued by another authority, expected that of fingerprint [0-9a-f]{16}",
            r"tls/ca\.crt is another authority's certificate, expected that of .*ca/ca\.crt",
        ],
    ),
    (
        give_node_another_signing_key,
        [r"00001/signing\.key has the public key [0-9a-f]{16}, expected [0-9a-f]{16}, which .*signing\.pub holds"],
    ),
    (
        give_node_another_signing_pair,
        [
            r"00001/signing\.key has the public key [0-9a-f]{16}, expected [0-9a-f]{16}, "
            r"node 1's in .*roster\.json"
        ],
    ),
    (give_node_another_supernode_key, [r"supernode\.pub is 'ecdsa.*, expected 'ecdsa.* as in .*node-0\.pub"]),
    (new_root, [r"node-0/vendor-root\.pub is .* expected .* as in .*enclave/vendor-root\.pub"]),
    (
        lambda d: d.node(0).vendor_root.write_text("?"),
        [r"vendor-root\.pub: .*base64", r"node-0/vendor-root\.pub is '\?', expected "],
    ),
    (lambda d: d.node(0).code_hash.write_text("ab"), [r"code-hash is 'ab', expected '[0-9a-f]{12}', this nerv_fl's"]),
    (lambda d: edit(d.node(1).config, "seed = 7", "seed = 8"), [r"node-1/config\.toml: seed is 8, expected 7 as in "]),
    (
        lambda d: edit(d.node(1).config, "seed = 7", "sed = 7"),
        [
            r"node-1/config\.toml: setting 'sed' is unknown "
            r"\(did you mean 'seed'\?\)"
        ],
    ),
    (
        lambda d: edit(d.node(1).config, "offline = 0.0", "offline = 0.5"),
        [
            r"node-1/config\.toml: faults\.offline is "
            r"0\.5, expected none outside",
            r"node-1/config\.toml: faults\.offline is 0\.5, expected 0\.0 as in ",
        ],
    ),
    (
        lambda d: d.node(0).data.write_bytes(RunFolder(d.server.run).data("certify").read_bytes()),
        [
            r"node-0/data\.h5 holds 64 "
            r"chains of 4 steps, expected 32 of 4",
            r"node-0/data\.h5 has content of SHA-256 .*, this node's, as recorded in .*record-data",
            r"node-0/data\.h5 holds 64 of 64 chains that .*certify\.h5 holds too",
        ],
    ),
    (lambda d: d.node(0).data.write_bytes(b"x" * 99), [r"node-0/data\.h5"]),
    (
        lambda d: edit(d.node(0).env, "19099", "19098"),
        [
            r"machine\.env: SUPERLINK is 'localhost:19098', expected "
            r"'localhost:19099', or another name that the certificate is for"
        ],
    ),
    (
        lambda d: edit(d.node(1).env, 'NODE="1"', 'NODE="0"'),
        [r"00000/signing\.key does not exist", r"machine\.env: NODE is '0', expected '1'"],
    ),
    (lambda d: edit(d.node(1).env, "9101", "9100"), [r"machine\.env: RUNTIME_PORT is 9100, expected another than in "]),
    (
        lambda d: edit(d.server.env, "19099", "99999"),
        [r"machine\.env: PORT is '99999', expected a port from 1 to 65535; correct it"],
    ),
    (
        lose_node,
        [
            r"^warning: .*node-2 is not here, so it was not checked, expected the folder of node 2, here or on its "
            r"machine alone; check it on its machine: `nerv-fl deploy check node-2`$"
        ],
    ),
    (
        lambda d: (d.server.run / "roster.json").write_text("{}"),
        [
            rf"roster\.json has nodes \[\], expected 0 to 2 "
            rf"\(federation\.num_nodes = 3\): node {number} is missing"
            for number in range(3)
        ],
    ),
    (lambda d: (d.server.run / "bootstrap.safetensors").unlink(), [r"bootstrap\.safetensors does not exist", r""]),
    (
        lambda d: edit(RunFolder(d.server.run).config_path, "blocks = 3", "blocks = 2"),
        [
            r"run/config\.toml: "
            r"simulation\.blocks is 2, expected 3: a SuperNode a node",
        ],
    ),
]


def test_nothing_is_wrong_with_what_was_made(deployment: Deployment) -> None:
    assert problems_of(deployment.root) == []
    for machine in (deployment.server.root, deployment.node(1).root):
        assert problems_of(machine) == []


@pytest.mark.parametrize(("damage", "expected"), BROKEN, ids=range(len(BROKEN)))
def test_each_thing_that_is_wrong_is_a_line(deployment: Deployment, damage: Break, expected: list[str]) -> None:
    damage(deployment)
    problems = problems_of(deployment.root)

    unmatched = list(problems)
    for pattern in expected:
        matched = [line for line in unmatched if re.search(pattern, line)]
        assert matched, (pattern, problems)
        unmatched.remove(matched[0])
    assert unmatched == []
    assert all("\n" not in line and str(deployment.root) in line for line in problems)


def test_a_certificate_that_has_expired_is_named(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_CLOCK_SKEW", timedelta(days=500))
    monkeypatch.setattr(certificates, "SERVER_DAYS", -100)
    renew_server_certificate(deployment, host="localhost")

    (problem,) = problems_of(deployment.root)
    assert re.search(
        r"server\.crt is valid from \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d, expected .* within; call `nerv-fl deploy",
        problem,
    )


def test_everything_is_said_at_once(deployment: Deployment) -> None:
    deployment.node(0).key.chmod(0o644)
    deployment.node(1).data.unlink()
    edit(deployment.node(2).config, "seed = 7", "seed = 9")

    assert len(problems_of(deployment.root)) == 3


def test_ports_that_are_taken_are_named(deployment: Deployment) -> None:
    with socket.socket() as server, socket.socket() as node:
        server.bind(("127.0.0.1", 0))
        node.bind(("127.0.0.1", 0))
        server.listen()
        node.listen()
        taken, runtime = server.getsockname()[1], node.getsockname()[1]
        for number in range(3):
            edit(deployment.node(number).env, "19099", str(taken))
        edit(deployment.server.env, "19099", str(taken))
        edit(deployment.node(0).env, "9100", str(runtime))
        found = problems_of(deployment.root)
        assert problems_of(deployment.root, ports=False) == []

    where = deployment.root
    remedy = "; end the other program, or set another port; --no-ports if it is this federation's own"
    assert found == [
        f"{where}/server/machine.env: PORT is {taken} on localhost, expected one that is free (Address already in use)"
        + remedy,
        f"{where}/node-0/machine.env: RUNTIME_PORT is {runtime} on 127.0.0.1, expected one that is free "
        "(Address already in use)" + remedy,
    ]


def test_a_machine_is_checked_by_itself(deployment: Deployment) -> None:
    deployment.node(1).signing_key(1).unlink()

    assert problems_of(deployment.node(0).root) == []
    assert len(problems_of(deployment.node(1).root)) == 1


def test_a_server_that_lost_its_certificates_is_checked_as_one(deployment: Deployment) -> None:
    shutil.rmtree(deployment.server.certificate.parent)
    results = check_folder(deployment.server.root, CheckOptions(server=False, environment={}))

    assert {machine for machine, _ in results.checks} == {"server"}
    assert any("tls/server.key does not exist" in line for line in results.lines)


def test_nodes_folders_that_are_on_their_machines_alone_are_no_error(deployment: Deployment) -> None:
    """The guide says to copy each there, and to delete it here."""
    for number in range(3):
        shutil.rmtree(deployment.node(number).root)
    checked = CliRunner().invoke(app, ["deploy", "check", str(deployment.root)])

    assert checked.exit_code == 0, checked.stdout
    assert "remove" not in checked.stdout


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no server/ and no machine\.env, expected what `nerv-fl deploy init`"):
        problems_of(tmp_path)


def test_the_exit_status_says_whether_anything_is_wrong(deployment: Deployment) -> None:
    runner = CliRunner()
    fine = runner.invoke(app, ["deploy", "check", str(deployment.root)])
    deployment.node(0).key.chmod(0o644)
    wrong = runner.invoke(app, ["deploy", "check", str(deployment.root)])

    assert (fine.exit_code, wrong.exit_code) == (0, 1)
    assert re.fullmatch(
        rf"{deployment.root}: 1\d\d checks \(server, ca, node-0, node-1, node-2\), nothing is wrong\n", fine.stdout
    )
    assert wrong.stdout.splitlines()[1].endswith("(server, ca, node-0, node-1, node-2), 1 errors, 0 warnings")
