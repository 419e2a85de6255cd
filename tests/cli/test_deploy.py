"""`nerv-fl deploy init`, from a recipe to folders that nothing is wrong with."""

from pathlib import Path

from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.config import read_recipe
from nerv_fl.deploy.layout import Deployment, read_env
from tests.deploy.tiny import SETTINGS

RUNNER = CliRunner()


def test_init_makes_a_folder_that_check_finds_nothing_wrong_with(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SETTINGS.items() if not key.startswith(("federation.", "simulation."))}
    settings = [word for key, value in sizes.items() for word in ("--set", f"{key}={str(value).lower()}")]
    out = tmp_path / "made"
    made = RUNNER.invoke(
        app, ["deploy", "init", str(out), "--nodes", "2", "--port", "19098", *settings], catch_exceptions=False
    )
    checked = RUNNER.invoke(app, ["deploy", "check", str(out), "--json"], catch_exceptions=False)

    assert made.stdout == f"{out} is ready: `nerv-fl deploy check {out}`, then see docs/deploy.md\n"
    assert checked.exit_code == 0, checked.stdout
    assert sorted(path.name for path in out.iterdir()) == ["ca", "node-0", "node-1", "server"]
    deployment = Deployment(out)
    config = read_recipe(deployment.node(1).config)
    assert (config.federation.num_nodes, config.federation.cohort_size, config.simulation.blocks) == (2, 2, 2)
    assert read_env(deployment.node(1).env, names=("NODE", "SUPERLINK", "RUNTIME_PORT")) == {
        "NODE": "1",
        "SUPERLINK": "127.0.0.1:19098",
        "RUNTIME_PORT": "9101",
    }
