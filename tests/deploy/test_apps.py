"""What a deployed node and the server know, each from its own folder alone."""

import json
import os
import shutil
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from nerv_fl.config import as_table, build, flatten, to_toml
from nerv_fl.crypto import SigningKey, check_evidence
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.node_app import load_settings
from nerv_fl.deploy.provision import initialise
from nerv_fl.deploy.server_app import load_folder, names_of_supernodes
from nerv_fl.errors import AggregationError, CheckpointError, ConfigError
from nerv_fl.server.app import serve
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.tiny import NUM_NODES, GridOfMachines, context_of, deployment_config, made_root, problems_of


def server_context(folder: object) -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={"folder": folder})  # type: ignore[dict-item]


def test_machines_apart_complete_two_rounds(deployment: Deployment, tmp_path: Path) -> None:
    """Each machine's folder lies elsewhere, as on a machine of its own."""
    for number in range(NUM_NODES):
        home = tmp_path / f"machine-{number}"
        home.mkdir()
        shutil.move(deployment.node(number).root, home / "own")
        (deployment.root / f"node-{number}").symlink_to(home / "own")
    folder = load_folder(server_context(str(deployment.server.run)))
    serve(GridOfMachines(deployment), folder, num_supernodes=NUM_NODES)

    rounds = folder.rounds()
    assert [record.round for record in rounds] == [0, 1, 2]
    assert [record.nodes.admitted for record in rounds[1:] if record.nodes] == [NUM_NODES, NUM_NODES]
    assert (folder.root / "certificates" / "round-1.json").exists()
    for number in range(NUM_NODES):
        machine = tmp_path / f"machine-{number}" / "own"
        assert sorted(path.name for path in (machine / "state" / f"{number:05d}").iterdir()) == [
            "node.lock",
            "sent.envelope",
            "signing.key",
            "signing.pub",
            "spending.json",
        ]


def test_noise_is_the_operating_systems(deployment: Deployment) -> None:
    assert load_settings(context_of(deployment, 1)).simulated is False


def test_a_node_reads_nothing_outside_its_own_folder(deployment: Deployment) -> None:
    shutil.rmtree(deployment.server.root)
    settings = load_settings(context_of(deployment, 2))

    assert settings.alone == 2
    assert all(path.is_relative_to(deployment.node(2).root) for path in (settings.data, settings.nodes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"folder": "node-0"},
            "node config folder is 'node-0', expected an absolute path: Flower starts its apps in other folders",
        ),
        ({"data": 7}, "node config data is 7, expected an absolute path: Flower starts its apps in other folders"),
        ({"node": "zero"}, "node config node is 'zero', expected the node's number"),
    ],
)
def test_a_wrong_node_config_is_refused(deployment: Deployment, changes: dict[str, str | int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(context_of(deployment, 0, **changes))
    assert str(caught.value) == message


def refused(deployment: Deployment) -> list[int]:
    """Run a round in which nodes may refuse, and return who did."""
    grid = GridOfMachines(deployment)
    folder = load_folder(server_context(str(deployment.server.run)))
    folder.write_config(build(flatten(as_table(folder.config)) | {"federation.num_rounds": 1}))
    serve(grid, RunFolder(folder.root), num_supernodes=NUM_NODES)
    answers = [reply.content.config_records["answer"] for reply in grid.replies if reply.has_content()]
    return sorted(node for answer in answers for node in answer["refusing_nodes"])  # type: ignore[union-attr, misc]


def test_a_node_that_pins_another_vendor_root_or_other_code_refuses(deployment: Deployment) -> None:
    deployment.node(0).vendor_root.write_text(SigningKey.generate().verify_key.to_text())
    deployment.node(2).code_hash.write_text("0" * 64)

    assert refused(deployment) == [0, 2]


def test_a_node_keeps_to_the_settings_it_agreed_to(deployment: Deployment) -> None:
    """The server can raise no budget: the node's own is too small for a round."""
    machine = deployment.node(1)
    own = build(flatten(as_table(load_settings(context_of(deployment, 1)).config)) | {"privacy.max_epsilon": 0.1})
    machine.config.write_text(to_toml(own))

    assert refused(deployment) == [1]


def test_a_node_whose_data_are_of_another_size_answers_nothing(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sampling rate is a public constant: more or less data would belie it."""
    shutil.copy(RunFolder(deployment.server.run).data("certify"), deployment.node(1).data)
    grid = GridOfMachines(deployment)
    serve(grid, load_folder(server_context(str(deployment.server.run))), num_supernodes=NUM_NODES)

    (reason,) = {str(reply.error.reason) for reply in grid.replies if reply.has_error()}
    assert "its own log holds the reason" in reason
    assert "chains" not in reason
    assert "holds 64 chains of 4 steps, expected 32 of 4 (data.samples_per_node = 128, data.steps = 4)" in caplog.text


@pytest.mark.parametrize("missing", ["roster.json", "bootstrap.safetensors", "data/certify.h5", "enclave"])
def test_the_server_makes_nothing_anew(deployment: Deployment, missing: str) -> None:
    gone = deployment.server.run / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(CheckpointError) as caught:
        load_folder(server_context(str(deployment.server.run)))

    assert str(caught.value) == f"{gone} does not exist, expected the run folder that `nerv-fl deploy init` made"
    assert not gone.exists()


def test_the_server_refuses_settings_that_were_changed(deployment: Deployment) -> None:
    path = RunFolder(deployment.server.run).config_path
    text = path.read_text()
    assert "seed = 7" in text
    path.write_text(text.replace("seed = 7", "seed = 8"))

    with pytest.raises(CheckpointError, match=r"run/config\.toml was changed, .*`nerv-fl recover .*` restores it"):
        load_folder(server_context(str(deployment.server.run)))


@pytest.mark.parametrize("changes", [{"privacy.sigma": 0.7}, {"privacy.mechanism": "none"}])
def test_neither_server_nor_node_leaves_the_protocols_mechanism(
    deployment: Deployment, changes: dict[str, float | str]
) -> None:
    run, node = RunFolder(deployment.server.run), deployment.node(1)
    settings = flatten(as_table(run.config)) | {"privacy.protocol": False} | changes
    run.write_config(build(settings))
    node.config.write_text(to_toml(build(settings)), encoding="utf-8")
    refusal = "privacy.protocol is False, expected True outside a simulation"

    with pytest.raises(ConfigError, match=f"^{refusal}"):
        load_folder(server_context(str(deployment.server.run)))
    with pytest.raises(ConfigError, match=f"^{refusal}"):
        load_settings(context_of(deployment, 1))
    assert sum(refusal in problem for problem in problems_of(deployment.root)) >= 2


def test_a_second_server_in_the_same_folder_is_refused(deployment: Deployment) -> None:
    folder = load_folder(server_context(str(deployment.server.run)))
    with pytest.raises(CheckpointError) as caught:
        load_folder(server_context(str(deployment.server.run)))

    assert str(caught.value) == (
        f"{folder.root} is being written by process {os.getpid()}, which holds {folder.lock}, "
        "expected one writer at a time: wait until it ends, or stop it"
    )


def test_supernodes_have_the_names_that_were_noted_when_they_registered(deployment: Deployment) -> None:
    notes = deployment.server.supernode(0).parent
    (notes / "node-0.json").write_text('{"success": true, "node-id": 14314684388723844653}')
    (notes / "node-2.json").write_text('{"success": true, "node-id": "77"}')
    (notes / "node-1.json").write_text("damaged")

    folder = RunFolder(deployment.server.run)
    assert names_of_supernodes(folder) == {14314684388723844653: "node-0", 77: "node-2"}


def test_evidence_of_the_server_is_for_the_code_that_nodes_pin() -> None:
    made = Deployment(made_root())
    assert load_settings(context_of(made, 0)).code_hash in (made.server.run / "enclave" / "evidence.json").read_text()


def test_a_second_run_counts_what_the_first_spent(deployment: Deployment, tmp_path: Path) -> None:
    """Keys and ledgers of an older deployment, copied into a newer one as the guide says."""
    serve(GridOfMachines(deployment), impatient(deployment), num_supernodes=NUM_NODES)
    newer = tmp_path / "newer"
    initialise(newer, deployment_config(), host="localhost", port=19099)
    for number in range(NUM_NODES):
        shutil.rmtree(newer / f"node-{number}" / "state")
        shutil.copytree(deployment.node(number).state, newer / f"node-{number}" / "state")
    shutil.copy(deployment.server.run / "roster.json", newer / "server" / "run" / "roster.json")

    assert problems_of(newer) == []
    serve(GridOfMachines(Deployment(newer)), impatient(Deployment(newer)), num_supernodes=NUM_NODES)
    steps = json.loads((newer / "node-1" / "state" / "00001" / "spending.json").read_text())["steps"]
    assert len({key.partition("/")[0] for key in steps}) == 2
    assert list(steps.values()) == [1, 1]


# --- An enclave in a process of its own -------------------------------------------------------------------------------


def unborn(tmp_path: Path) -> Deployment:
    """Return a deployment whose enclave will run in a process of its own, as it is copied to the server."""
    initialise(tmp_path / "made", deployment_config(**{"enclave.place": "process"}), host="localhost", port=19099)
    return Deployment(tmp_path / "made")


def test_an_enclave_of_its_own_process_is_born_on_the_servers_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERV_FL_MACHINE", str(tmp_path / "machine.secret"))
    deployment = unborn(tmp_path)
    enclave = RunFolder(deployment.server.run).enclave
    assert sorted(path.name for path in enclave.iterdir()) == ["vendor-root.pub", "vendor.key"]
    assert problems_of(deployment.root) == []
    assert not (tmp_path / "machine.secret").exists()
    load_folder(server_context(str(deployment.server.run)))

    assert sorted(path.name for path in enclave.iterdir()) == ["evidence.json", "identity.sealed", "vendor-root.pub"]
    assert problems_of(deployment.root) == []
    pinned = load_settings(context_of(deployment, 1))
    run = str(RunFolder(deployment.server.run).read_manifest()["run"])
    text = (enclave / "evidence.json").read_text()
    check_evidence(text, vendor_root=pinned.vendor_root, run=run, code_hash=pinned.code_hash)


def test_an_enclave_is_vouched_for_once(tmp_path: Path) -> None:
    """Neither evidence nor the vendor's key: nobody makes another root, which no node would pin."""
    deployment = unborn(tmp_path)
    enclave = RunFolder(deployment.server.run).enclave
    (enclave / "vendor.key").unlink()
    with pytest.raises(CheckpointError, match=r"evidence\.json does not exist, expected the run folder that"):
        load_folder(server_context(str(deployment.server.run)))

    assert problems_of(deployment.root) == [
        f"{enclave / name} does not exist, expected what `nerv-fl deploy init` made; restore it from a backup, or from "
        "the folder that `nerv-fl deploy init` made"
        for name in ("identity.sealed", "evidence.json")
    ]


# --- Nodes that do not come -------------------------------------------------------------------------------------------


class SomeOnline(GridOfMachines):
    """A grid on which only some machines are online."""

    def __init__(self, deployment: Deployment, *, online: list[int]) -> None:
        super().__init__(deployment)
        self._online = online

    def get_node_ids(self) -> list[int]:
        return [1000 + number for number in self._online]


def impatient(deployment: Deployment) -> RunFolder:
    """Return the run folder with one round, that waits for nobody, and two nodes enough."""
    folder = load_folder(server_context(str(deployment.server.run)))
    settings = {"federation.num_rounds": 1, "federation.node_wait_s": 0.2, "federation.min_heard_fraction": 0.6}
    folder.write_config(build(flatten(as_table(folder.config)) | settings))
    return RunFolder(folder.root)


NAMES = {1000 + number: f"node-{number}" for number in range(NUM_NODES)}


def test_a_node_that_is_missing_is_named(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    folder = impatient(deployment)
    serve(SomeOnline(deployment, online=[0, 1]), folder, num_supernodes=NUM_NODES, names=NAMES)

    assert "2 of 3 SuperNodes are online, node-2 missing; rounds go on without the rest" in caplog.text
    assert folder.rounds()[1].nodes is not None


def test_the_wait_for_all_nodes_is_bounded_and_says_who_is_missing(deployment: Deployment) -> None:
    folder = impatient(deployment)
    with pytest.raises(AggregationError) as caught:
        serve(SomeOnline(deployment, online=[]), folder, num_supernodes=NUM_NODES, names=NAMES)

    assert str(caught.value) == "0 of 3 SuperNodes came online in 0.2 s, node-0, node-1, node-2 missing"
