"""Why an envelope is refused, in words that a program can count."""

from typing import Literal

from nerv_fl.errors import SealError

Reason = Literal[
    "too-large",  # longer than an envelope of this run can be
    "malformed",  # not an envelope, or not in canonical form
    "wrong-context",  # for another run, round, node or base model
    "unknown-signer",  # the node is not on the roster
    "wrong-enclave",  # sealed to another enclave
    "bad-signature",  # not signed by the node, or its ciphertext was exchanged
    "does-not-open",  # signed by the node, but the ciphertext is not for this enclave and context
    "bad-payload",  # opened, but it holds no update of this model
    "not-finite",  # opened, but it holds NaN or infinity
    "too-long",  # opened, but its norm is beyond any honest update's
    "not-in-cohort",  # of a node that was not asked
    "duplicate",  # not the first envelope of its node and round
]


class EnvelopeRefused(SealError):  # noqa: N818 (an outcome that the round counts, not a failure of it)
    """An envelope is left out of the round; the round goes on.

    Attributes:
        reason: Machine-readable reason, one of `Reason`.
        attributable: Whether the node itself is at fault beyond doubt: its signature verified for this very context and
            enclave, so nobody else can have made the envelope. An altered or replayed envelope may be the work of
            whoever carried it, and is never attributed.
    """

    def __init__(self, message: str, reason: Reason, *, attributable: bool = False) -> None:
        super().__init__(message, reason)
        self.reason = reason
        self.attributable = attributable

    def __str__(self) -> str:
        return str(self.args[0])
