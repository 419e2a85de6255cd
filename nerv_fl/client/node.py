"""One node: checks the enclave's evidence, trains on its own shard, accounts for it on disk, and seals its update.

A node's folder holds its signing key, its spending ledger (signed in deployment) and the last envelope it sent. Asked
twice for one round, it resends that envelope and never trains twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import torch

from nerv_fl.client.local_training import (
    Assignment,
    LocalTraining,
    Records,
    Streams,
    Trainer,
    sampling_rate,
    seeded_streams,
    train_honestly,
)
from nerv_fl.client.outbox import Label, envelope_of, keep, label_of, release, reserve
from nerv_fl.config import RunConfig
from nerv_fl.crypto import (
    Context,
    Evidence,
    SigningKey,
    VerifyKey,
    check_evidence,
    encode_update,
    largest_envelope_bytes,
    seal,
    update_size_bytes,
)
from nerv_fl.errors import PrivacyError, SealError
from nerv_fl.models.weights import vector_hash
from nerv_fl.privacy.accounting import mechanism_of
from nerv_fl.privacy.budget import SpendingLedger
from nerv_fl.rng import SystemSource, stream, system_stream

KEY_FILE: Final = "signing.key"
SPENDING_FILE: Final = "spending.json"


@dataclass(frozen=True, kw_only=True)
class RoundOrder:
    """What the server asks for: everything in it is public, and nothing in it is trusted.

    Attributes:
        run: Name of the run.
        round_number: From 1.
        theta_P: The encoder to start from, float32.
        base_hash: Its hash.
        evidence: The enclave's signed statement of its keys.
        heard: By node the last round that the server has heard from it, 0 for none.
    """

    run: str
    round_number: int
    theta_P: torch.Tensor
    base_hash: str
    evidence: str
    heard: Mapping[int, int] = field(default_factory=dict)

    @cached_property
    def theta_hash(self) -> str:
        """Hash of the encoder that came, reckoned once for all nodes of a process; empty if a number is not finite."""
        return vector_hash(self.theta_P.numpy()) if bool(torch.isfinite(self.theta_P).all()) else ""


class Node:
    """A registered node with a private shard.

    Args:
        number: Its number on the roster.
        folder: Its own folder.
        samples: int64 [n], its samples in the data file.
        config: The settings this node agreed to; the server cannot change them.
        vendor_root: Pinned public key of the (mock) vendor root.
        code_hash: Hash of the enclave code that this node trusts.
        simulated: Whether its streams are seeded, for a reproducible simulation; else they are the operating system's.
        training: What it does with its work.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        *,
        samples: Records,
        config: RunConfig,
        vendor_root: VerifyKey,
        code_hash: str,
        simulated: bool,
        training: LocalTraining = train_honestly,
    ) -> None:
        self.number = number
        self._folder = folder
        self._samples = samples
        self._config = config
        self._vendor_root = vendor_root
        self._code_hash = code_hash
        self._simulated = simulated
        self._training = training
        self._spending = SpendingLedger(
            folder / SPENDING_FILE,
            mechanism=mechanism_of(config, sampling_rate=sampling_rate(config, samples)),
            privacy=config.privacy,
            key=None if simulated else SigningKey.load_private(folder / KEY_FILE),
        )

    def answer(self, order: RoundOrder, *, trainer: Trainer, data: Any) -> bytes:
        """Return the sealed update for a round: trained now, or the very envelope sent before.

        Args:
            order: The round.
            trainer: The process's resident model.
            data: The task's open file that holds the node's shard.

        Raises:
            SealError: If the evidence does not verify, or the encoder is not the one announced.
            PrivacyError: If the budget is spent, or the round was answered from another encoder.

        Guarantees:
            The spending is on disk before the update exists outside this call; nothing but the envelope leaves.
        """
        stored = self.prepare(order, num_parameters=trainer.num_parameters)
        if stored is not None:
            return stored
        envelope = self.train(order, trainer=trainer, data=data)
        self.keep(order, envelope)
        return envelope

    def prepare(self, order: RoundOrder, *, num_parameters: int) -> bytes | None:
        """Check what is asked, and account for it on disk; return the envelope sent before, if this was asked before.

        Several nodes of one process may do so at once, each in a thread.

        Args:
            order: The round.
            num_parameters: P of the model it trains.

        Raises:
            SealError: As `answer`.
            PrivacyError: As `answer`.
            OSError: If a deployed node's disk has no room for the envelope; nothing is then spent.
        """
        self._check_evidence(order)
        _check_encoder(order, num_parameters=num_parameters)
        stored = self._stored(order)
        if stored is None:
            self._spend(order, num_parameters=num_parameters)
        return stored

    def _spend(self, order: RoundOrder, *, num_parameters: int) -> None:
        """Account for the round, once the disk space of its envelope is reserved.

        A simulation reserves nothing: its nodes share one disk and are prepared all at once, which would need the
        space of every envelope twice.
        """
        if not self._simulated:
            codec = self._config.training.codec
            reserve(self._folder, largest_envelope_bytes(update_size_bytes(num_parameters, codec=codec)))
        try:
            self._spending.spend(order.run, order.round_number, num_steps=self._config.training.local_steps)
        except BaseException:
            release(self._folder)
            raise

    def train(self, order: RoundOrder, *, trainer: Trainer, data: Any) -> bytes:
        """Train and seal, after `prepare`; the envelope may leave once `keep` has it on disk."""
        update_P = self._training(self._assignment(order, trainer=trainer, data=data))
        return seal(
            self._encode(update_P, round_number=order.round_number),
            context=Context(run=order.run, round=order.round_number, node=self.number, base_hash=order.base_hash),
            sealing_key=self._check_evidence(order).sealing_key,
            signing_key=SigningKey.load_private(self._folder / KEY_FILE),
        )

    def keep(self, order: RoundOrder, envelope: bytes) -> None:
        """See a round's envelope to the disk, so that this node resends it and never trains twice.

        Several nodes of one process may do so at once, each in a thread.
        """
        keep(self._folder, _label_of(order), envelope)

    def _check_evidence(self, order: RoundOrder) -> Evidence:
        return _checked(order.evidence, vendor_root=self._vendor_root, run=order.run, code_hash=self._code_hash)

    def _assignment(self, order: RoundOrder, *, trainer: Trainer, data: Any) -> Assignment:
        return Assignment(
            number=self.number,
            round_number=order.round_number,
            theta_P=order.theta_P,
            samples=self._samples,
            streams=self._streams(order.round_number),
            trainer=trainer,
            data=data,
            folder=self._folder,
        )

    def _streams(self, round_number: int) -> Streams:
        """Return seeded streams in a simulation; in deployment nobody may know the records drawn, or the noise."""
        if self._simulated:
            return seeded_streams(self._config.seed, round_number, self.number)
        return Streams(sampling=SystemSource(), masks=system_stream(), noise=SystemSource())

    def _encode(self, update_P: torch.Tensor, *, round_number: int) -> bytes:
        """Write the noised update; how it is rounded need not stay secret."""
        seed = self._config.seed
        rounding = stream(seed, "codec", round_number, self.number) if self._simulated else system_stream()
        return encode_update(update_P.numpy(), codec=self._config.training.codec, rounding=rounding)

    def _stored(self, order: RoundOrder) -> bytes | None:
        """Return what was sent for this round, None if it was not answered yet."""
        sent, asked = label_of(self._folder), _label_of(order)
        if not self._simulated:
            self._require_newest(order, sent)
        if sent is None or (sent.run, sent.round_number) != (asked.run, asked.round_number):
            return None
        if sent.base_hash != asked.base_hash:
            raise PrivacyError(
                f"node {self.number} answered round {order.round_number} from encoder {sent.base_hash[:12]}, "
                f"expected not to be asked again from {order.base_hash[:12]}"
            )
        return envelope_of(self._folder)

    def _require_newest(self, order: RoundOrder, sent: Label | None) -> None:
        """Refuse if the spending is older than what was sent last, or than what the server has heard."""
        if sent is not None:
            self._spending.require(sent.run, sent.round_number)
        if heard := order.heard.get(self.number, 0):
            self._spending.require(order.run, heard)


def _label_of(order: RoundOrder) -> Label:
    return Label(run=order.run, round_number=order.round_number, base_hash=order.base_hash)


_checked: Final = lru_cache(maxsize=64)(check_evidence)
"""The nodes of a process get the same evidence in every round, and pin the same root: what holds once, holds."""


def _check_encoder(order: RoundOrder, *, num_parameters: int) -> None:
    """Refuse an encoder that is not the one announced, not of this model, or not finite, before anything is spent."""
    theta_P = order.theta_P
    if theta_P.shape != (num_parameters,) or not order.theta_hash:
        raise SealError(
            f"encoder of round {order.round_number} has shape {tuple(theta_P.shape)}, "
            f"expected ({num_parameters},), every number finite"
        )
    if order.theta_hash != order.base_hash:
        raise SealError(
            f"encoder of round {order.round_number} does not have the hash {order.base_hash}, which was announced"
        )


def register(folder: Path) -> VerifyKey:
    """Make a node's signing key, if it has none, and return the public half for the roster."""
    path = folder / KEY_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        SigningKey.generate().save_private(path)
    return SigningKey.load_private(path).verify_key
