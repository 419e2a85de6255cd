"""`nerv-fl rewards`: what every account of a run holds, one node's history, and whether the ledger is whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nerv_fl.errors import ConfigError, DataError

NANO_PER_NERV = 10**9

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def rewards(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    node: Annotated[int | None, typer.Option(help="Print this node's history instead of all balances.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the ledger against itself and the run.")] = False,
    as_json: Json = False,
) -> None:
    """Print what every node of a run earned and holds, from its rewards ledger.

    With --verify every entry is checked: its hash, its place, that the money was there, that the payouts are those of
    rewards.csv, and that the ledger ends where the checkpoint says.
    """
    from nerv_fl.rewards.ledger import balances, node_account  # noqa: PLC0415
    from nerv_fl.server.roster import read_members  # noqa: PLC0415
    from nerv_fl.server.run_folder import RunFolder  # noqa: PLC0415
    from nerv_fl.server.verify_rewards import verify_rewards  # noqa: PLC0415

    run = RunFolder(folder)
    if not run.ledger_path.is_file():
        raise DataError(f"{run.ledger_path} is missing, expected the folder of a run")
    if verify:
        checked = verify_rewards(run)
        print(json.dumps(checked) if as_json else _verified(checked))
        return
    entries = run.read_ledger()
    if node is not None:
        _require_member(node, sorted(read_members(run.roster_path)))
        account = node_account(node)
        moved = [entry for entry in entries if account in {entry.source, entry.target}]
        history = [
            {"round": entry.round, "kind": entry.kind, "amount_nano": entry.amount_nano * _sign(account, entry.target)}
            for entry in moved
        ]
        print(json.dumps(history)) if as_json else _print_history(history, title=f"Node {node}")
        return
    held = balances(entries)
    if as_json:
        print(json.dumps(held, sort_keys=True))
        return
    slashed = {entry.source: 0 for entry in entries if entry.kind == "slash"}
    for entry in entries:
        if entry.kind == "slash":
            slashed[entry.source] += entry.amount_nano
    _print_balances(held, slashed=slashed)


def _require_member(node: int, members: Sequence[int]) -> None:
    """Raise unless the node is, or was, on the run's roster."""
    if node in members:
        return
    is_range = list(members) == list(range(len(members))) and members
    known = f"0 to {members[-1]}" if is_range else ", ".join(map(str, members)) or "none"
    raise ConfigError(f"--node is {node}, expected a node of the run's roster: {known}")


def _sign(account: str, target: str) -> int:
    return 1 if target == account else -1


def _print_balances(held: Mapping[str, int], *, slashed: Mapping[str, int]) -> None:
    table = Table("Account", "Balance, NERV", "Slashed, NERV", title="Balances")
    for column in table.columns[1:]:
        column.justify = "right"
    names = [name for name in held if name != "emission"]
    for name in sorted(names, key=lambda name: (name.startswith("pool/"), -held[name], name)):
        table.add_row(name.replace("/", " ").replace("_", " "), nerv(held[name]), nerv(slashed.get(name, 0)))
    table.add_section()
    table.add_row("emitted", nerv(-held.get("emission", 0)), "")
    Console().print(table)


def _print_history(history: Sequence[Mapping[str, object]], *, title: str) -> None:
    table = Table("Round", "What", "NERV", "Balance, NERV", title=title)
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    balance = 0
    for item in history:
        amount = int(str(item["amount_nano"]))
        balance += amount
        table.add_row(str(item["round"]), str(item["kind"]), nerv(amount), nerv(balance))
    Console().print(table)


def _verified(checked: Mapping[str, object]) -> str:
    return (
        f"valid: {checked['entries']} entries, {checked['rounds']} rounds, "
        f"{nerv(int(str(checked['emitted_nano'])))} NERV emitted, {nerv(int(str(checked['paid_nano'])))} paid, "
        f"{nerv(int(str(checked['slashed_nano'])))} slashed\nhead {checked['head']}"
    )


def nerv(nano: int) -> str:
    """Return NANO as NERV with all nine digits behind the point, exact.

    >>> nerv(-1_234_000_000_005)
    '-1,234.000000005'
    """
    whole, rest = divmod(abs(nano), NANO_PER_NERV)
    return f"{'-' if nano < 0 else ''}{whole:,}.{rest:09d}"
