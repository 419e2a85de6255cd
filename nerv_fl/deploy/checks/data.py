"""Data files: whether they fit the settings, are as they were written, and are each machine's own."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from nerv_fl.config import RunConfig
from nerv_fl.data.identify import kind_of
from nerv_fl.data.integrity import item_digests, verify_content
from nerv_fl.deploy.checks.machines import NodeView, PairView, ServerView
from nerv_fl.deploy.checks.versions import not_recorded
from nerv_fl.deploy.diagnostics import MADE_BY_INIT, RESTORE, Finding, finding_of
from nerv_fl.errors import DataError
from nerv_fl.io.checksums import sha256_of
from nerv_fl.server.run_folder import POOLS
from nerv_fl.tasks.registry import KNOWN, AnyTask
from simulations.setups.known import setup_of

_DAMAGED: Final = "restore the file from a backup, or write it again: its values are not those that were written"


def node_data_fits_the_settings(node: NodeView) -> Iterator[Finding]:
    """Find a node's data file of another kind or size than the settings say."""
    yield from _fits(node.machine.data, node.task, chains=node.config.data.chains_per_node)


def node_data_is_as_written(node: NodeView) -> Iterator[Finding]:
    """Find overwritten values in a node's data file."""
    yield from _as_written(node.machine.data, node.config)


def node_data_is_its_own(node: NodeView) -> Iterator[Finding]:
    """Find another data file than the one that was recorded as this node's."""
    path, record = node.machine.data, node.record
    if record is None or not path.exists():
        return
    found = setup_of(node.config.task).content_hash(path)
    if found != record.data_sha256:
        yield Finding(
            what=str(path),
            value=f"has content of SHA-256 {found[:12]}",
            expected=f"{record.data_sha256[:12]}, this node's, as recorded in {node.machine.record}",
            remedy="put this node's own file back; if it was replaced on purpose, call "
            f"`nerv-fl deploy record-data {node.machine.root}`",
        )


def pools_fit_the_settings(server: ServerView) -> Iterator[Finding]:
    """Find a held-out pool of another kind or size than the settings say."""
    task, _ = server.start
    for pool in POOLS:
        yield from _fits(server.run.data(pool), task, chains=getattr(server.config.data, f"{pool}_chains"))


def pools_are_as_written(server: ServerView) -> Iterator[Finding]:
    """Find overwritten values in a held-out pool."""
    for pool in POOLS:
        yield from _as_written(server.run.data(pool), server.config)


def pools_are_the_runs_own(server: ServerView) -> Iterator[Finding]:
    """Find another held-out pool than the one that the run began with."""
    recorded = server.manifest.get("data")
    if not isinstance(recorded, Mapping):
        yield not_recorded(server.run.manifest_path, "data")
        return
    for pool in POOLS:
        path, expected = server.run.data(pool), str(recorded.get(pool, ""))
        if expected and path.exists() and (found := setup_of(server.config.task).content_hash(path)) != expected:
            yield Finding(
                what=str(path),
                value=f"has content of SHA-256 {found[:12]}",
                expected=f"{expected[:12]}, which the run began with, as recorded in {server.run.manifest_path}",
                remedy=RESTORE,
            )


def data_is_no_other_machines(pair: PairView) -> Iterator[Finding]:
    """Find data that a node shares with another node, or with a held-out pool of the server."""
    path = pair.node.machine.data
    own = set(_digests(path, pair.node.config))
    others = [node.machine.data for node in pair.earlier] + [pair.server.run.data(pool) for pool in POOLS]
    for other in others:
        if shared := own.intersection(_digests(other, pair.node.config)):
            yield Finding(
                what=str(path),
                value=f"holds {len(shared)} of {len(own)} chains that {other} holds too",
                expected="data that no other machine has",
                remedy="put each node's own file back: what two nodes share counts twice, and what the server holds "
                "out must be no node's",
            )


def _fits(path: Path, task: AnyTask, *, chains: int) -> Iterator[Finding]:
    if not path.exists():
        yield Finding(what=str(path), value="does not exist", expected=MADE_BY_INIT, remedy=RESTORE)
        return
    data = task.open(path)
    size = task.size_of(data)
    data.close()
    steps = task.config.data.steps
    if (size.chains, size.steps) != (chains, steps):
        yield Finding(
            what=str(path),
            value=f"holds {size.chains} chains of {size.steps} steps",
            expected=f"{chains} of {steps}, as the settings say",
            remedy="put the right file here; the number of samples is a public constant of the accounting",
        )


def _as_written(path: Path, config: RunConfig) -> Iterator[Finding]:
    """Compare values with their hashes; the file of somebody's own task has none of them."""
    if path.exists() and config.task in KNOWN:
        try:
            kind_of(path)
        except DataError:  # no HDF5 file at all, found by the check against the settings
            return
        try:
            verify_content(path)
        except DataError as error:
            yield finding_of(error, remedy=_DAMAGED)


def _digests(path: Path, config: RunConfig) -> list[bytes]:
    """Return the hash of each item of a file; of somebody's own task, that of the whole file."""
    if not path.exists():
        return []
    try:
        return item_digests(path) if config.task in KNOWN else [bytes.fromhex(sha256_of(path))]
    except DataError:  # found by the checks of that file by itself
        return []
