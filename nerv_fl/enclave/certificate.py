"""The certificate of an accepted round: what was tested, on what, with which result, signed by the enclave.

An encoder's holds the homomorphism bound; that of a task which claims nothing of itself holds the gate's verdict alone.
It stands where the protocol wants a Halo2 proof. It is a signed statement, not a proof: it convinces whoever trusts
the enclave, whose hardware is mock. Anyone can check that no byte was changed and that the verdict follows from the
numbers it states.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from nerv_fl.config import GAUSSIAN, PROTOCOL_BOUND, PROTOCOL_SIGMA, PrivacyConfig, RunConfig
from nerv_fl.crypto import VerifyKey, verify_document
from nerv_fl.enclave.gate import Candidate, Certification
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.errors import ConfigError, SealError
from nerv_fl.models.homomorphism import clopper_pearson_low
from nerv_fl.models.weights import vector_hash
from nerv_fl.records import Homomorphism, NodeCounts
from nerv_fl.tasks.metrics import ratio

KIND: Final = "nerv_fl homomorphism certificate"
GATE_KIND: Final = "nerv_fl gate certificate"
VERSION: Final = 1
OWN_MECHANISM_VERSION: Final = 2
"""Version of a certificate that states another mechanism than the protocol's: a verifier of version 1 refuses it."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A certificate that holds: run, round and model, and for an encoder how many batches kept its bound.

    `mechanism` says how the privacy mechanism differs from the protocol's; it is empty for the protocol's own.
    """

    run: str
    round_number: int
    model_hash: str
    num_batches: int | None
    pass_fraction_low: float | None
    p_value: float
    mechanism: str = ""


def certificate_body(
    given: RoundInput, candidate: Candidate, verdict: Certification, *, nodes: NodeCounts, run: str, config: RunConfig
) -> dict[str, object]:
    """Return the statement that the enclave signs for an accepted candidate."""
    homomorphism = verdict.homomorphism
    if verdict.p_value is None or verdict.reason:
        raise SealError(f"round {given.round_number} was rejected ({verdict.reason}), expected an accepted one")
    limits, privacy = asdict(config.gate), config.privacy
    del limits["steps"], limits["enforce"]
    return {
        "kind": KIND if homomorphism else GATE_KIND,
        "version": OWN_MECHANISM_VERSION if privacy.deviation else VERSION,
        "run": run,
        "task": config.task,
        "round": given.round_number,
        "base_hash": given.base_hash,
        "model_hash": vector_hash(candidate.theta_P),
        "step": candidate.step,
        "preset": config.model.preset if config.task == "encoder" else None,
        "sigma": privacy.sigma if privacy.is_private else None,
        **({"mechanism": _stated_mechanism(privacy)} if privacy.deviation else {}),
        "sampling_seed": verdict.sampling_seed,
        "limits": {key: value for key, value in limits.items() if isinstance(value, int | float)},
        "homomorphism": _with_fraction(homomorphism) if homomorphism else None,
        "p_value": verdict.p_value,
        "before": asdict(verdict.before),  # type: ignore[call-overload]  # a dataclass, whichever the task's
        "after": asdict(verdict.after),  # type: ignore[call-overload]
        "nodes": asdict(nodes) | {"refused": dict(nodes.refused)},
    }


def verify_certificate(text: str | bytes, *, vendor_root: VerifyKey, run: str | None = None) -> Verified:
    """Return what a certificate shows, if it is as the enclave signed it and its verdict follows from its numbers.

    Args:
        text: Content of a certificate file.
        vendor_root: Pinned public key of the (mock) vendor root.
        run: Run it must be of; None accepts any.

    Raises:
        SealError: Naming what does not hold.
    """
    return check_statement(verify_document(text, vendor_root=vendor_root, run=run))


def check_statement(body: Mapping[str, Any]) -> Verified:
    """Return what a certificate's body shows, if its verdict follows from its numbers; whoever signed may have lied.

    Raises:
        SealError: Naming what does not hold, or that the body is none.
    """
    if body.get("kind") not in (KIND, GATE_KIND) or body.get("version") not in (VERSION, OWN_MECHANISM_VERSION):
        raise SealError(
            f"document is {body.get('kind')!r:.80} version {body.get('version')!r:.80}, "
            f"expected {KIND!r} or {GATE_KIND!r} version {VERSION} or {OWN_MECHANISM_VERSION}"
        )
    try:
        return _follow(body)
    except SealError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise SealError(f"certificate lacks a number, or holds something else in its place: {error!r:.200}") from error


def _follow(body: Mapping[str, Any]) -> Verified:
    claims = _common_claims(body) | (_encoder_claims(body) if body["kind"] == KIND else _measure_claims(body))
    broken = [name for name, holds in claims.items() if not holds]
    if broken:
        raise SealError(
            f"certificate of round {body['round']} states numbers that do not support it: {', '.join(broken)}"
        )
    homomorphism = body["homomorphism"] or {}
    return Verified(
        run=body["run"],
        round_number=body["round"],
        model_hash=body["model_hash"],
        num_batches=homomorphism.get("n"),
        pass_fraction_low=homomorphism.get("pass_fraction_low"),
        p_value=body["p_value"],
        mechanism=_deviation(body),
    )


def _stated_mechanism(privacy: PrivacyConfig) -> dict[str, object]:
    """Return what a certificate states of a mechanism that is not the protocol's."""
    numbers = {"sigma": privacy.sigma, "clip": privacy.clip} if privacy.is_private else {"sigma": None, "clip": None}
    return {"name": privacy.mechanism, **numbers, "note": privacy.deviation}


def _deviation(body: Mapping[str, Any]) -> str:
    """Return how the mechanism that a body states differs from the protocol's, in words that its numbers support.

    Raises:
        SealError: If it states another mechanism in words than in numbers, or none where its version requires one.
    """
    if body["version"] == VERSION:
        return ""
    stated = body["mechanism"]
    numbers = {name: stated[name] for name in ("sigma", "clip") if stated["name"] == GAUSSIAN}
    try:
        privacy = PrivacyConfig(protocol=False, mechanism=stated["name"], **numbers)
    except ConfigError as error:
        raise SealError(f"certificate of round {body['round']} states no mechanism: {error}") from error
    if not privacy.deviation or stated != _stated_mechanism(privacy) or body["sigma"] != stated["sigma"]:
        raise SealError(
            f"certificate of round {body['round']} states numbers that do not support it: mechanism is {stated!r:.200}"
        )
    return privacy.deviation


def _with_fraction(homomorphism: Homomorphism) -> dict[str, object]:
    low = clopper_pearson_low(homomorphism.n - homomorphism.violations, homomorphism.n)
    return asdict(homomorphism) | {"pass_fraction_low": low}


def _common_claims(body: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "sigma": body["version"] == OWN_MECHANISM_VERSION or body["sigma"] == PROTOCOL_SIGMA,
        "mechanism": (body["version"] == OWN_MECHANISM_VERSION) == ("mechanism" in body),
        "p_value": body["p_value"] <= 1 - body["limits"]["confidence"],
        "sampling seed": body["sampling_seed"] == body["model_hash"],
    }


def _measure_claims(body: Mapping[str, Any]) -> dict[str, bool]:
    before, after = body["before"]["measures"], body["after"]["measures"]
    limit = body["limits"]["max_measure_ratio"]
    kept = {name: ratio(value, before[name]) <= limit for name, value in after.items()}
    return {"bound": body["task"] != "encoder", **kept}  # an encoder's certificate holds its bound


def _encoder_claims(body: Mapping[str, Any]) -> dict[str, bool]:
    homomorphism, limits, before, after = (body[key] for key in ("homomorphism", "limits", "before", "after"))
    passed = homomorphism["n"] - homomorphism["violations"]
    return {
        "bound": homomorphism["bound"] == PROTOCOL_BOUND and homomorphism["max"] <= PROTOCOL_BOUND,
        "violations": homomorphism["violations"] == 0 and homomorphism["n"] == limits["bound_batches"],
        "pass_fraction_low": homomorphism["pass_fraction_low"] == clopper_pearson_low(passed, homomorphism["n"]),
        "masked_ce": ratio(after["masked_ce"], before["masked_ce"]) <= limits["max_masked_ce_ratio"],
        "relative drift": ratio(after["drift_relative"], before["drift_relative"])
        <= limits["max_relative_drift_ratio"],
        "effective rank": ratio(after["effective_rank"], before["effective_rank"]) >= limits["min_rank_ratio"],
        "mean norm": limits["min_norm"] <= after["mean_norm"] <= limits["max_norm"],
    }
