"""A model of one's own goes through the whole loop: the page says how, and is run as it stands."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerv_fl.config import Flat, build
from nerv_fl.crypto import VerifyKey
from nerv_fl.enclave.certificate import verify_certificate
from nerv_fl.enclave.identity import VENDOR_ROOT_FILE, read_vendor_root
from nerv_fl.errors import ConfigError, DataError, TaskError
from nerv_fl.report.load import load_run
from nerv_fl.server.export_source import trained_model
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.registry import find_task
from simulations.prepare import load_recipe, open_folder, prepare
from tests.federation.tiny_run import Trace, run_rounds
from tests.tasks.own_task import code_of, saved

SMALL = (
    "federation.num_rounds=2",
    "data.samples_per_node=256",
    "data.bootstrap_chains=16",
    "data.search_chains=64",
    "data.certify_chains=128",
    "data.final_chains=64",
    "gate.search_samples=64",
    "gate.certify_samples=128",
    "gate.monitor_samples=64",
    "valuation.gradient_samples=64",
    "privacy.max_epsilon=60.0",
    "enclave.workers=1",
)


def run_it(recipe: Path, root: Path, *, num_supernodes: int = 2) -> RunFolder:
    folder = open_folder(root, load_recipe(str(recipe), overrides=SMALL), resume=False)
    prepare(folder)
    run_rounds(folder, num_supernodes=num_supernodes)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    place = tmp_path_factory.mktemp("own")
    with saved(place) as recipe:
        yield run_it(recipe, place / "run")


def test_the_page_keeps_its_promise() -> None:
    assert len(code_of("python").splitlines()) < 60


def test_it_learns_and_is_paid_for(folder: RunFolder) -> None:
    start, *rounds = folder.rounds()

    assert rounds[0].accepted  # the second has so little left to learn that the processor's rounding decides
    assert rounds[-1].loss < 0.9 * start.loss
    assert (start.drift, start.homomorphism, start.masked_ce) == (None, None, None)
    paid = [row.payout_nano for row in Trace.of(folder).rewards if row.round == 1]
    assert sum(paid) == rounds[0].pool_nano
    assert folder.read_manifest()["final"]["ci_high"] < 0


def test_its_rounds_are_certified(folder: RunFolder) -> None:
    root: VerifyKey = read_vendor_root(folder.enclave / VENDOR_ROOT_FILE)

    verified = verify_certificate(folder.certificate_path(1).read_bytes(), vendor_root=root)

    assert verified.model_hash == folder.rounds()[1].model_hash
    assert verified.num_batches is None


def test_its_results_do_not_depend_on_blocks(folder: RunFolder, tmp_path: Path) -> None:
    with saved(tmp_path) as recipe:
        other = run_it(recipe, tmp_path / "run", num_supernodes=5)

    assert Trace.of(other) == Trace.of(folder)
    assert other.read_manifest()["data"] == folder.read_manifest()["data"]


def test_its_report_names_it(folder: RunFolder) -> None:
    run = load_run(folder.root)
    page = (folder.root / "report.html").read_text(encoding="utf-8")

    assert not run.is_encoder
    assert "The model is the task fraud:Fraud." in page
    assert "Random weights" in page
    assert "per sample" in page


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        ("0", r"make_data\(\) writes the same file for two seeds, expected different samples: nodes and held-out"),
        ("None", r"make_data\(\) writes two different files for the same arguments, expected the same bytes: draw"),
    ],
)
def test_data_that_ignore_their_seed_are_refused(tmp_path: Path, seed: str, expected: str) -> None:
    with saved(tmp_path) as recipe:
        code = code_of("python").replace("default_rng(seed)", f"default_rng({seed})")
        (tmp_path / "fraud.py").write_text(code, encoding="utf-8")
        with pytest.raises(TaskError, match=expected):
            run_it(recipe, tmp_path / "run")


def test_it_has_no_form_that_other_programs_load(folder: RunFolder) -> None:
    with pytest.raises(DataError, match=r"holds a run of task 'fraud:Fraud', expected one of: encoder, forecaster$"):
        trained_model(folder)


def test_a_task_that_makes_no_data_cannot_be_simulated(tmp_path: Path) -> None:
    code = code_of("python").partition("    @classmethod")[0]
    with saved(tmp_path) as recipe:
        (tmp_path / "fraud.py").write_text(code, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            run_it(recipe, tmp_path / "run")

    assert str(caught.value) == ("task 'fraud:Fraud' has no make_data, expected one: a simulation makes its own data")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Task", "task is 'no_such_module:Task', which cannot be imported: No module named"),
        ("nerv_fl.tasks.task:Nothing", "task is 'nerv_fl.tasks.task:Nothing', which cannot be imported: module"),
        ("nerv_fl.tasks.task:DataSize", "task is 'nerv_fl.tasks.task:DataSize', a type, expected a subclass of"),
        ("nerv_fl.rng:stream", "task is 'nerv_fl.rng:stream', a function, expected a subclass of"),
    ],
)
def test_what_is_no_task_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_task(name)

    assert str(caught.value).startswith(message)


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^task is 'forcaster', expected .* \(did you mean 'forecaster'\?\)$"):
        build({"task": "forcaster"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversaries.fabricated": 0.1}, "adversaries.fabricated is 0.1, expected 0.0 with task 'forecaster'"),
        ({"data.partition": "dirichlet"}, "data.partition is 'dirichlet', expected 'chain' with task 'forecaster'"),
        ({"data.heterogeneity": 0.5}, "data.heterogeneity is 0.5, expected 0.0 with task 'forecaster'"),
    ],
)
def test_settings_of_an_encoders_data_are_refused(settings: Flat, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build({"task": "forecaster", **settings})

    assert str(caught.value) == message


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    with saved(tmp_path) as recipe:
        for name in ("datagen", "simulations"):  # of no concern to us, wherever Ray and the enclave look first
            (tmp_path / f"{name}.py").write_text("raise RuntimeError('not ours')")
        command = "from nerv_fl.cli import main; main()"
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                command,
                "simulate",
                str(recipe),
                "--out",
                "run",
                "--set",
                "federation.num_rounds=2",
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    assert done.returncode == 0, done.stderr
    start, first, _ = RunFolder(tmp_path / "run").rounds()
    assert first.accepted
    assert first.loss < start.loss
