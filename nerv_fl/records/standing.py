"""What a round's record says of the model that stands: of the encoder, or of a federation's other task."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from nerv_fl.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Homomorphism:
    """Error of the affine encoder's float64 arithmetic, max-abs over coordinates, on `n` batches.

    `violations` counts batches above `bound` in float64 or different from 0 in integers. Random weights pass it too.
    """

    max: float
    p999: float
    mean: float
    bound: float
    n: int
    violations: int


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Homomorphism error of the transformer itself: mean, mean / mean |sum delta|, over unrelated states, and max."""

    mean: float
    relative: float
    ratio: float
    max: float


@dataclass(frozen=True, kw_only=True)
class MaskedCrossEntropy:
    """Cross-entropy of masked balances in nats, beside the two trivial models on the same positions."""

    value: float
    unigram: float
    per_account: float


@dataclass(frozen=True, kw_only=True)
class EncoderStanding:
    """The measures that only an encoder has, all of them."""

    homomorphism: Homomorphism
    drift: Drift
    residual_share: float
    effective_rank: float
    masked_ce: MaskedCrossEntropy


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The measures of the model that stands: an encoder's own, or another task's by name, beside its trivial models."""

    loss: float
    homomorphism: Homomorphism | None = None
    drift: Drift | None = None
    residual_share: float | None = None
    effective_rank: float | None = None
    masked_ce: MaskedCrossEntropy | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    trivial: Mapping[str, float] = field(default_factory=dict)

    @property
    def encoder(self) -> EncoderStanding:
        """What only an encoder has.

        Raises:
            DataError: If the model is another task's.
        """
        own = {item.name: getattr(self, item.name) for item in fields(EncoderStanding)}
        for name, value in own.items():
            if value is None:
                raise DataError(f"{name} is null, expected the measures of an encoder")
        return EncoderStanding(**own)
