"""The simulated enclave: public keys out, envelopes in, one `RoundOutcome` out.

What is mock is the hardware. This is software in an ordinary process, the server's or its own
(`nerv_fl.enclave.process`); whoever owns the machine can read its memory. What is real is the border: the server
hands in envelopes it cannot open and gets back an outcome that holds no single update.

    open, check, screen, merge clones -> aggregate -> step search -> gate -> value (Shapley) -> certificate
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from nerv_fl.config import RunConfig
from nerv_fl.crypto import VerifyKey, sign_document
from nerv_fl.enclave.admission import AdmissionLog, Admitted, largest_honest_norm, open_round
from nerv_fl.enclave.certificate import certificate_body
from nerv_fl.enclave.gate import Candidate, Certification, Evaluator, certify
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.enclave.interface import EnclaveSeconds, RoundInput, RoundOutcome
from nerv_fl.enclave.participants import Cohort, form_cohort
from nerv_fl.enclave.screening import examiner, public_directions
from nerv_fl.enclave.server_update import take_step
from nerv_fl.enclave.summaries import gate_summary, node_values, shapley_summary
from nerv_fl.enclave.valuation import value_round
from nerv_fl.errors import AggregationError
from nerv_fl.models.trainable import num_trained
from nerv_fl.records import NodeCounts, ShapleySummary, ValueSummary

log = logging.getLogger(__name__)


class Enclave:
    """Opens a round's envelopes, decides on the new encoder and values who made it.

    Args:
        identity: Keys and evidence.
        roster: Registered nodes' verification keys.
        evaluator: The held-out pools.
        config: The run's settings.
        run: Name of the run.
        folder: Where the admission log is kept (a TEE's sealed storage, mock).
    """

    def __init__(
        self,
        identity: EnclaveIdentity,
        roster: Mapping[int, VerifyKey],
        *,
        evaluator: Evaluator,
        config: RunConfig,
        run: str,
        folder: Path,
    ) -> None:
        self._identity = identity
        self._roster = roster
        self._evaluator = evaluator
        self._config = config
        self._run = run
        self._log = AdmissionLog(folder / "admitted.json")
        if not config.gate.enforce:
            log.warning("gate.enforce is false: every round commits step 1 untested, and nothing is certified")

    @property
    def evidence(self) -> str:
        """The signed statement of its public keys and code, for nodes to check."""
        return self._identity.evidence.to_text()

    def process(self, given: RoundInput) -> RoundOutcome:
        """Run one round on its envelopes; a rejected round leaves encoder and optimiser as they were."""
        watch = _Watch()
        admitted = self._open(given)
        _log_refusals(admitted, round_number=given.round_number)
        trained = num_trained(self._evaluator.moves_P, len(given.theta_P))
        cohort = form_cohort(given, admitted, config=self._config, num_trained=trained)
        reject = partial(_rejection, given, cohort=cohort, watch=watch)
        watch.lap("open")
        if reason := _too_few(cohort.counts, config=self._config):
            return reject(reason)
        try:
            return self._judge(given, cohort, watch=watch, reject=reject)
        except AggregationError as error:
            return reject(str(error))

    def _judge(
        self,
        given: RoundInput,
        cohort: Cohort,
        *,
        watch: "_Watch",
        reject: Callable[..., RoundOutcome],
    ) -> RoundOutcome:
        """Step, certify and value; every utility that is not finite raises and rejects the round."""
        config, evaluator, round_number = self._config, self._evaluator, given.round_number
        step = take_step(given, cohort.players, evaluator=evaluator, config=config)
        watch.lap("aggregate")
        reject = partial(reject, ungated=step.candidate.ungated)
        if step.candidate.reason:
            return reject(step.candidate.reason)
        verdict = certify(
            given.theta_P,
            step.candidate,
            evaluator=evaluator,
            config=config.gate,
            seed=config.seed,
            round_number=round_number,
        )
        watch.lap("gate")
        if verdict.reason and config.gate.enforce:
            return reject(verdict.reason, verdict=verdict)
        valuation = value_round(step.game(evaluator, config), config=config, round_number=round_number)
        watch.lap("shapley")
        return RoundOutcome(
            accepted=True,
            reason="",
            step=step.candidate.step,
            theta_P=step.candidate.theta_P,
            optimizer=step.optimizer,
            homomorphism=verdict.homomorphism,
            gate=gate_summary(verdict, ungated=step.candidate.ungated),
            values=node_values(valuation, cohort.nodes, cohort.players),
            heard=cohort.heard,
            flags=cohort.flags,
            faults=cohort.faults,
            nodes=cohort.counts,
            shapley=shapley_summary(valuation),
            value=ValueSummary(total=valuation.total, empty=valuation.empty),
            certificate=self._certificate(given, step.candidate, verdict, nodes=cohort.counts),
            seconds=watch.seconds(),
        )

    def _certificate(
        self, given: RoundInput, candidate: Candidate, verdict: Certification, *, nodes: NodeCounts
    ) -> str | None:
        """Return the signed statement; where the gate is off there is none."""
        if not self._config.gate.enforce:
            return None
        body = certificate_body(given, candidate, verdict, nodes=nodes, run=self._run, config=self._config)
        return sign_document(body, key=self._identity.signing_key, evidence=self._identity.evidence)

    def _open(self, given: RoundInput) -> Admitted:
        config, moves_P = self._config, self._evaluator.moves_P
        public_KP = public_directions(given.optimizer, move_P=given.move_P, epsilon=config.server.epsilon)
        return open_round(
            given.envelopes,
            run=self._run,
            round_number=given.round_number,
            base_hash=given.base_hash,
            cohort=given.cohort,
            roster=self._roster,
            opening_key=self._identity.opening_key,
            log=self._log,
            num_parameters=len(given.theta_P),
            codec=config.training.codec,
            max_norm=largest_honest_norm(config, num_trained(moves_P, len(given.theta_P))),
            memory_mb=config.enclave.memory_mb,
            examine=examiner(public_KP, config=config, moves_P=moves_P),
            workers=config.enclave.workers,
        )


class _Watch:
    """Wall time of the stages passed so far."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] = now - self._last
        self._last = now

    def seconds(self) -> EnclaveSeconds:
        return EnclaveSeconds(
            **{stage: self._laps.get(stage, 0.0) for stage in ("open", "aggregate", "shapley", "gate")}
        )


def _log_refusals(admitted: Admitted, *, round_number: int) -> None:
    """Say once for each reason how many envelopes were refused, and whom their own signature proves at fault."""
    for reason, count in admitted.refused.items():
        proven = [node for node, fault in admitted.faults.items() if fault == reason]
        at_fault = f", proven of nodes {proven}" if proven else ""
        log.warning("round %d: %d envelopes refused as %s%s", round_number, count, reason, at_fault)


def _too_few(counts: NodeCounts, *, config: RunConfig) -> str:
    """Return why a round is too poor to count, in words, or an empty string."""
    federation = config.federation
    if counts.heard / counts.sampled < federation.min_heard_fraction:
        needed = f"{100 * federation.min_heard_fraction:g} % of the cohort"
        return f"{counts.heard} of {counts.sampled} nodes were heard, expected at least {needed}"
    clear = counts.admitted - sum(counts.flagged.values())
    if clear < federation.min_updates:
        return f"{clear} updates are valid, expected at least {federation.min_updates}"
    return ""


def _rejection(
    given: RoundInput,
    reason: str,
    *,
    cohort: Cohort,
    watch: _Watch,
    ungated: float | None = None,
    verdict: Certification | None = None,
) -> RoundOutcome:
    """Return the outcome that changes nothing and values nobody."""
    return RoundOutcome(
        accepted=False,
        reason=reason,
        step=0.0,
        theta_P=given.theta_P,
        optimizer=given.optimizer,
        homomorphism=verdict.homomorphism if verdict else None,
        gate=gate_summary(verdict, ungated=ungated),
        values=(),
        heard=cohort.heard,
        flags=cohort.flags,
        faults=cohort.faults,
        nodes=cohort.counts,
        shapley=ShapleySummary(method="none", evaluations=0, se_max=None, stop="rejected"),
        value=ValueSummary(total=None, empty=None),
        certificate=None,
        seconds=watch.seconds(),
    )
