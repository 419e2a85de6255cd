"""Who plays what: a pure function of the settings, the same in every process of a run."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from nerv_fl.config import RunConfig
from nerv_fl.errors import ConfigError
from nerv_fl.rng import stream

GROUPED: Final = frozenset({"sybil", "splitter", "colluder", "noisy_copy"})
"""Attacks of `adversaries.group_size` identities that share an operator."""

PAIRED: Final = frozenset({"rejoiner"})
"""Attacks of two identities, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """What an adversary plays.

    Attributes:
        kind: Name of the attack.
        members: Identities of its operator, ascending, this one among them.
    """

    kind: str
    members: tuple[int, ...]

    @property
    def operator(self) -> int:
        """The first identity of whoever runs it."""
        return self.members[0]

    @property
    def weight_parts(self) -> int:
        """Into how many parts its operator's weight is divided."""
        return len(self.members) if self.kind == "splitter" else 1


@lru_cache(maxsize=8)
def assign_roles(config: RunConfig) -> dict[int, Role]:
    """Return the role of each adversary, drawn from the run's seed; whoever is not named is honest.

    Args:
        config: Its `adversaries` give the fraction of all nodes for each attack, rounded down to whole groups.

    Raises:
        ConfigError: If a fraction is too small for one group.
    """
    num_nodes = config.federation.num_nodes
    drawn = stream(config.seed, "adversaries").permutation(num_nodes).tolist()
    roles: dict[int, Role] = {}
    for kind, fraction in config.adversaries.fractions().items():
        size = config.adversaries.group_size if kind in GROUPED else 2 if kind in PAIRED else 1
        num_groups = int(fraction * num_nodes / size + 1e-9)
        if fraction and not num_groups:
            raise ConfigError(
                f"adversaries.{kind} is {fraction:g} of {num_nodes} nodes, expected 0 or at least {size} nodes"
            )
        for _ in range(num_groups):
            members = tuple(sorted(drawn.pop() for _ in range(size)))
            roles |= dict.fromkeys(members, Role(kind=kind, members=members))
    return roles
