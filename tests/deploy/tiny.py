"""A deployment of three nodes with the tiny settings, made once and copied."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from flwr.app import Context, RecordDict

from nerv_fl.config import Flat, RunConfig, build
from nerv_fl.deploy.check import check_folder
from nerv_fl.deploy.checks.machines import CheckOptions
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.node_app import client_app
from nerv_fl.deploy.provision import initialise
from nerv_fl.server.app import serve
from nerv_fl.server.run_folder import RunFolder
from tests.federation.fake_grid import FakeGrid
from tests.federation.tiny_run import SETTINGS as TINY

NUM_NODES: Final = 3
SETTINGS: Final[Flat] = TINY | {
    "name": "deployment",
    "federation.num_nodes": NUM_NODES,
    "federation.cohort_size": NUM_NODES,
    "federation.num_rounds": 2,
    "valuation.method": "auto",
}


def deployment_config(**overrides: object) -> RunConfig:
    """Return the settings with some of them changed: dotted keys, given as `**{"seed": 8}`."""
    return build(SETTINGS | overrides)  # type: ignore[arg-type]


@cache
def made_root() -> Path:
    """Return a deployment, made once for the whole test session; copy it, never change it."""
    parent = Path(tempfile.mkdtemp(prefix="nerv-fl-test-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    initialise(parent / "made", deployment_config(), host="localhost", port=19099)
    return parent / "made"


def copy_deployment(target: Path) -> Deployment:
    """Copy the deployment."""
    shutil.copytree(made_root(), target)
    return Deployment(target)


@cache
def played_root() -> Path:
    """Return a deployment after its second and last round, made once for the whole test session."""
    parent = Path(tempfile.mkdtemp(prefix="nerv-fl-test-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    deployment = copy_deployment(parent / "played")
    serve(GridOfMachines(deployment), RunFolder(deployment.server.run), num_supernodes=NUM_NODES)
    return deployment.root


def problems_of(folder: Path, *, ports: bool = True, server: bool | None = False) -> list[str]:
    """Return what `nerv-fl deploy check` finds without a network, in an environment without variables."""
    return check_folder(folder, CheckOptions(ports=ports, server=server, environment={})).lines


class GridOfMachines(FakeGrid):
    """A SuperNode for each node, or for some, which knows what its start script tells it."""

    def __init__(self, deployment: Deployment, *, numbers: Sequence[int] = range(NUM_NODES)) -> None:
        super().__init__(client_app, num_supernodes=len(numbers))
        self._contexts = {1000 + number: context_of(deployment, number) for number in numbers}


def context_of(deployment: Deployment, number: int, **changes: bool | float | int | str) -> Context:
    """Return what a node's SuperNode hands its app."""
    machine = deployment.node(number)
    own: dict[str, bool | float | int | str] = {"node": number, "data": str(machine.data), "folder": str(machine.root)}
    return Context(run_id=1, node_id=1000 + number, node_config=own | changes, state=RecordDict(), run_config={})
