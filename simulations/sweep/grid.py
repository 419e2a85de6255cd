"""The points of a sweep: every combination of the settings, at every seed, none spending more privacy than the base."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

from nerv_fl.config import Flat, RunConfig, as_table, build, flatten, parse_overrides
from nerv_fl.errors import ConfigError
from nerv_fl.privacy.accounting import epsilon_of, mechanism_of
from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.strategy.client_sampling import most_rounds

Axes: TypeAlias = Mapping[str, Sequence[object]]

MAX_CHAINS: Final = 2**20
"""Most chains that a node is given so that it may keep to an epsilon."""

MECHANISM: Final = ("privacy.sigma", "privacy.mechanism", "privacy.delta")
"""Settings whose points are not held to the recipe's epsilon: a sweep over them compares epsilons."""

SLACK: Final = 0.011
"""Epsilon is known to 0.01: two that differ by less are the same."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a sweep.

    Attributes:
        setting: Keys and values that set this point apart from the recipe.
        config: Its settings, whole.
        epsilon: What the node that takes part most often spends, at `privacy.delta`; None without a mechanism.
        grown: Whether its nodes were given more data than the recipe says, to keep to the base's epsilon.
    """

    setting: tuple[tuple[str, object], ...]
    config: RunConfig
    epsilon: float | None
    grown: bool

    @property
    def label(self) -> str:
        """The setting in words, the same for every seed."""
        return ", ".join(f"{key}={value}" for key, value in self.setting) or "as the recipe says"

    @property
    def folder_name(self) -> str:
        """Name of its run folder."""
        text = "_".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.setting) or "base"
        safe = "".join(letter if letter.isalnum() or letter in "=._-*" else "-" for letter in text)
        return f"{safe.replace('*', 'x')}_seed={self.config.seed}"


def parse_axes(texts: Iterable[str]) -> dict[str, list[object]]:
    """Parse ``key=value,value`` texts, values being TOML or words.

    Raises:
        ConfigError: If a text names no key, or a key comes twice.

    >>> parse_axes(["training.local_steps=1,2", "server.optimizer=adam,momentum"])
    {'training.local_steps': [1, 2], 'server.optimizer': ['adam', 'momentum']}
    """
    axes: dict[str, list[object]] = {}
    for text in texts:
        key, separator, values = text.partition("=")
        if not separator or not values:
            raise ConfigError(f"--over is {text!r}, expected key=value,value, such as training.local_steps=1,2")
        if key in axes:
            raise ConfigError(f"--over names {key!r} twice, expected all of its values in one")
        axes[key] = [next(iter(parse_overrides([f"{key}={value}"]).values())) for value in values.split(",")]
    return axes


def plan(
    base: RunConfig,
    axes: Axes,
    *,
    seeds: Sequence[int],
    epsilon: float | None,
    also: Sequence[Flat] = (),
) -> list[Point]:
    """Return the points of a sweep, seeds innermost.

    A point whose nodes would spend more than `epsilon` gets more samples for each node, so that its batches are drawn
    at a smaller rate: as much is learned from, at the same privacy. One that sets `data.samples_per_node` is left.

    Args:
        base: The recipe.
        axes: Values to try of each key.
        seeds: Seeds of every combination.
        epsilon: What no point may exceed; None for no limit.
        also: Settings of further points, outside of the combinations.

    Raises:
        ConfigError: If a setting is wrong, a point has no epsilon where there is a limit, or no amount of data keeps a
            point to the epsilon.
    """
    flat = flatten(as_table(base))
    points = []
    combinations = [tuple(zip(axes, values, strict=True)) for values in product(*axes.values())]
    for setting in (*combinations, *(tuple(extra.items()) for extra in also)):
        for seed in seeds:
            overrides: Flat = flat | {"seed": seed} | dict(setting)  # type: ignore[assignment]
            config = build(overrides)
            held = config
            if epsilon is not None and "data.samples_per_node" not in dict(setting):
                held = keep_to(config, epsilon)
            points.append(
                Point(setting=setting, config=held, epsilon=epsilon_at_end(held), grown=held.data != config.data)
            )
    return points


def limit_of(base: RunConfig, settings: Iterable[str], *, seeds: Sequence[int]) -> float | None:
    """Return the most that the recipe itself spends at any of the seeds; None where a sweep compares epsilons.

    Args:
        base: The recipe.
        settings: Keys that the sweep varies.
        seeds: Seeds of every combination.
    """
    if not base.privacy.is_private or any(key in MECHANISM for key in settings):
        return None
    flat = flatten(as_table(base))
    spent = [epsilon_at_end(build(flat | {"seed": seed})) for seed in seeds]
    return max(epsilon for epsilon in spent if epsilon is not None)


def epsilon_at_end(config: RunConfig) -> float | None:
    """Return what the node spends that takes part most often, at `privacy.delta` per unit, Poisson sampling.

    It is None without a mechanism: no number bounds what is learned of a unit.
    """
    if not config.privacy.is_private:
        return None
    steps = most_rounds(config) * config.training.local_steps
    mechanism = mechanism_of(config, sampling_rate=config.sampling_rate)
    return epsilon_of(mechanism, steps, delta=config.privacy.delta)


def keep_to(config: RunConfig, limit: float) -> RunConfig:
    """Return the same settings with as many samples a node as keep its epsilon to a limit, at least what it had.

    Raises:
        ConfigError: If 2^20 chains a node are too few, or there is no epsilon.
    """
    few = config.data.chains_per_node
    if not config.privacy.is_private:
        raise ConfigError(
            f"privacy.mechanism is {config.privacy.mechanism!r}, expected 'gaussian' with a limit of epsilon "
            f"{format_epsilon(limit)}: {config.privacy.deviation}"
        )
    if _fits(config, limit):
        return config
    many = few
    while not _fits(_with_chains(config, many), limit):
        few, many = many, 2 * many
        if many > MAX_CHAINS:
            raise ConfigError(
                f"epsilon of {config.training.local_steps} local steps is above {format_epsilon(limit)} with "
                f"{MAX_CHAINS} chains a node, expected fewer steps or rounds"
            )
    while many - few > max(1, few // 64):
        middle = (few + many) // 2
        few, many = (few, middle) if _fits(_with_chains(config, middle), limit) else (middle, many)
    return _with_chains(config, many)


def _fits(config: RunConfig, limit: float) -> bool:
    spent = epsilon_at_end(config)
    return spent is not None and spent <= limit + SLACK


def _with_chains(config: RunConfig, chains: int) -> RunConfig:
    return build(flatten(as_table(config)) | {"data.samples_per_node": chains * config.data.steps})
