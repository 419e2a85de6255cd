"""Opening a round's envelopes: the first valid one of each node is admitted, the rest are refused and counted.

Shapes: N admitted nodes, P parameters.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.crypto import (
    Context,
    Envelope,
    EnvelopeRefused,
    OpeningKey,
    VerifyKey,
    decode_update,
    largest_envelope_bytes,
    read_envelope,
    update_size_bytes,
)
from nerv_fl.enclave.update_statistics import Traits
from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.parallel import map_ahead
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows, rows_in_a_task


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """What a round's envelopes held.

    Attributes:
        nodes: Admitted nodes, ascending.
        updates: Theirs, in that order: kept while they fit into `memory_mb`, else opened again whenever one is read.
        traits: What was seen of each.
        refused: Number of envelopes by reason of refusal.
        faults: Reason by node, where the node's own signature proves the fault.
    """

    nodes: tuple[int, ...]
    updates: Rows
    traits: tuple[Traits, ...]
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

    def is_first(self, round_number: int, node: int, digest: str) -> bool:
        """Return whether no other envelope than this was admitted for this round and node."""
        return self._digests.get(f"{round_number}/{node}", digest) == digest

    def record(self, round_number: int, admitted: Mapping[int, str]) -> None:
        """Remember the names of a round's envelopes; other rounds' are forgotten: their context no longer opens."""
        kept = {key: digest for key, digest in self._digests.items() if key.startswith(f"{round_number}/")}
        fresh = {f"{round_number}/{node}": digest for node, digest in admitted.items()}
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
    examine: Callable[[Vector], Traits],
    workers: int = 1,
) -> Admitted:
    """Open a round's envelopes, each once, and look at each update while it is there.

    A refusal never stops the round. Reasons are those of `nerv_fl.crypto.rejection`.

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
        examine: What is kept of every update.
        workers: Threads that open; no result depends on it.
    """
    opener = _Opener(
        context=Context(run=run, round=round_number, node=0, base_hash=base_hash),
        roster=roster,
        opening_key=opening_key,
        num_parameters=num_parameters,
        codec=codec,
        max_norm=max_norm,
        examine=examine,
    )
    max_size_bytes = largest_envelope_bytes(update_size_bytes(num_parameters, codec=codec))
    claims = _by_claim(envelopes, cohort=cohort, max_size_bytes=max_size_bytes)
    opened = _OpenedRound(num_kept=int(memory_mb * 2**20 / (4 * num_parameters)), refused=Counter(claims.refused))
    by_node, size = sorted(claims.by_node.items()), rows_in_a_task(num_parameters)
    tasks = [by_node[start : start + size] for start in range(0, len(by_node), size)]
    turn = partial(opener.first_valid, log=log)
    for first in chain.from_iterable(map_ahead(lambda task: list(map(turn, task)), tasks, workers=workers)):
        opened.add(first)
    log.record(round_number, {node: envelope.digest for node, envelope in opened.accepted.items()})
    return opened.admitted(opener, num_parameters=num_parameters, workers=workers)


class _Claims(NamedTuple):
    """Envelopes by the node that they claim to be of, in order of arrival, and those that claim nothing usable."""

    by_node: dict[int, list[Envelope]]
    refused: list[str]


def _by_claim(envelopes: Iterable[bytes], *, cohort: Sequence[int], max_size_bytes: int) -> _Claims:
    asked = frozenset(cohort)
    claims = _Claims(by_node={}, refused=[])
    for data in envelopes:
        try:
            envelope = read_envelope(data, max_size_bytes=max_size_bytes)
        except EnvelopeRefused as refusal:
            claims.refused.append(refusal.reason)
            continue
        node = envelope.header.context.node
        if node in asked:
            claims.by_node.setdefault(node, []).append(envelope)
        else:
            claims.refused.append("not-in-cohort")
    return claims


class _Opened(NamedTuple):
    envelope: Envelope
    update_P: Vector
    traits: Traits


class _First(NamedTuple):
    """What a node's envelopes came to: the first valid one, why others were refused, and what proves a fault."""

    node: int
    opened: _Opened | None
    refused: list[str]
    fault: str


@dataclass(kw_only=True)
class _OpenedRound:
    """What a round's envelopes came to so far; the first `num_kept` updates stay open, others are opened again."""

    num_kept: int
    refused: Counter[str]
    kept: list[Vector] = field(default_factory=list)
    accepted: dict[int, Envelope] = field(default_factory=dict)
    traits: list[Traits] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)

    def add(self, first: _First) -> None:
        self.refused.update(first.refused)
        if first.fault:
            self.faults[first.node] = first.fault
        if first.opened is not None:
            if len(self.kept) < self.num_kept:
                self.kept.append(first.opened.update_P)
            self.accepted[first.node] = first.opened.envelope
            self.traits.append(first.opened.traits)

    def admitted(self, opener: "_Opener", *, num_parameters: int, workers: int) -> Admitted:
        kept, accepted, nodes = self.kept, self.accepted, tuple(self.accepted)

        def read(index: int) -> Vector:
            return kept[index] if index < len(kept) else opener.open(nodes[index], accepted[nodes[index]])

        return Admitted(
            nodes=nodes,
            updates=Rows(read, num_rows=len(nodes), num_parameters=num_parameters, workers=workers),
            traits=tuple(self.traits),
            refused=dict(sorted(self.refused.items())),
            faults=self.faults,
        )


@dataclass(frozen=True, kw_only=True)
class _Opener:
    """Opens one round's envelopes; pure, so several threads may.

    `context` is the round's, for whichever node; the rest is as `open_round` says.
    """

    context: Context
    roster: Mapping[int, VerifyKey]
    opening_key: OpeningKey
    num_parameters: int
    codec: str
    max_norm: float
    examine: Callable[[Vector], Traits]

    def first_valid(self, claim: tuple[int, list[Envelope]], *, log: AdmissionLog) -> _First:
        """Open a node's envelopes in order of arrival until one is valid; those after it are not opened."""
        node, envelopes = claim
        opened, refused, fault = None, list[str](), ""
        for envelope in envelopes:
            if opened is not None or not log.is_first(self.context.round, node, envelope.digest):
                refused.append("duplicate")
                continue
            try:
                update_P = self.open(node, envelope)
                traits = self.examine(update_P)
                _require_sane(update_P, norm=math.sqrt(traits.square), max_norm=self.max_norm)
                opened = _Opened(envelope, update_P, traits)
            except EnvelopeRefused as refusal:
                refused.append(refusal.reason)
                fault = refusal.reason if refusal.attributable else fault
        return _First(node, opened, refused, fault)

    def open(self, node: int, envelope: Envelope) -> Vector:
        """Return a node's update, or raise EnvelopeRefused."""
        expected = replace(self.context, node=node)
        payload = envelope.open(expected=expected, roster=self.roster, opening_key=self.opening_key)
        return decode_update(payload, num_parameters=self.num_parameters, codec=self.codec)


def largest_honest_norm(config: RunConfig, num_parameters: int) -> float:
    """Return the largest L2 norm that an update may have: `max_update_norms` times an honest one's.

    An honest update is at most eta (C + sigma C sqrt(P) / (q n)) a local step, up to the spread of the batch's size.
    Without a clip nothing bounds an honest update, and any finite one may have any length.
    """
    training, privacy = config.training, config.privacy
    if not privacy.is_private:
        return math.inf
    noise = privacy.sigma * math.sqrt(num_parameters) / training.expected_batch
    honest = training.local_steps * training.learning_rate * privacy.clip * (1 + noise)
    return config.server.max_update_norms * honest


def _require_sane(update_P: Vector, *, norm: float, max_norm: float) -> None:
    if not math.isfinite(norm):
        wrong = int((~np.isfinite(update_P)).sum())
        raise EnvelopeRefused(f"update has {wrong} numbers that are not finite", "not-finite", attributable=True)
    if norm > max_norm:
        raise EnvelopeRefused(
            f"update has the norm {norm:g}, expected at most {max_norm:g}", "too-long", attributable=True
        )


def _read_digests(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (json.JSONDecodeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not an admission log ({error}), expected the file this enclave wrote"
        ) from error
