"""The roster: each node that was ever registered, its public key and its weight; whoever left keeps the number.

roster.json is an object: by number `key`, `weight`, and where they apply `role` and `operator` (a simulated attack, for
the report alone) or `retired`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerv_fl.crypto import VerifyKey
from nerv_fl.errors import DataError, SealError
from nerv_fl.io.atomic import write_atomically


@dataclass(frozen=True, kw_only=True)
class Member:
    """One node.

    Attributes:
        key: What its updates are signed under.
        weight: Its weight in the aggregate: a public constant, its number of records.
        role: The attack that it plays and for whom, (kind, operator); no decision reads it.
        retired: Whether it left: it is never asked again, and nothing is admitted from it.
    """

    key: VerifyKey
    weight: float
    role: tuple[str, int] | None = None
    retired: bool = False


def read_members(path: Path) -> dict[int, Member]:
    """Read a roster, those who left included.

    Raises:
        DataError: If the file is missing or none.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {int(node): _member(entry) for node, entry in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SealError) as error:
        raise DataError(f"{path} cannot be read ({error}), expected each node's key and weight") from error


def write_members(path: Path, members: Mapping[int, Member]) -> None:
    """Write a roster atomically, in the order of the numbers."""
    table = {str(node): _entry(member) for node, member in sorted(members.items())}
    write_atomically(path, json.dumps(table, indent=1).encode())


def active(members: Mapping[int, Member]) -> dict[int, Member]:
    """Return the members that have not left."""
    return {node: member for node, member in members.items() if not member.retired}


def _member(entry: Mapping[str, Any]) -> Member:
    return Member(
        key=VerifyKey.from_text(entry["key"]),
        weight=float(entry["weight"]),
        role=(str(entry["role"]), int(entry["operator"])) if "role" in entry else None,
        retired=bool(entry.get("retired", False)),
    )


def _entry(member: Member) -> dict[str, Any]:
    entry: dict[str, Any] = {"key": member.key.to_text(), "weight": member.weight}
    if member.role is not None:
        entry |= {"role": member.role[0], "operator": member.role[1]}
    return entry | ({"retired": True} if member.retired else {})
