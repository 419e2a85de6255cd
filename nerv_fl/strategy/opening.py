"""Opening a round's envelopes: the first valid one of each node is admitted, the rest are refused and counted.

Shapes: N admitted nodes, P parameters.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nerv_fl.arrays import Vector
from nerv_fl.config import RunConfig
from nerv_fl.errors import CheckpointError
from nerv_fl.files import write_atomically
from nerv_fl.rows import Rows
from nerv_fl.sealing import (
    Context,
    EnvelopeRefused,
    OpeningKey,
    VerifyKey,
    decode_update,
    largest_envelope_bytes,
    open_envelope,
    read_header,
    update_size_bytes,
)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """What a round's envelopes held.

    Attributes:
        nodes: Admitted nodes, ascending.
        updates: Theirs, in that order: kept while they fit into `memory_mb`, else opened again whenever one is read.
        refused: Number of envelopes by reason of refusal.
        faults: Reason by node, where the node's own signature proves the fault.
    """

    nodes: tuple[int, ...]
    updates: Rows
    refused: Mapping[str, int]
    faults: Mapping[int, str]

    @property
    def heard(self) -> frozenset[int]:
        """Nodes that are proven to have answered, validly or not."""
        return frozenset({*self.nodes, *self.faults})


class AdmissionLog:
    """Which envelope was first for (round, node): kept on disk, so that a restart cannot be used to send a second one.

    Args:
        path: JSON file; created at the first admission.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests: dict[str, str] = _read_digests(path)

    def is_first(self, round_number: int, node: int, envelope: bytes) -> bool:
        """Return whether no other envelope was admitted for this round and node."""
        digest = self._digests.get(f"{round_number}/{node}")
        return digest is None or digest == hashlib.sha256(envelope).hexdigest()

    def record(self, round_number: int, admitted: Mapping[int, bytes]) -> None:
        """Remember a round's envelopes; other rounds are forgotten, since their context no longer opens."""
        kept = {key: digest for key, digest in self._digests.items() if key.startswith(f"{round_number}/")}
        fresh = {f"{round_number}/{node}": hashlib.sha256(item).hexdigest() for node, item in admitted.items()}
        self._digests = kept | fresh
        write_atomically(self._path, json.dumps(self._digests, indent=1, sort_keys=True).encode())


def open_round(
    envelopes: Iterable[bytes],
    *,
    run: str,
    round_number: int,
    base_hash: str,
    cohort: Sequence[int],
    roster: Mapping[int, VerifyKey],
    opening_key: OpeningKey,
    log: AdmissionLog,
    num_parameters: int,
    codec: str,
    max_norm: float,
    memory_mb: float,
) -> Admitted:
    """Open a round's envelopes.

    A refusal never stops the round. Reasons are those of `nerv_fl.sealing.refusal`.

    Args:
        envelopes: Sealed updates, in any order.
        run: Name of the run.
        round_number: Round they must be for.
        base_hash: Hash of the encoder they must start from.
        cohort: Nodes that were asked.
        roster: Registered nodes' verification keys.
        opening_key: The enclave's private key.
        log: The first envelopes so far.
        num_parameters: P.
        codec: How updates are written.
        max_norm: Largest L2 norm of an update: a longer one could drown or overflow a coalition without it.
        memory_mb: MiB of opened updates to keep.
    """
    max_size_bytes = largest_envelope_bytes(update_size_bytes(num_parameters, codec=codec))
    kept: dict[int, Vector] = {}
    num_kept = int(memory_mb * 2**20 / (4 * num_parameters))
    accepted: dict[int, bytes] = {}
    refused: Counter[str] = Counter()
    faults: dict[int, str] = {}

    def opened(node: int, envelope: bytes) -> Vector:
        context = Context(run=run, round=round_number, node=node, base_hash=base_hash)
        payload = open_envelope(
            envelope, expected=context, roster=roster, opening_key=opening_key, max_size_bytes=max_size_bytes
        )
        return decode_update(payload, num_parameters=num_parameters, codec=codec)

    for envelope in envelopes:
        node = -1
        try:
            node = read_header(envelope, max_size_bytes=max_size_bytes).context.node
            _require_turn(node, envelope, cohort=cohort, taken=accepted, round_number=round_number, log=log)
            update_P = _sane(opened(node, envelope), max_norm=max_norm)
            accepted[node] = envelope
            if len(kept) < num_kept:
                kept[node] = update_P
        except EnvelopeRefused as refusal:
            refused[refusal.reason] += 1
            if refusal.attributable:
                faults[node] = refusal.reason
    log.record(round_number, accepted)
    nodes = tuple(sorted(accepted))

    def read(index: int) -> Vector:
        node = nodes[index]
        return kept[node] if node in kept else opened(node, accepted[node])

    return Admitted(
        nodes=nodes,
        updates=Rows(read, num_rows=len(nodes), num_parameters=num_parameters),
        refused=dict(sorted(refused.items())),
        faults=faults,
    )


def largest_honest_norm(config: RunConfig, num_parameters: int) -> float:
    """Return the largest L2 norm that an update may have: `max_update_norms` times an honest one's.

    An honest update is at most eta (C + sigma C sqrt(P) / (q n)) a local step, up to the spread of the batch's size.
    """
    training, privacy = config.training, config.privacy
    noise = privacy.sigma * math.sqrt(num_parameters) / training.expected_batch
    honest = training.local_steps * training.learning_rate * privacy.clip * (1 + noise)
    return config.server.max_update_norms * honest


def _require_turn(
    node: int,
    envelope: bytes,
    *,
    cohort: Sequence[int],
    taken: Mapping[int, bytes],
    round_number: int,
    log: AdmissionLog,
) -> None:
    if node not in cohort:
        raise EnvelopeRefused(
            f"envelope is of node {node}, expected a node of the cohort", "not-in-cohort", attributable=False
        )
    if node in taken or not log.is_first(round_number, node, envelope):
        raise EnvelopeRefused(
            f"envelope is node {node}'s second for round {round_number}", "duplicate", attributable=False
        )


def _sane(update_P: Vector, *, max_norm: float) -> Vector:
    if not np.isfinite(update_P).all():
        wrong = int((~np.isfinite(update_P)).sum())
        raise EnvelopeRefused(f"update has {wrong} numbers that are not finite", "not-finite", attributable=True)
    norm = float(np.linalg.norm(update_P.astype(np.float64)))
    if norm > max_norm:
        raise EnvelopeRefused(
            f"update has the norm {norm:g}, expected at most {max_norm:g}", "too-long", attributable=True
        )
    return update_P


def _read_digests(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (json.JSONDecodeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not an admission log ({error}), expected the file this enclave wrote"
        ) from error
