"""Checks of a simulation's folder before it is resumed: files that would be made anew, or misread, without a word.

Data, initial weights and roster are made again with the same bytes if they are missing. Keys of the enclave and what a
node has spent cannot be.
"""

import json
from collections.abc import Set

from nerv_fl.client.outbox import SENT_FILE, Label, envelope_of, label_of
from nerv_fl.enclave.identity import EVIDENCE_FILE
from nerv_fl.errors import CheckpointError, PrivacyError
from nerv_fl.io.checksums import SUM_KEY, has_sum
from nerv_fl.records import read_rewards
from nerv_fl.server.recovery import SPENDING_FILE, read_state
from nerv_fl.server.roster import read_members
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.strategy.server_state import FederationState

LOST = "restore it from a backup, or run the recipe again in another folder"


def require_resumable(folder: RunFolder) -> None:
    """Refuse a run with rounds whose enclave or nodes lost a file that cannot be made again.

    Raises:
        CheckpointError: Naming the file and the remedy.
    """
    state = read_state(folder)
    if state is None or state.round_number == 0:
        return
    path = folder.enclave / EVIDENCE_FILE
    if not path.exists():
        raise CheckpointError(f"{path} is missing, expected the evidence that certificates refer to: {LOST}")
    run, answered = str(folder.read_manifest()["run"]), _answered_rounds(folder, state)
    for node in range(len(state.participations)):
        _require_node(folder, node, run=run, answered=answered[node])


def _answered_rounds(folder: RunFolder, state: FederationState) -> list[set[int]]:
    """Return the rounds in which each node is proven to have trained; a node that cheats need not have."""
    rounds: list[set[int]] = [{last} - {0} for last in state.last_heard]
    if folder.rewards_path.exists():
        for row in read_rewards(folder.rewards_path):
            if row.value is not None and row.round <= state.round_number:
                rounds[row.node].add(row.round)
    for node, member in read_members(folder.roster_path).items() if folder.roster_path.exists() else ():
        if member.role is not None:
            rounds[node].clear()
    return rounds


def _require_node(folder: RunFolder, node: int, *, run: str, answered: Set[int]) -> None:
    """Refuse a node that would answer no round any more, or would not know what it has spent."""
    sent = _require_sent(folder, node)
    path = folder.node(node) / SPENDING_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if SUM_KEY in table and not has_sum(table):
            raise CheckpointError(f"{path} was changed, expected what node {node} wrote: {LOST}")
        steps = table["steps"]
    except FileNotFoundError:
        steps = {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}), expected what node {node} spent: {LOST}") from error
    if sent is not None and sent.run == run:
        answered = {*answered, sent.round_number}
    lacking = sorted(number for number in answered if f"{run}/{number}" not in steps)
    if lacking:
        raise CheckpointError(
            f"{path} lacks round {lacking[0]}, which node {node} has answered, expected its spending: {LOST}"
        )


def _require_sent(folder: RunFolder, node: int) -> Label | None:
    """Return what a node sent last; a damaged envelope is refused."""
    try:
        label = label_of(folder.node(node))
        if label is not None:
            envelope_of(folder.node(node))
    except PrivacyError as error:
        path = folder.node(node) / SENT_FILE
        raise CheckpointError(f"{error}; delete {path}: the node then trains that round again") from error
    return label
