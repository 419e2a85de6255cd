import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from nerv_fl.config import RunConfig, as_table, flatten, to_toml
from nerv_fl.data import LedgerFile
from nerv_fl.errors import CheckpointError, ConfigError, SealError
from nerv_fl.server.run_folder import RunFolder
from simulations.engine import LOST_ACTOR, backend_config, host_settings
from simulations.prepare import (
    FREE_TO_CHANGE,
    begin_or_resume,
    claimed_folder,
    load_recipe,
    open_folder,
    prepare,
)
from simulations.recipes import recipe_names
from tests.federation.tiny_run import bootstrap_hash, change_settings, copy_run, tiny_config

# --- Recipes ----------------------------------------------------------------------------------------------------------


def test_every_shipped_recipe_loads_under_its_own_name() -> None:
    assert "quickstart" in recipe_names()
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_the_quickstart_is_the_defaults_written_out() -> None:
    """Whoever reads the recipe sees every setting, and no default is repeated with another value."""
    assert load_recipe("quickstart") == RunConfig()
    text = files("simulations.recipes").joinpath("quickstart.toml").read_text()
    assert all(key.rsplit(".", 1)[-1] in text for key in flatten(as_table(RunConfig())))


def test_overrides_win() -> None:
    config = load_recipe("quickstart", overrides=["seed=9", "federation.num_nodes=60"])

    assert (config.seed, config.federation.num_nodes) == (9, 60)


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(tiny_config()))

    assert load_recipe(str(path)) == tiny_config()


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("quikstart")

    names = ", ".join(recipe_names())
    assert str(caught.value) == (
        f"recipe is 'quikstart', expected a file or one of: {names} (did you mean 'quickstart'?)"
    )


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("quickstart", overrides=["federation.num_node=5"])

    assert str(caught.value) == ("setting 'federation.num_node' is unknown (did you mean 'federation.num_nodes'?)")


# --- The run folder ---------------------------------------------------------------------------------------------------


def test_a_new_folder_is_claimed(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "deep" / "run", tiny_config(), resume=False)

    assert RunFolder(folder.root).config == tiny_config()
    assert folder.root.is_absolute()


def test_an_empty_folder_is_as_good_as_a_new_one(tmp_path: Path) -> None:
    assert open_folder(tmp_path, tiny_config(), resume=False).config_path.exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "killed before it began"])
def test_resume_of_nothing_is_refused_and_begins_nothing(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    if kind != "missing":
        out.mkdir()
    if kind == "killed before it began":
        (out / ".lock").write_text("1\n")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(CheckpointError) as caught, claimed_folder(out, tiny_config(), resume=True):
        pass

    assert str(caught.value) == f"{out} holds no run, expected one to resume: start it without --resume"
    assert sorted(tmp_path.rglob("*")) == before
    assert begin_or_resume(out, tiny_config()).config == tiny_config()


def test_a_claimed_folder_is_held_until_the_context_ends(tmp_path: Path) -> None:
    with claimed_folder(tmp_path / "run", tiny_config(), resume=False) as folder:
        with pytest.raises(CheckpointError, match="is being written by process"), folder.exclusive():
            pass
        assert folder.config == tiny_config()

    with claimed_folder(tmp_path / "run", tiny_config(), resume=True) as folder:
        names = {path.name for path in folder.root.iterdir()}
        assert names == {".lock", "config.toml", "copies", "manifest.json"}


@pytest.mark.parametrize("resume", [False, True])
def test_somebody_elses_folder_is_left_alone(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")

    with pytest.raises(CheckpointError) as caught:
        open_folder(tmp_path, tiny_config(), resume=resume)

    assert str(caught.value) == f"{tmp_path} is not empty and holds no run, expected an empty or a new folder"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_holds_a_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    open_folder(tmp_path, tiny_config(), resume=False)

    with pytest.raises(CheckpointError) as caught:
        open_folder(tmp_path, tiny_config(), resume=False)

    assert str(caught.value) == f"{tmp_path} holds a run, expected a new folder, or --resume to go on with it"
    assert open_folder(tmp_path, tiny_config(), resume=True).config == tiny_config()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", 8, "seed is 8, expected 7: the run in {out} began with it"),
        ("federation.num_nodes", 9, "federation.num_nodes is 9, expected 8: the run in {out} began with it"),
        ("gate.steps", [1.0], "gate.steps is [1.0], expected [4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625]: the run in"),
        ("enclave.chunk", 16, "enclave.chunk is 16, expected 32: the run in {out} began with it"),
        ("enclave.place", "process", "enclave.place is 'process', expected 'here': the run in {out} began with it"),
    ],
)
def test_other_settings_are_refused_by_name(key: str, value: object, *, message: str, tmp_path: Path) -> None:
    open_folder(tmp_path, tiny_config(), resume=False)

    with pytest.raises(ConfigError) as caught:
        open_folder(tmp_path, tiny_config({key: value}), resume=True)

    assert str(caught.value).startswith(message.format(out=tmp_path))
    assert RunFolder(tmp_path).config == tiny_config()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("simulation.actors", 2),
        ("simulation.blocks", 3),
        ("enclave.workers", 2),
        ("tracking.tensorboard", True),
        ("federation.node_wait_s", 5.0),
        ("federation.round_timeout_s", 5.0),
    ],
)
def test_settings_that_no_result_depends_on_may_change(key: str, value: object, *, tmp_path: Path) -> None:
    open_folder(tmp_path, tiny_config(), resume=False)

    assert open_folder(tmp_path, tiny_config({key: value}), resume=True).config == tiny_config({key: value})
    assert key.startswith(FREE_TO_CHANGE)


# --- Preparation ------------------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> RunFolder:
    return copy_run(tmp_path / "run")


def test_everything_round_1_needs_is_there(prepared: RunFolder) -> None:
    manifest = prepared.read_manifest()
    sizes = {"genesis": 64 + 16, "nodes": 8 * 32, "search": 32, "certify": 64, "final": 16}
    for name, chains in sizes.items():
        with LedgerFile(prepared.data(name)) as ledger:
            assert (ledger.info.chains, ledger.info.accounts, ledger.info.steps) == (chains, 64, 4)
            assert ledger.info.profile == ("genesis" if name == "genesis" else "live")
            assert manifest["data"][name] == ledger.info.content_sha256
    assert manifest["run"].startswith("tiny-")
    assert manifest["bootstrap"].keys() == {"best_step", "movement_floor", "weights_sha256", "registry"}
    assert sorted(prepared.read_roster()) == list(range(8))
    assert prepared.read_weights() == dict.fromkeys(range(8), 128.0)


def test_no_two_ledgers_share_a_chain(prepared: RunFolder) -> None:
    chains = set()
    for name in ("genesis", "nodes", "search", "certify", "final"):
        with LedgerFile(prepared.data(name)) as ledger:
            balances = ledger.read_chains(0, ledger.info.chains).balances[:, 0]
        chains |= {row.tobytes() for row in balances}
    assert len(chains) == 64 + 16 + 8 * 32 + 32 + 64 + 16


def test_preparing_again_changes_nothing(prepared: RunFolder) -> None:
    before = {path: path.read_bytes() for path in prepared.root.rglob("*") if path.is_file()}

    prepare(prepared)

    assert {path: path.read_bytes() for path in prepared.root.rglob("*") if path.is_file()} == before


def test_the_keys_of_an_enclave_apart_are_sealed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERV_FL_MACHINE", str(tmp_path / "machine.secret"))
    folder = copy_run(tmp_path / "run", **{"enclave.place": "process"})
    shutil.rmtree(folder.enclave)

    prepare(folder)
    made = {path.name: path.read_bytes() for path in folder.enclave.iterdir()}
    assert made.keys() == {"identity.sealed", "evidence.json", "vendor-root.pub"}
    prepare(folder)
    (tmp_path / "machine.secret").unlink()

    with pytest.raises(SealError, match=r"identity.sealed: sealed storage does not open on this machine, "):
        prepare(folder)
    assert {path.name: path.read_bytes() for path in folder.enclave.iterdir()} == made


def test_a_torn_preparation_makes_only_what_is_missing_and_the_same(prepared: RunFolder) -> None:
    lost = [prepared.data("search"), prepared.root / "roster.json"]
    before, weights = [path.read_bytes() for path in lost], bootstrap_hash(prepared)
    kept = prepared.data("nodes").stat().st_mtime_ns
    for path in (*lost, prepared.bootstrap_path):
        path.unlink()

    prepare(prepared)

    assert [path.read_bytes() for path in lost] == before
    assert bootstrap_hash(prepared) == weights
    assert prepared.data("nodes").stat().st_mtime_ns == kept


def test_progress_is_told_of_every_stage(prepared: RunFolder) -> None:
    told: list[tuple[str, int, int]] = []
    prepared.bootstrap_path.unlink()

    prepare(prepared, progress=lambda stage, done, total, _note: told.append((stage, done, total)))

    assert told[0] == ("data", 0, 5)
    assert ("data", 5, 5) in told
    assert ("bootstrap", 5, 10) in told
    assert told[-1] == ("bootstrap", 10, 10)


# --- What Flower is started with --------------------------------------------------------------------------------------


def test_an_actor_gets_one_cpu(prepared: RunFolder) -> None:
    backend = backend_config(change_settings(prepared, {"simulation.actors": 3}))

    assert backend == {"client_resources": {"num_cpus": 1, "num_gpus": 0.0, **LOST_ACTOR}}


def test_hosts_pin_the_runs_own_vendor_root(prepared: RunFolder) -> None:
    settings = host_settings(prepared)

    assert settings == host_settings(prepared)
    assert settings.simulated
    assert settings.data == prepared.data("nodes")
    assert settings.vendor_root.to_text() == (prepared.enclave / "vendor-root.pub").read_text()


def test_another_ledger_in_the_place_of_the_runs_own_is_refused(tmp_path: Path) -> None:
    folder, other = copy_run(tmp_path / "run"), copy_run(tmp_path / "other")
    other.data("search").replace(folder.data("certify"))

    with pytest.raises(CheckpointError, match=r"certify\.h5 was changed: its SHA-256 is .*, expected .*; delete it"):
        prepare(folder)
