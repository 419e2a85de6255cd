"""The rewards ledger: every NANO that moved, one entry a movement, each bound to the one before by its hash.

    emission          -> pool/gradient, pool/validation, pool/public_goods      60, 30 and 10 % of each epoch
    pool/gradient     -> node/N                                                 payout
    node/N            -> pool/public_goods                                      slash

What a round leaves in pool/gradient is what is carried over. Amounts are integers, so balances sum to what was emitted
to the last NANO. An entry's hash is the SHA-256 of its other fields as canonical JSON, the hash before it included:
whoever holds the last hash can find any change to any entry. The checkpoint holds it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from nerv_fl.errors import DataError

EMISSION: Final = "emission"
GRADIENT_POOL: Final = "pool/gradient"
VALIDATION_POOL: Final = "pool/validation"
PUBLIC_GOODS: Final = "pool/public_goods"
_KINDS: Final = {"emission": EMISSION, "payout": GRADIENT_POOL, "slash": "node/"}
"""Whose money each kind of entry moves."""


@dataclass(frozen=True, kw_only=True)
class Movement:
    """NANO that go from one account to another in a round."""

    round: int
    kind: str
    source: str
    target: str
    amount_nano: int


@dataclass(frozen=True, kw_only=True)
class Entry(Movement):
    """A movement in its place: `seq` counts from 0, `previous` is the hash of the entry before."""

    seq: int
    previous: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a ledger ends: the number of its entries and the hash of the last."""

    num_entries: int
    hash: str

    @classmethod
    def of_run(cls, run: str) -> "Head":
        """Return the head of a run's empty ledger, which names the run."""
        return cls(num_entries=0, hash=hashlib.sha256(f"nerv_fl rewards ledger of {run}".encode()).hexdigest())


def node_account(node: int) -> str:
    """Return the name of a node's account."""
    return f"node/{node}"


def extend(head: Head, movements: Iterable[Movement]) -> tuple[list[Entry], Head]:
    """Return the entries that follow a head, and the head after them.

    >>> paid = Movement(round=1, kind="payout", source=GRADIENT_POOL, target="node/3", amount_nano=5)
    >>> entries, after = extend(Head.of_run("a"), [paid])
    >>> after.num_entries, entries[0].previous == Head.of_run("a").hash
    (1, True)
    """
    entries = []
    for movement in movements:
        facts = asdict(movement) | {"seq": head.num_entries, "previous": head.hash}
        entry = Entry(**facts, hash=_digest(facts))
        entries.append(entry)
        head = Head(num_entries=head.num_entries + 1, hash=entry.hash)
    return entries, head


def to_line(entry: Entry) -> str:
    """Return an entry as one line of JSON, newline included."""
    return json.dumps(asdict(entry), sort_keys=True, separators=(",", ":")) + "\n"


def read_entries(text: str, *, source: str) -> list[Entry]:
    """Parse a ledger.

    Args:
        text: Content of the file.
        source: Its name, for the error.

    Raises:
        DataError: If a line is not an entry, naming it.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            table = json.loads(line)
            entry = Entry(**table)
        except (json.JSONDecodeError, TypeError) as error:
            raise DataError(f"{source} line {number} is not an entry of a rewards ledger: {error}") from error
        for name in ("round", "amount_nano", "seq"):
            if type(table[name]) is not int:
                raise DataError(f"{source} line {number}: {name} is {table[name]!r}, expected an integer")
        entries.append(entry)
    return entries


def check_chain(entries: Sequence[Entry], *, run: str, source: str) -> Head:
    """Return the head of a ledger whose every entry is as it was written, in its order, and moves money that was there.

    Raises:
        DataError: Naming the first line that is wrong.
    """
    head, held = Head.of_run(run), Counter[str]()
    for number, entry in enumerate(entries, 1):
        where = f"{source} line {number}"
        facts = asdict(entry)
        claimed = facts.pop("hash")
        if (entry.seq, entry.previous) != (head.num_entries, head.hash):
            raise DataError(
                f"{where} follows entry {entry.seq - 1} with hash {entry.previous[:12]}, "
                f"expected entry {head.num_entries - 1} with hash {head.hash[:12]}"
            )
        if claimed != _digest(facts):
            raise DataError(f"{where} has the hash {claimed[:12]}, expected {_digest(facts)[:12]} of its content")
        _check_movement(entry, held, where=where)
        head = Head(num_entries=head.num_entries + 1, hash=entry.hash)
    return head


def balances(entries: Iterable[Movement]) -> dict[str, int]:
    """Return what each account holds, in NANO; that of "emission" is minus all that was emitted."""
    held = Counter[str]()
    for entry in entries:
        held[entry.source] -= entry.amount_nano
        held[entry.target] += entry.amount_nano
    return dict(held)


def paid_by_round(entries: Iterable[Movement]) -> Mapping[tuple[int, str], int]:
    """Return the payout of each (round, account)."""
    paid = Counter[tuple[int, str]]()
    for entry in entries:
        if entry.kind == "payout":
            paid[entry.round, entry.target] += entry.amount_nano
    return paid


def _check_movement(entry: Entry, held: Counter[str], *, where: str) -> None:
    payer = _KINDS.get(entry.kind)
    if payer is None or not entry.source.startswith(payer):
        raise DataError(f"{where} is a {entry.kind!r} from {entry.source!r}, expected one of {', '.join(_KINDS)}")
    if entry.amount_nano <= 0:
        raise DataError(f"{where} moves {entry.amount_nano} NANO, expected a positive amount")
    if entry.source != EMISSION and held[entry.source] < entry.amount_nano:
        raise DataError(f"{where} takes {entry.amount_nano} NANO from {entry.source}, which holds {held[entry.source]}")
    held[entry.source] -= entry.amount_nano
    held[entry.target] += entry.amount_nano


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
