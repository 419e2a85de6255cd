"""State: whether a machine can write what it must write, and whether what it wrote before is whole."""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from nerv_fl.client.local_training import sampling_rate
from nerv_fl.client.outbox import SENT_FILE, envelope_of, label_of
from nerv_fl.crypto import SigningKey
from nerv_fl.deploy.checks.keys import registered_keys
from nerv_fl.deploy.checks.machines import NodeView, ServerView
from nerv_fl.deploy.diagnostics import Finding, finding_of
from nerv_fl.errors import NervError
from nerv_fl.io.locks import holder_of
from nerv_fl.privacy.accounting import Mechanism
from nerv_fl.privacy.budget import SpendingLedger
from nerv_fl.records import round_from_json
from nerv_fl.records.text import read_text
from nerv_fl.rewards.ledger import check_chain, read_entries
from nerv_fl.server.checkpoint import has_state, load_state
from nerv_fl.server.run_folder import RunFolder
from simulations.bootstrap import require_begun_with

FLOAT_BYTES: Final = 4
SLACK_BYTES: Final = 2**24
"""Room for ledgers, logs and records of a few hundred rounds."""

_SPENDING: Final = (
    "restore the newest spending.json that this node wrote; without it the node does not know what epsilon it has "
    "spent: remove it from the federation, with its data"
)
_SENT: Final = "delete it: the node then trains again if it is asked for that round, and both count"
_CHECKPOINT: Final = (
    "`nerv-fl recover server/run` goes back to the newest whole checkpoint; else restore server/run from a backup"
)
_DATABASE: Final = "delete state.db and supernodes/*.json, then start superlink.sh, register.sh and run.sh"


def state_is_writable(node: NodeView) -> Iterator[Finding]:
    """Find a node's folders that cannot be written."""
    yield from _not_writable(node.machine.root)
    yield from _not_writable(node.machine.state)
    if _can_sign(node):
        yield from _not_writable(node.machine.own_folder(node.number))


def state_has_room(node: NodeView) -> Iterator[Finding]:
    """Find a disk without room for the spending ledger and two envelopes: the old one stays until the new is whole."""
    size = sum(parameter.numel() for parameter in node.task.build().parameters())
    yield from _no_room(node.machine.state, needed=SLACK_BYTES + 2 * FLOAT_BYTES * size)


def run_is_writable(server: ServerView) -> Iterator[Finding]:
    """Find the server's folders that cannot be written."""
    for folder in (server.machine.root, server.run.root, server.run.checkpoint, server.run.enclave):
        if folder.exists():
            yield from _not_writable(folder)


def run_has_room(server: ServerView) -> Iterator[Finding]:
    """Find a disk without room for a round: two checkpoints of four vectors, and what every node gets and sends."""
    _, size = server.start
    vectors = 2 * 4 + 2 * server.config.federation.num_nodes
    yield from _no_room(server.run.root, needed=SLACK_BYTES + vectors * FLOAT_BYTES * size)


def spending_ledger_is_whole(node: NodeView) -> Iterator[Finding]:
    """Find a spending ledger that was cut short, changed, or is another node's or another mechanism's."""
    _ = node.config  # what is wrong with it is not the ledger's fault
    if _can_sign(node):
        try:
            _spending_ledger(node)
        except NervError as error:
            yield finding_of(error, remedy=_SPENDING)


def sent_envelope_is_whole(node: NodeView) -> Iterator[Finding]:
    """Find a damaged copy of what the node sent last."""
    folder = node.machine.own_folder(node.number)
    if (folder / SENT_FILE).exists():
        try:
            label_of(folder)
            envelope_of(folder)
        except NervError as error:
            yield finding_of(error, remedy=_SENT)


def spending_covers_what_was_sent(node: NodeView) -> Iterator[Finding]:
    """Find a spending ledger that is missing, or older than what the node sent last."""
    folder, _ = node.machine.own_folder(node.number), node.config
    if not _can_sign(node):
        return
    try:
        sent, ledger = label_of(folder), _spending_ledger(node)
    except NervError:  # found by the two checks above
        return
    if sent is not None:
        try:
            ledger.require(sent.run, sent.round_number)
        except NervError as error:
            yield finding_of(error, remedy=_SPENDING)


def checkpoint_is_whole(server: ServerView) -> Iterator[Finding]:
    """Find a checkpoint that was cut short or changed, or that is missing though rounds were recorded."""
    run = server.run
    if has_state(run.checkpoint):
        try:
            load_state(run.checkpoint)
        except NervError as error:
            yield finding_of(error, remedy=_CHECKPOINT)
    elif any(path.exists() for path in (run.rounds_path, run.ledger_path)):
        yield Finding(
            what=str(run.checkpoint / "latest"),
            value="does not exist, though rounds are recorded",
            expected="the name of the last whole checkpoint",
            remedy=_CHECKPOINT,
        )


def rewards_ledger_agrees_with_the_checkpoint(server: ServerView) -> Iterator[Finding]:
    """Find a rewards ledger that was cut short or changed."""
    run = server.run
    if _at_work(run) or not has_state(run.checkpoint):
        return
    try:
        state = load_state(run.checkpoint)
    except NervError:  # found by the check above
        return
    try:
        entries = read_entries(_whole_lines(run.ledger_path), source=str(run.ledger_path))
        counted = [entry for entry in entries if entry.round <= state.round_number]
        head = check_chain(counted, run=str(server.manifest["run"]), source=str(run.ledger_path))
    except NervError as error:
        yield finding_of(error, remedy=_CHECKPOINT)
        return
    if head != state.ledger:
        yield Finding(
            what=str(run.ledger_path),
            value=f"ends after {head.num_entries} entries with hash {head.hash[:12]}",
            expected=f"{state.ledger.num_entries} with {state.ledger.hash[:12]}, as in the checkpoint",
            remedy=_CHECKPOINT,
        )


def rounds_are_recorded(server: ServerView) -> Iterator[Finding]:
    """Find records of rounds that were cut short, or that lack a round before the checkpoint."""
    run = server.run
    if _at_work(run) or not has_state(run.checkpoint):
        return
    try:
        last = load_state(run.checkpoint).round_number
    except NervError:  # found by the check above
        return
    lines = enumerate(_whole_lines(run.rounds_path).splitlines(), 1)
    found = {round_from_json(line, source=f"{run.rounds_path} line {number}").round for number, line in lines}
    if missing := sorted(set(range(1, last + 1)) - found):
        yield Finding(
            what=str(run.rounds_path),
            value=f"lacks {'round' if len(missing) == 1 else 'rounds'} {', '.join(map(str, missing[:5]))}",
            expected=f"every round up to {last}, which the checkpoint holds",
            remedy=_CHECKPOINT,
        )


def start_is_the_runs(server: ServerView) -> Iterator[Finding]:
    """Find other weights to start from than the run began with."""
    if "bootstrap" in server.manifest and server.run.bootstrap_path.exists():
        require_begun_with(dict(server.manifest), server.run.bootstrap_path)
    yield from ()


def superlinks_database_is_whole(server: ServerView) -> Iterator[Finding]:
    """Find a damaged database of the SuperLink."""
    database = server.machine.database
    if database.exists():
        try:
            registered_keys(database)
        except sqlite3.DatabaseError as error:
            yield Finding(
                what=str(database),
                value=f"cannot be read ({error})",
                expected="the SuperLink's database",
                remedy=_DATABASE,
            )


def _can_sign(node: NodeView) -> bool:
    """Return whether the signing key is there; a missing one is found by the check of private files."""
    return node.machine.signing_key(node.number).exists()


def _spending_ledger(node: NodeView) -> SpendingLedger:
    config = node.config
    rate = sampling_rate(config, np.arange(config.data.samples_per_node))
    return SpendingLedger(
        node.machine.own_folder(node.number) / "spending.json",
        mechanism=Mechanism(sigma=config.privacy.sigma, sampling_rate=rate, unit=config.privacy_unit),
        privacy=config.privacy,
        key=SigningKey.load_private(node.machine.signing_key(node.number)),
    )


def _not_writable(folder: Path) -> Iterator[Finding]:
    """Write a block to a file of a new name, and remove it: only that shows quotas, full disks and read-only mounts."""
    probe = folder / f".nerv-fl-check-{secrets.token_hex(4)}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)
    except OSError as error:
        yield Finding(
            what=str(folder),
            value=f"cannot be written ({error.strerror})",
            expected="a folder in which this user can make files",
            remedy="make room, mount the file system for writing, or give the folder to the user who runs the scripts",
        )


def _no_room(folder: Path, *, needed: int) -> Iterator[Finding]:
    while not folder.exists():
        folder = folder.parent
    free, mib = shutil.disk_usage(folder).free, 2**20
    if free < needed:
        yield Finding(
            what=str(folder),
            value=f"is on a disk with {free / mib:,.0f} MiB free",
            expected=f"at least {needed / mib:,.0f} MiB for the next round",
            remedy="make room, or move the folder to a larger disk",
        )


def _at_work(run: RunFolder) -> bool:
    """Return whether a server holds the run folder: between two of its writes the files do not agree."""
    try:
        return holder_of(run.lock) is not None
    except OSError:  # without permission, or locks, nobody can be known to hold it
        return False


def _whole_lines(path: Path) -> str:
    """Return a file's text without a last line that a crash cut short: a resumed run removes it."""
    if not path.exists():
        return ""
    text = read_text(path)
    return text[: text.rfind("\n") + 1]
