"""The windows of an examination: where they may lie, how many there are, and that nothing but the seed draws them.

Shapes: N windows, M shards, T minutes.
"""

import re

import numpy as np
import pytest

from nerv_fl.bootstrap.forecast_windows import Amounts, Examination, count, last_minute_places
from nerv_fl.errors import ConfigError, DataError
from tests.bootstrap.forecast_load import one_overload, series_of

SERIES = series_of(one_overload(num_shards=3, num_steps=3000, start=800, length=30))
AMOUNTS = Amounts(uniform=500, clean=200, days=4)


def examination(*, seed: int = 7, amounts: Amounts = AMOUNTS) -> Examination:
    return Examination.of(SERIES, amounts=amounts, seed=seed)


def test_counts_by_hand() -> None:
    """Each of 3 shards meets one overload, which 10 clean minutes come before."""
    found = count(examination())
    assert (found.shards, found.uniform, found.clean, found.clean_ahead) == (3, 500, 230, 30)
    assert (found.episodes, found.shard_days) == (3, 4.0)


def test_uniform_windows_are_different_and_have_an_hour_before_and_a_horizon_after() -> None:
    places = examination().uniform
    assert len({*zip(places.shards.tolist(), places.ends.tolist(), strict=True)}) == 500
    assert places.ends.min() >= 59
    assert places.ends.max() <= 2989
    every = examination(amounts=Amounts(uniform=10**6, clean=1, days=1)).uniform
    assert len(every.ends) == 3 * (3000 - 69)


def test_clean_windows_are_clean_and_hold_every_onset() -> None:
    found = examination()
    ahead = found.clean.of(SERIES.ahead)
    assert found.clean.of(SERIES.clean).all()
    assert ahead.sum() == 30
    assert set(found.clean.ends[ahead].tolist()) == set(range(790, 800))


def test_watched_days_are_whole_and_differ() -> None:
    watched = examination().watched
    starts = {(int(shard), int(end)) for shard, end in zip(watched.shards[::1440], watched.ends[::1440], strict=True)}
    assert len(starts) == 4
    assert {end for _, end in starts} <= {59, 59 + 1440}
    assert np.array_equal(watched.ends[:1440], np.arange(watched.ends[0], watched.ends[0] + 1440))


def test_the_seed_draws_the_windows() -> None:
    same, other = examination(), examination(seed=8)
    assert np.array_equal(examination().uniform.ends, same.uniform.ends)
    assert not np.array_equal(other.uniform.ends, same.uniform.ends)


def test_logistic_regression_is_fitted_on_even_and_on_clean_windows() -> None:
    evenly, clean = last_minute_places(SERIES, seed=7)
    assert len(evenly.ends) == 3 * (3000 - 69)
    assert clean.of(SERIES.clean).all()
    assert clean.of(SERIES.ahead).sum() == 30


def test_a_day_cannot_be_watched_in_less() -> None:
    short = series_of(one_overload(num_steps=1508))
    with pytest.raises(DataError, match=r"^shards of 1508 steps, expected at least 1509: a day$"):
        Examination.of(short, amounts=AMOUNTS, seed=7)
    Examination.of(series_of(one_overload(num_steps=1509)), amounts=AMOUNTS, seed=7)


@pytest.mark.parametrize("name", ["uniform", "clean", "days"])
def test_an_examination_without_windows_is_refused(name: str) -> None:
    message = f"{name} is 0, expected a number in [1, 100000000]"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Amounts(**{name: 0})
