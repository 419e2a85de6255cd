"""What a node has spent, on its own disk: written before an update leaves, and limited by its budget.

A deployed node signs the file with its own key, so that what was edited, or is another node's, is refused. A signature
does not show that the file is an older copy of its own; what was sent last does, where that is newer, and what the
server says to have heard. Whoever holds the key can sign anything: this finds accidents and other people's hands, not
the node's own operator.

Without a privacy mechanism rounds are listed and nothing is accounted for, as the file says: no epsilon exists. Only a
simulation may run so.

In a simulation nothing is signed: ML-DSA costs a node and round more than 0.3 ms (`python -m
benchmarks.bench_spending`), and the files of one seed are the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from nerv_fl.config import PrivacyConfig
from nerv_fl.crypto import SigningKey
from nerv_fl.crypto.canonical_json import from_base64, to_base64, to_json
from nerv_fl.errors import BudgetError, PrivacyError, SealError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import SUM_KEY, has_sum, with_sum
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.privacy.epsilon import format_epsilon

_SIGNATURE_CONTEXT: Final = b"nerv_fl spending v1"
_WHAT: Final = "spending ledger"

NOTHING_ACCOUNTED: Final = "nothing: there is no privacy mechanism, and epsilon is infinite"
"""Entry of the file where no epsilon exists."""


class SpendingLedger:
    """What a node has spent, keyed by (run, round).

    Args:
        path: JSON file; created at the first entry.
        mechanism: The step this node takes.
        privacy: Delta and the budget.
        key: The node's own signing key; None leaves the file unsigned, as in a simulation.

    Raises:
        PrivacyError: If the file is damaged, not signed by the key, or its steps were of another mechanism.
    """

    def __init__(
        self, path: Path, *, mechanism: Mechanism, privacy: PrivacyConfig, key: SigningKey | None = None
    ) -> None:
        self._path = path
        self._mechanism = mechanism
        self._privacy = privacy
        self._key = key
        self._steps = _read_steps(path, mechanism=mechanism, key=key)

    @property
    def num_steps(self) -> int:
        """Steps taken in all rounds of all runs."""
        return sum(self._steps.values())

    @property
    def epsilon(self) -> float:
        """Epsilon spent so far at the configured delta; infinite after a step without a mechanism."""
        return epsilon_of(self._mechanism, self.num_steps, delta=self._privacy.delta)

    def require(self, run: str, round_number: int) -> None:
        """Refuse to go on if this round, which was answered, is not in the file.

        Raises:
            PrivacyError: If so: the file is an older copy, or was made anew.
        """
        if _key_of(run, round_number) not in self._steps:
            raise PrivacyError(
                f"{self._path} lacks round {round_number} of {run}, which this node has answered, expected the newest "
                "file that it wrote: restore that one, or retire this node"
            )

    def spend(self, run: str, round_number: int, *, num_steps: int) -> None:
        """Account for a round on disk, before its update leaves the node; the latest round may be repeated.

        In a simulation a repeated round is the same update, bit for bit, and counts once. With a key its noise is
        fresh, and it counts again: whether the first update ever left is not known here.

        Raises:
            BudgetError: If the round would exceed the budget; nothing is then written.
            PrivacyError: If later rounds have been answered since; nothing is then written.
        """
        key = _key_of(run, round_number)
        if key in self._steps:
            if key != list(self._steps)[-1]:
                raise PrivacyError(
                    f"round {round_number} of {run} was answered before, expected {list(self._steps)[-1]} or a new one"
                )
            if self._key is None:
                return
        self._check_budget(round_number, num_steps=num_steps)
        steps = {**self._steps, key: self._steps.get(key, 0) + num_steps}
        write_atomically(self._path, _written(self._table(steps), key=self._key))
        self._steps = steps

    def _table(self, steps: Mapping[str, int]) -> dict[str, Any]:
        table: dict[str, Any] = {"mechanism": asdict(self._mechanism), "steps": steps}
        return table if self._mechanism.is_private else table | {"accounted": NOTHING_ACCOUNTED}

    def _check_budget(self, round_number: int, *, num_steps: int) -> None:
        if not self._mechanism.is_private:
            return
        epsilon = epsilon_of(self._mechanism, self.num_steps + num_steps, delta=self._privacy.delta)
        limit, mechanism = self._privacy.max_epsilon, self._mechanism
        if epsilon > limit:
            raise BudgetError(
                f"epsilon after round {round_number} would be {format_epsilon(epsilon, digits=3)} at delta "
                f"{self._privacy.delta:g} per {mechanism.unit} (Poisson sampling at {mechanism.sampling_rate:g}), "
                f"expected at most {limit:g}{_after_semicolon(self._privacy.deviation)}"
            )


def _after_semicolon(note: str) -> str:
    return f"; {note}" if note else ""


def has_spent(path: Path, run: str, round_number: int) -> bool:
    """Return whether a spending ledger holds a round; False if there is no readable one, with which no node trains."""
    try:
        return _key_of(run, round_number) in json.loads(path.read_text(encoding="utf-8"))["steps"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return False


def _key_of(run: str, round_number: int) -> str:
    return f"{run}/{round_number}"


def _written(table: dict[str, Any], *, key: SigningKey | None) -> bytes:
    if key is not None:
        signature = key.sign(_signed_bytes(table), context=_SIGNATURE_CONTEXT)
        return json.dumps({**table, "signature": to_base64(signature)}).encode()
    return json.dumps(with_sum(table)).encode()


def _signed_bytes(table: Mapping[str, Any]) -> bytes:
    """Return what is signed: the mechanism, and the rounds in the order in which they were answered."""
    ordered = {"mechanism": table["mechanism"], "steps": [list(item) for item in table["steps"].items()]}
    return to_json(ordered, what=_WHAT).encode()


def _read_steps(path: Path, *, mechanism: Mechanism, key: SigningKey | None) -> Mapping[str, int]:
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        spent = Mechanism(**table["mechanism"])
        steps = {str(key): _step_count(value) for key, value in table["steps"].items()}
    except (KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise PrivacyError(f"{path} is not a spending ledger ({error}), expected the file this node wrote") from error
    if key is not None:
        _check_signature(path, table, key=key)
    elif SUM_KEY in table and not has_sum(table):
        raise PrivacyError(f"{path} was changed, expected what this node wrote: restore it from a backup")
    if spent != mechanism:
        raise PrivacyError(
            f"{path} holds steps of {spent}, expected {mechanism}: epsilon of a mixture is not accounted for"
        )
    return steps


def _check_signature(path: Path, table: Mapping[str, Any], *, key: SigningKey) -> None:
    public = key.verify_key
    try:
        signature = from_base64(str(table.get("signature", "")), what="signature")
        public.verify(_signed_bytes(table), signature=signature, context=_SIGNATURE_CONTEXT)
    except SealError as error:
        raise PrivacyError(
            f"{path} is not signed by this node's key {public.fingerprint}, expected the file that it wrote: it was "
            "changed, or is another node's; restore the newest that it wrote, or retire this node"
        ) from error


def _step_count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"number of steps is {value!r}")
    return value
