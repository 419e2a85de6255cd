"""Is a run's rewards ledger whole, and does it agree with everything else that the run wrote?"""

from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.records import read_rewards
from nerv_fl.rewards.ledger import EMISSION, GRADIENT_POOL, balances, node_account, paid_by_round
from nerv_fl.server.recovery import read_state, require_records
from nerv_fl.server.run_folder import RunFolder


def verify_rewards(folder: RunFolder) -> dict[str, int | str]:
    """Check a run's rewards ledger.

    Args:
        folder: The run folder.

    Returns:
        entries, rounds, emitted_nano, paid_nano, slashed_nano, and the head's hash.

    Raises:
        DataError: Naming the first line that is wrong, or what disagrees with rewards.csv or the checkpoint.
        CheckpointError: If the run has no readable checkpoint.

    Guarantees:
        No entry was changed, dropped, moved or added since the checkpoint was written, and no balance was ever below 0.
        Whoever can write the checkpoint too can rewrite both: only a head that was published elsewhere binds them.
    """
    state = read_state(folder)
    if state is None:
        raise CheckpointError(f"{folder.checkpoint} holds no checkpoint, expected that of a run with rounds")
    folder.check_ledger(head=state.ledger)
    entries = folder.read_ledger()
    paid = paid_by_round(entries)
    for row in read_rewards(folder.rewards_path):
        found = paid.get((row.round, node_account(row.node)), 0)
        if found != row.payout_nano:
            raise DataError(
                f"{folder.rewards_path} pays node {row.node} {row.payout_nano} NANO in round {row.round}, "
                f"expected {found}: the ledger says that"
            )
    held = balances(entries)
    expected = {node_account(node): nano for node, nano in enumerate(state.balances_nano)}
    expected[GRADIENT_POOL] = state.carried_nano
    for account, nano in expected.items():
        if held.get(account, 0) != nano:
            raise DataError(f"{account} holds {held.get(account, 0)} NANO in the ledger, expected {nano}")
    require_records(folder, state.round_number)
    return {
        "entries": state.ledger.num_entries,
        "rounds": state.round_number,
        "emitted_nano": -held.get(EMISSION, 0),
        "paid_nano": sum(paid.values()),
        "slashed_nano": sum(entry.amount_nano for entry in entries if entry.kind == "slash"),
        "head": state.ledger.hash,
    }
