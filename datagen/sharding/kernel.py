"""The simulation of one shard, in steps of a minute, compiled.

Every function takes a record of the shard's state and changes it: demand first, then the mix, the queue, what the
monitoring sees, and what follows from that. The number of random draws of a step is fixed.

Source: Uhlenbeck and Ornstein (1930) for the drift; Kermack and McKendrick (1927) for storms with a finite pool;
Pollaczek (1930) and Khinchine (1932) for the wait below saturation.
"""

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np

from datagen.sharding.shard import OU_MINUTES, OU_SIGMA, POOL, STATE, Records, draw_parameters, first_state
from nerv_fl.data.load_schema import CALM_CPU, CALM_WAIT_S, HOT_CPU, HOT_WAIT_S, RUN, LoadBlock
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray

F = TypeVar("F", bound=Callable[..., Any])

MINUTE_S: Final = 60.0
OU_STEP: Final = OU_SIGMA * math.sqrt(2.0 / OU_MINUTES)
DAY_ANGLE: Final = 2.0 * math.pi / 1440.0
MARKET_USE: Final = 0.70
STORM_MINUTES: Final = 10.0
STORM_SEEDS: Final = 20.0
STORM_LAG: Final = 3.0
SPREAD_LOW: Final = 1.2
SPREAD_HIGH: Final = 3.5
SLOT_S: Final = 0.4
BLOCK_S: Final = 1.5
MAX_USE: Final = 0.98
PATIENCE_S: Final = 10.0
BALK_S: Final = 90.0
SPLIT_AFTER: Final = 10
MERGE_AFTER: Final = 180
MERGE_LOAD: Final = 0.30
REST: Final = 60
MAX_DEPTH: Final = 3
# Powers of two, so that float32 holds every value exactly.
FINE: Final = 0.125
SHARE: Final = 0.25
RATIO: Final = 2.0**-9
BITS: Final = 4096.0


def compiled(function: F) -> F:
    """Compile a function, once for all processes."""
    return cast("F", numba.njit(cache=True)(function))


@compiled
def _round(value: float, resolution: float) -> float:
    return math.floor(value / resolution + 0.5) * resolution


@compiled
def _demand(s: Any, p: Any, rng: np.random.Generator) -> None:
    """Ordinary demand: the day, the week, the drift, and a fee market that flattens what exceeds its threshold."""
    s.minute += 1
    s.drift += OU_STEP * rng.standard_normal() - s.drift / OU_MINUTES
    angle = DAY_ANGLE * s.minute
    day = 1.0 + p.day_swing * math.sin(angle + p.day_phase)
    week = 1.0 + p.week_swing * math.sin(angle / 7.0 + p.week_phase)
    use = p.use * day * week * math.exp(s.drift) * 0.5**s.depth
    s.organic = use if use < MARKET_USE else MARKET_USE + p.elasticity * (use - MARKET_USE)


@compiled
def _storm(s: Any, p: Any, rng: np.random.Generator) -> None:
    """A self-exciting storm: each user in it draws in others, until the pool is spent."""
    begins, spread, weight, noise = rng.random(), rng.random(), rng.standard_normal(), rng.standard_normal()
    if s.infected == 0.0 and begins < p.storm_rate:
        s.pool, s.infected = POOL, STORM_SEEDS
        s.spread = SPREAD_LOW + (SPREAD_HIGH - SPREAD_LOW) * spread
        s.weight = math.exp(0.3 + 0.6 * weight)
    mean = s.spread / STORM_MINUTES * s.infected * s.pool / POOL
    joined = min(s.pool, max(0.0, mean + math.sqrt(mean) * noise))
    s.pool -= joined
    s.infected += joined - s.infected / STORM_MINUTES
    if s.infected < 0.25 * STORM_SEEDS:
        s.infected = 0.0
    s.excited = s.weight * s.infected / POOL * 0.5**s.depth
    s.storm += (s.excited - s.storm) / STORM_LAG


@compiled
def _surprise(s: Any, p: Any, rng: np.random.Generator) -> None:
    """Decoys, which change the mix alone, and shocks, which nothing announces."""
    begins, size, length = rng.random(), rng.random(), rng.random()
    s.decoy_left = max(0.0, s.decoy_left - 1.0)
    if s.decoy_left == 0.0 and begins < p.decoy_rate:
        s.decoy, s.decoy_left = 0.1 + 0.4 * size, math.floor(20.0 + 60.0 * length)
    begins, size, length = rng.random(), rng.random(), rng.random()
    s.shock_left = max(0.0, s.shock_left - 1.0)
    if s.shock_left == 0.0 and begins < p.shock_rate:
        s.shock, s.shock_left = 0.4 + 0.6 * size, math.floor(10.0 + 20.0 * length)


@compiled
def _mix(s: Any, p: Any, rng: np.random.Generator) -> None:
    """What kinds of transactions there are; a storm shows here before its demand does."""
    stormy = s.excited / (s.organic + s.excited)
    decoy = s.decoy if s.decoy_left > 0.0 else 0.0
    other = stormy + decoy - stormy * decoy
    s.share_complex = p.complex + (0.60 - p.complex) * other + 0.012 * rng.standard_normal()
    s.share_transfer = p.transfer * (1.0 - 0.7 * other) + 0.015 * rng.standard_normal()
    s.share_cross = p.cross + (0.65 - p.cross) * other + 0.015 * rng.standard_normal()
    s.share_complex = _round(100.0 * min(max(s.share_complex, 0.0), 0.6), SHARE)
    s.share_transfer = _round(100.0 * min(max(s.share_transfer, 0.0), 1.0 - 0.01 * s.share_complex), SHARE)
    s.share_cross = _round(min(max(s.share_cross, 0.0), 1.0), RATIO)
    users = (s.organic + 1.5 * s.excited) * (1.0 + 0.03 * rng.standard_normal())
    s.accounts = math.floor(max(0.0, users * p.capacity * p.density))


@compiled
def _queue(s: Any, p: Any, rng: np.random.Generator) -> None:
    """A fluid queue: arrivals, of whom some balk at the last wait seen, and service that a complex mix slows."""
    cost = 1.0 + 0.2 * (0.01 * s.share_complex - p.complex)
    shock = s.shock * 0.5**s.depth if s.shock_left > 0.0 else 0.0
    use = (s.organic + s.storm + shock) * (1.0 + 0.02 * rng.standard_normal())
    s.arrived = math.floor(max(0.0, use) * p.capacity * MINUTE_S)
    s.room = math.floor(p.capacity * MINUTE_S / cost * (1.0 + 0.01 * rng.standard_normal()))
    s.balked = math.floor(s.arrived * -math.expm1(-max(0.0, s.latency - PATIENCE_S) / BALK_S))
    present = s.queue + s.arrived - s.balked
    s.served = min(present, s.room)
    s.queue = present - s.served
    rho = min(s.arrived / s.room, MAX_USE)
    wait = BLOCK_S + 0.75 * SLOT_S * rho / (1.0 - rho) + s.queue / s.room * MINUTE_S
    s.latency = _round(wait * math.exp(0.03 * rng.standard_normal()), FINE)


@compiled
def _monitor(s: Any, p: Any, rng: np.random.Generator) -> None:
    """What a monitor reports of processor and memory, late and with noise."""
    s.load += 0.5 * (s.served / s.room - s.load)
    cpu = 100.0 * p.cpu_gain * (0.04 + 0.96 * s.load) + 1.5 * rng.standard_normal()
    s.cpu = _round(min(max(cpu, 0.0), 100.0), FINE)
    backlog = s.queue / (p.capacity * MINUTE_S)
    s.warmth += 0.05 * (25.0 * s.load + 15.0 * min(backlog, 1.0) - s.warmth)
    s.mem = _round(min(max(p.memory + s.warmth + 0.4 * rng.standard_normal(), 0.0), 100.0), FINE)


@compiled
def _judge(s: Any, p: Any) -> None:
    """Overload with hysteresis, and the action that follows from it."""
    s.hot_run = s.hot_run + 1 if s.latency > HOT_WAIT_S or s.cpu >= HOT_CPU else 0.0
    s.calm_run = s.calm_run + 1 if s.latency < CALM_WAIT_S and s.cpu < CALM_CPU else 0.0
    if s.hot_run >= RUN:
        s.overload = 1.0
    elif s.calm_run >= RUN:
        s.overload = 0.0
    s.over_run = s.over_run + 1 if s.overload == 1.0 else 0.0
    s.low_run = s.low_run + 1 if s.load < MERGE_LOAD else 0.0
    s.rest, s.action = max(0.0, s.rest - 1.0), 0.0
    if s.rest == 0.0 and s.over_run >= SPLIT_AFTER and s.depth < MAX_DEPTH:
        s.action, s.rest, s.depth = 1.0, REST, s.depth + p.splits
    elif s.rest == 0.0 and s.low_run >= MERGE_AFTER and s.depth >= p.splits:
        s.action, s.rest, s.depth = 2.0, REST, s.depth - p.splits


@compiled
def _step(s: Any, p: Any, rng: np.random.Generator) -> None:
    _demand(s, p, rng)
    _storm(s, p, rng)
    _surprise(s, p, rng)
    _mix(s, p, rng)
    _queue(s, p, rng)
    _monitor(s, p, rng)
    _judge(s, p)


@compiled
def _report(s: Any, p: Any, row: Any) -> None:
    """Fill a row with what the monitoring sees of a state, in the order of `nerv_fl.data.load_schema.FEATURES`."""
    row[0] = _round(s.served / MINUTE_S, FINE)
    row[1] = s.queue
    row[2] = s.cpu
    row[3] = s.mem
    row[4] = s.share_cross
    row[5] = s.share_transfer
    row[6] = s.share_complex
    row[7] = _round((s.arrived - s.balked) / MINUTE_S * p.size * (1.0 + s.share_cross), BITS)
    row[8] = _round(s.served / MINUTE_S * p.size * (0.5 + s.share_cross), BITS)
    row[9] = s.accounts
    row[10] = s.latency


@compiled
def _record(shard: Any, out: Any, rng: np.random.Generator) -> None:
    """Advance a shard, (state [1], parameters [1]), and write (features, overload, action)."""
    s, p = shard[0][0], shard[1][0]
    features, overload, action = out
    for t in range(len(overload)):
        _step(s, p, rng)
        _report(s, p, features[t])
        overload[t] = s.overload
        action[t] = s.action


@compiled
def _reveal(shard: Any, states: Any, rng: np.random.Generator) -> None:
    state, parameters = shard
    for t in range(len(states)):
        _step(state[0], parameters[0], rng)
        states[t] = state[0]


@compiled
def _rollouts(shard: Any, out: Any, rng: np.random.Generator) -> None:
    """Fill ``out`` with, of each state, the part of its continuations that meet overload within the horizon."""
    states, parameters, horizon, repeats = shard
    now = states[:1].copy()
    for b in range(len(states)):
        met = 0
        for _ in range(repeats):
            now[0] = states[b]
            for _ in range(horizon):
                _step(now[0], parameters[0], rng)
                if now[0].overload == 1.0:
                    met += 1
                    break
        out[b] = met / repeats


def simulate(seed: int, shard: int, *, steps: int, splits: bool) -> LoadBlock:
    """Simulate what is seen of a shard.

    Args:
        seed: Seed of the data set.
        shard: Number of the shard.
        steps: Minutes.
        splits: Whether overload splits it.

    Returns:
        Its features [steps, 11], overload and actions [steps].
    """
    out = (np.empty((steps, 11), np.float32), np.empty(steps, np.uint8), np.empty(steps, np.uint8))
    whole = (first_state(seed, shard), draw_parameters(seed, shard, splits=splits))
    _record(whole, out, stream(seed, "sharding", shard))
    return LoadBlock(features=out[0], overload=out[1], action=out[2])


def hidden_states(seed: int, shard: int, *, steps: int, splits: bool) -> Records:
    """Simulate a shard again, and return the hidden state after each minute, records of `STATE`, [steps]."""
    states = np.empty(steps, dtype=STATE)
    _reveal(
        (first_state(seed, shard), draw_parameters(seed, shard, splits=splits)), states, stream(seed, "sharding", shard)
    )
    return states


def overload_probability(
    states: Records, parameters: Records, rng: np.random.Generator, *, horizon: int, repeats: int
) -> FloatArray:
    """Estimate how likely overload is, for one who knows the hidden state.

    Args:
        states: Records of `STATE` to continue from, [B].
        parameters: Of their shard, [1].
        rng: Where the continuations' randomness comes from.
        horizon: Minutes ahead.
        repeats: Continuations of each state.

    Returns:
        float64 [B], the part of the continuations that meet overload.
    """
    found = np.empty(len(states))
    _rollouts((states, parameters, horizon, repeats), found, rng)
    return found
