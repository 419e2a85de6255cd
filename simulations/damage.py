"""Checks of a simulation's folder before it is resumed: files that would be made anew, or misread, without a word.

Data, initial weights and roster are made again with the same bytes if they are missing. Keys of the enclave and what a
node has spent cannot be.
"""

import json

from nerv_fl.client.sent import SENT_FILE, Label, envelope_of, label_of
from nerv_fl.errors import CheckpointError, PrivacyError
from nerv_fl.folders import SUM_KEY, has_sum
from nerv_fl.server.folder import RunFolder
from nerv_fl.server.recovery import SPENDING_FILE, read_state
from nerv_fl.strategy.identity import EVIDENCE_FILE

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
    run = str(folder.read_manifest()["run"])
    for node in range(len(state.participations)):
        _require_node(folder, node, run=run)


def _require_node(folder: RunFolder, node: int, *, run: str) -> None:
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
    if sent is not None and sent.run == run and f"{run}/{sent.round_number}" not in steps:
        raise CheckpointError(
            f"{path} lacks round {sent.round_number}, which node {node} has answered, expected its spending: {LOST}"
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
