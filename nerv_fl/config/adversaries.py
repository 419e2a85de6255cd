"""Who cheats in a simulation: the part of the nodes that plays each attack. A deployed node refuses any."""

from dataclasses import dataclass, fields

from nerv_fl.errors import ConfigError
from nerv_fl.validation import in_range


@dataclass(frozen=True, kw_only=True)
class AdversariesConfig:
    """Fraction of the nodes by attack; the rest are honest. `simulations.adversaries` says what each attack does.

    Those who act together (`sybil`, `splitter`, `colluder`, `noisy_copy`) come in groups of `group_size` identities
    with one operator each, `rejoiner` in pairs.
    """

    sybil: float = 0.0
    splitter: float = 0.0
    free_rider: float = 0.0
    sign_flip: float = 0.0
    scaled: float = 0.0
    fabricated: float = 0.0
    colluder: float = 0.0
    replayer: float = 0.0
    noisy_copy: float = 0.0
    noise_skipper: float = 0.0
    amplifier: float = 0.0
    rejoiner: float = 0.0
    group_size: int = 5

    def __post_init__(self) -> None:
        """Refuse fractions that are none, and more adversaries than nodes."""
        for kind, fraction in self.fractions().items():
            in_range(f"adversaries.{kind}", fraction, low=0, high=1)
        in_range("adversaries.group_size", self.group_size, low=2, high=1000)
        total = sum(self.fractions().values())
        if total > 1 + 1e-9:
            raise ConfigError(f"fractions in adversaries sum to {total:g}, expected at most 1")

    def fractions(self) -> dict[str, float]:
        """Return the fraction of each attack, in the order of the settings."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "group_size"}

    @property
    def any(self) -> bool:
        """Whether there is an adversary at all."""
        return any(self.fractions().values())
