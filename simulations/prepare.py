"""From a recipe to a run folder that is ready for round 1: data, weights to start from, registered nodes.

Each step leaves a whole file or none, so a preparation that was killed goes on where it stopped.
"""

import platform
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from nerv_fl.client.node import register
from nerv_fl.config import RunConfig, as_table, flatten, read_recipe
from nerv_fl.enclave.create_identity import prepare_identity
from nerv_fl.enclave.identity import own_code_hash
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import sha256_of
from nerv_fl.io.locks import LOCK_FILE
from nerv_fl.ray_cluster import LOCAL
from nerv_fl.server.recovery import require_whole, rounds_done
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.sessions import session
from nerv_fl.tasks.registry import add_task_folder
from nerv_fl.validation import nearest
from simulations.adversaries import assign_roles
from simulations.bootstrap import given_weights, provenance, require_begun_with
from simulations.damage import require_resumable
from simulations.preflight import check_prepared, check_user_task
from simulations.recipes import recipe_names
from simulations.requirements import check_requirements
from simulations.setups.known import setup_of
from simulations.setups.setup import PUBLIC

Progress = Callable[[str, int, int, str], None]
"""Called with (stage, done, of, note)."""

FREE_TO_CHANGE: Final = (
    "simulation.",
    "enclave.workers",
    "tracking.",
    "federation.node_wait_s",
    "federation.round_timeout_s",
)
"""Settings that no result depends on: a resumed run may change them."""

NUM_ROUNDS: Final = "federation.num_rounds"
"""May change too, to no less than the rounds that are done: no round depends on how many follow it."""

REGISTRATIONS: Final = 32
"""Nodes registered at once: each waits for the disk twice, and 10,000 in a row wait for minutes."""

DATA_SUMS: Final = "data_files"
"""Field of the manifest: the SHA-256 of each data file."""

LIBRARIES: Final = ("torch", "flwr", "ray", "opacus", "shap", "numpy", "scipy", "h5py", "cryptography", "safetensors")


def silent(_stage: str, _done: int, _of: int, _note: str) -> None:
    """Show nothing."""


def load_recipe(recipe: str, *, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a shipped recipe by name, or any by its path; a task's module may lie beside the recipe.

    Raises:
        ConfigError: If there is none, naming the nearest, or a setting is wrong.
    """
    if recipe in recipe_names():
        with as_file(files("simulations.recipes") / f"{recipe}.toml") as path:
            return read_recipe(path, overrides=overrides)
    if not Path(recipe).is_file():
        names = recipe_names()
        raise ConfigError(
            f"recipe is {recipe!r}, expected a file or one of: {', '.join(names)}{nearest(recipe, choices=names)}"
        )
    config = read_recipe(Path(recipe), overrides=overrides)
    if ":" in config.task:
        add_task_folder(Path(recipe).resolve().parent)
    return config


@contextmanager
def claimed_folder(out: Path, config: RunConfig, *, resume: bool, ray: str = LOCAL) -> Iterator[RunFolder]:
    """Give a run folder that no other process writes until the context ends; see `open_folder`.

    Raises:
        CheckpointError: As `open_folder`, or if another process writes there, naming it.
        ConfigError: As `open_folder`, and as `check_requirements`.
        SetupError: As `check_requirements`.
        TaskError: As `check_requirements`.
    """
    # Before anything is made: a folder that is refused stays as it was.
    require_claimable(out, config, resume=resume)
    _check_before_data(RunFolder(out.resolve()), config, ray=ray)
    folder = RunFolder(out.resolve())
    folder.root.mkdir(parents=True, exist_ok=True)
    with folder.exclusive():
        opened = open_folder(out, config, resume=resume)
        with session(opened):
            yield opened


def open_folder(out: Path, config: RunConfig, *, resume: bool) -> RunFolder:
    """Begin a run in a new folder, or open one to resume it.

    Raises:
        CheckpointError: If the folder holds a run and `resume` is false, holds none and `resume` is true, or holds
            something else.
        ConfigError: If the resumed run's settings differ in what results depend on.
    """
    require_claimable(out, config, resume=resume)
    folder = RunFolder(out.resolve())
    if holds_run(out):
        _note_extension(folder, config)
    folder.write_config(config)
    return RunFolder(out.resolve())


def begin_or_resume(out: Path, config: RunConfig) -> RunFolder:
    """Open the run in a folder, or begin one if the folder is new or empty.

    Raises:
        CheckpointError: If the folder holds something else.
        ConfigError: As `open_folder`.
    """
    return open_folder(out, config, resume=holds_run(out))


def holds_run(out: Path) -> bool:
    """Return whether a run was begun in a folder."""
    folder = RunFolder(out)
    return any(path.exists() for path in (folder.config_path, folder.manifest_path, folder.copies))


def require_claimable(out: Path, config: RunConfig, *, resume: bool) -> None:
    """Raise what `open_folder` would, and change nothing.

    Raises:
        CheckpointError: As `open_folder`.
        ConfigError: As `open_folder`.
    """
    if holds_run(out):
        if not resume:
            raise CheckpointError(f"{out} holds a run, expected a new folder, or --resume to go on with it")
        require_whole(RunFolder(out.resolve()))
        _require_same(RunFolder(out.resolve()), config, out=out)
    # A process that was killed right after it claimed a new folder leaves the lock file and nothing else.
    elif out.exists() and any(path.name != LOCK_FILE for path in out.iterdir()):
        raise CheckpointError(f"{out} is not empty and holds no run, expected an empty or a new folder")
    elif resume:
        raise CheckpointError(f"{out} holds no run, expected one to resume: start it without --resume")


def prepare(folder: RunFolder, *, progress: Progress = silent, ray: str = LOCAL) -> None:
    """Make whatever a run folder still lacks before round 1.

    Args:
        folder: The run folder.
        progress: Told how far each stage is.
        ray: "local", or the address of the cluster that will run the nodes.

    Raises:
        SetupError: If the machine lacks what a setting needs, before any data are made.
        NervError: If data, weights or keys cannot be made.
    """
    config = folder.config
    _check_before_data(folder, config, ray=ray)
    weights = None if folder.bootstrap_path.exists() else given_weights(config)  # before the minutes that data takes
    require_resumable(folder)
    if "run" not in folder.read_manifest():
        folder.update_manifest(**first_manifest(config))
    _make_data(folder, progress=progress)
    make_bootstrap(folder, weights, progress=progress)
    check_prepared(folder, pool_sizes(config))
    _register_nodes(folder)
    prepare_identity(folder.enclave, run=str(folder.read_manifest()["run"]), place=config.enclave.place)


def _check_before_data(folder: RunFolder, config: RunConfig, *, ray: str) -> None:
    """Check the machine and a user's own task, before the minutes that data take."""
    missing = sum(chains for pool, chains in pool_sizes(config).items() if not folder.data(pool).exists())
    check_requirements(config, num_samples=missing * config.data.steps, folder=folder.root, ray=ray)
    if not folder.data(PUBLIC).exists():
        check_user_task(config)


def _require_same(folder: RunFolder, asked: RunConfig, *, out: Path) -> None:
    before, after = flatten(as_table(folder.config)), flatten(as_table(asked))
    for key, value in after.items():
        if value == before[key] or key.startswith(FREE_TO_CHANGE):
            continue
        if key != NUM_ROUNDS:
            raise ConfigError(
                f"{key} is {value!r}, expected {before[key]!r}: the run in {out} began with it; only {NUM_ROUNDS}, "
                f"{', '.join(FREE_TO_CHANGE)} may change"
            )
        done = rounds_done(folder)
        if asked.federation.num_rounds < done:
            raise ConfigError(f"{key} is {value!r}, expected at least {done}: so many rounds of {out} are done")
        if asked.adversaries.rejoiner:
            raise ConfigError(f"{key} is {value!r}, expected {before[key]!r}: adversaries.rejoiner depends on it")


def _note_extension(folder: RunFolder, asked: RunConfig) -> None:
    """Record that the number of rounds changes, and after which round the final pool had been opened by then."""
    before, after, done = folder.config.federation.num_rounds, asked.federation.num_rounds, rounds_done(folder)
    if before == after:
        return
    manifest = folder.read_manifest()
    extension = {"from": before, "to": after, "after_round": done}
    opened = {"final_round": manifest.get("final_round", done)} if "final" in manifest else {}
    folder.update_manifest(extensions=[*manifest.get("extensions", []), extension], **opened)


def first_manifest(config: RunConfig) -> dict[str, Any]:
    """Return what a new run's manifest begins with: a name that no other run has, and what it is made of."""
    versions = {"python": platform.python_version(), "nerv-fl": version("nerv-fl")}
    versions |= {name: version(name) for name in LIBRARIES}
    name = f"{config.name}-{secrets.token_hex(4)}"
    made_of = {"versions": versions, "platform": f"{sys.platform} {platform.machine()}", "code_hash": own_code_hash()}
    return {"run": name, "seed": config.seed} | made_of


def _make_data(folder: RunFolder, *, progress: Progress) -> None:
    config, setup = folder.config, setup_of(folder.config.task)
    pools = pool_sizes(config)
    hashes, sums = {}, dict(folder.read_manifest().get(DATA_SUMS, {}))
    for done, (pool, chains) in enumerate(pools.items()):
        progress("data", done, len(pools), f"{pool}: {chains:,} chains")
        if folder.data(pool).exists():
            _require_sum(folder.data(pool), sums.get(pool))
        else:
            setup.make_data(config, folder.data(pool), pool=pool, chains=chains)
            sums.pop(pool, None)
        sums.setdefault(pool, sha256_of(folder.data(pool)))
        hashes[pool] = setup.content_hash(folder.data(pool))
    progress("data", len(pools), len(pools), "")
    for pool, digest in folder.read_manifest().get("data", hashes).items():
        if hashes[pool] != digest:
            raise CheckpointError(
                f"{folder.data(pool)} has SHA-256 {hashes[pool]}, expected {digest}: the run began with it"
            )
    folder.update_manifest(data=hashes, **{DATA_SUMS: sums})


def _require_sum(path: Path, expected: str | None) -> None:
    """Refuse a data file that is not the one that was written; an earlier version noted no checksum."""
    if expected is not None and (found := sha256_of(path)) != expected:
        raise CheckpointError(
            f"{path} was changed: its SHA-256 is {found[:12]}, expected {expected[:12]}; delete it to make it again"
        )


def pool_sizes(config: RunConfig) -> dict[str, int]:
    """Return the chains of every pool, the nodes' own first."""
    return {"nodes": config.federation.num_nodes * config.data.chains_per_node} | server_pools(config)


def server_pools(config: RunConfig) -> dict[str, int]:
    """Return the chains of each pool but the nodes': the public one, and those held out."""
    sizes = config.data
    held_out = {"search": sizes.search_chains, "certify": sizes.certify_chains, "final": sizes.final_chains}
    return {PUBLIC: setup_of(config.task).num_public_chains(config)} | held_out


def make_bootstrap(folder: RunFolder, weights: Path | None, *, progress: Progress) -> None:
    """Make the weights to start from, or copy those that are given."""
    config, path = folder.config, folder.bootstrap_path
    steps = config.bootstrap.steps
    if not path.exists() and weights is not None:
        write_atomically(path, weights.read_bytes())
    elif not path.exists():
        progress("bootstrap", 0, steps, "")
        setup_of(config.task).make_start(
            config,
            folder.data(PUBLIC),
            out=path,
            on_step=lambda step, of, loss: progress("bootstrap", step, of, f"held-out loss {loss:.3f}" if of else ""),
        )
    if "bootstrap" not in folder.read_manifest():
        folder.update_manifest(bootstrap=provenance(path))
    require_begun_with(folder.read_manifest(), path)
    progress("bootstrap", steps, steps, "")


def _register_nodes(folder: RunFolder) -> None:
    config = folder.config
    nodes = range(config.federation.num_nodes)
    with ThreadPoolExecutor(REGISTRATIONS) as threads:
        roster = dict(zip(nodes, threads.map(lambda node: register(folder.node(node)), nodes), strict=True))
    roles = assign_roles(config)
    whole = float(config.data.samples_per_node)
    weights = {node: whole / roles[node].weight_parts if node in roles else whole for node in roster}
    names = {node: (role.kind, role.operator) for node, role in roles.items()}
    folder.write_roster(roster, weights=weights, roles=names)
