"""Windows, rates and offsets of the forecaster's batches, by hand and against loops over every window.

Shapes: M shards, T minutes, B windows, S judged steps.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from datagen.sharding import generate_load
from nerv_fl.bootstrap.forecast_data import LoadSeries, PoissonWindows, fit_scale
from nerv_fl.data.load import LoadFile
from nerv_fl.errors import DataError
from nerv_fl.models.forecast_losses import FIRST
from nerv_fl.rng import stream
from tests.bootstrap.forecast_load import one_overload, series_of

SERIES = series_of(one_overload())
"""Two shards of 300 minutes, overloaded in 150..169."""


def test_windows_near_an_onset_by_hand() -> None:
    """Onset minutes are 140..149; near are 140..169; windows end in 59..289."""
    assert np.flatnonzero(SERIES.onset[0]).tolist() == list(range(140, 150))
    assert np.flatnonzero(SERIES.near()[0]).tolist() == list(range(140, 170))
    assert np.flatnonzero(SERIES.usable[0])[[0, -1]].tolist() == [59, 289]


def test_a_window_holds_an_hour_and_the_minute_after() -> None:
    windows = SERIES.windows(np.array([1, 0]), np.array([145, 59]))
    assert windows.metrics_BWD.shape == (2, 61, 11)
    np.testing.assert_array_equal(windows.metrics_BWD[0].numpy(), SERIES.features[1, 86:147])
    np.testing.assert_array_equal(windows.metrics_BWD[1].numpy(), SERIES.features[0, 0:61])
    assert windows.ahead_BS[0].tolist() == [0.0] * (139 - 145 + 60 - FIRST) + [1.0] * 6
    assert windows.clean_BS[1].tolist() == [False] * (59 - FIRST) + [True]
    part = windows.part(1, 2)
    assert part.metrics_BWD.shape == (1, 61, 11)
    assert part.clean_BS.tolist() == windows.clean_BS[1:].tolist()


def test_half_of_the_expected_batch_is_near() -> None:
    batches = PoissonWindows.of(SERIES, expected_batch=24)
    assert (len(batches.near), len(batches.far)) == (2 * 30, 2 * (231 - 30))
    assert batches.near_rate == 12 / 60
    assert batches.far_rate == 12 / 402


def test_each_window_is_drawn_at_its_rate() -> None:
    """Sizes of 4,000 batches: binomial, mean 24 and variance 12 (1 - 0.2) + 12 (1 - 0.03)."""
    batches = PoissonWindows.of(SERIES, expected_batch=24)
    sizes, near = [], 0
    for number in range(4000):
        windows = batches.draw(stream(3, number))
        sizes.append(len(windows.ahead_BS))
        near += int(windows.ahead_BS.any(dim=1).sum())
    assert np.mean(sizes) == pytest.approx(24, abs=4 * np.sqrt(21.2 / 4000))
    assert np.var(sizes) == pytest.approx(12 * 0.8 + 12 * (1 - 12 / 402), rel=0.1)


def test_no_batch_holds_a_window_twice_and_the_same_stream_draws_the_same() -> None:
    batches = PoissonWindows.of(SERIES, expected_batch=120)
    one, two = (batches.draw(stream(3, "again")) for _ in range(2))
    assert np.array_equal(one.metrics_BWD.numpy(), two.metrics_BWD.numpy())
    assert len(np.unique(one.metrics_BWD.numpy(), axis=0)) == len(one.metrics_BWD)


def test_validation_windows_are_of_a_fixed_number() -> None:
    batches = PoissonWindows.of(SERIES, expected_batch=24)
    windows = batches.fixed(stream(3, "fixed"), size=50)
    assert len(windows.ahead_BS) == 50
    assert len(batches.fixed(stream(3, "fixed"), size=10_000).ahead_BS) == 462


def test_offsets_equal_a_loop_over_every_window_and_step() -> None:
    batches = PoissonWindows.of(SERIES, expected_batch=24)
    drawn = np.zeros(SERIES.ahead.shape)
    for rate, places in ((batches.near_rate, batches.near), (batches.far_rate, batches.far)):
        for place in places:
            shard, end = divmod(int(place), 300)
            for step in range(end - 59 + FIRST, end + 1):
                drawn[shard, step] += rate
    expected = [
        np.log(drawn[SERIES.ahead & kind].mean() / drawn[~SERIES.ahead & kind].mean())
        for kind in (~SERIES.clean, SERIES.clean)
    ]
    np.testing.assert_allclose(batches.offsets(), expected, rtol=1e-9)
    assert expected[1] > 0.5


def test_scale_equals_numpy_s() -> None:
    scale = fit_scale(SERIES)
    rows = SERIES.features.reshape(-1, 11).astype(np.float64)
    np.testing.assert_allclose(scale.mean, rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale.std, rows.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale.log_std, np.log1p(rows).std(axis=0), rtol=1e-5)
    change = np.diff(SERIES.features.astype(np.float64), axis=1)
    np.testing.assert_allclose(scale.change, np.sqrt((change**2).mean(axis=(0, 1))), rtol=1e-5)


def test_a_metric_that_never_changes_is_divided_by_one() -> None:
    constant = LoadSeries(
        shards=SERIES.shards,
        features=np.full_like(SERIES.features, 3.0),
        overload=SERIES.overload,
        ahead=SERIES.ahead,
        clean=SERIES.clean,
    )
    scale = fit_scale(constant)
    assert scale.std.tolist() == scale.log_std.tolist() == scale.change.tolist() == [1.0] * 11


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_too_few_windows_are_refused() -> None:
    message = r"^60 windows are near a clean onset, expected at least 61 \(half of a batch\)$"
    with pytest.raises(DataError, match=message):
        PoissonWindows.of(SERIES, expected_batch=122)


@pytest.mark.parametrize(
    ("shards", "steps", "split", "message"),
    [
        (20, 70, "train", "has 70 steps, expected at least 71"),
        (1, 100, "test", "has 0 test shards, expected at least 1"),
        (20, 75, "test", ": none of 3 test shards meets a clean onset, expected some"),
    ],
)
def test_data_that_teach_nothing_are_refused(
    tmp_path: Path, *, shards: int, steps: int, split: str, message: str
) -> None:
    path = tmp_path / "load.h5"
    generate_load(path, shards=shards, steps=steps, seed=7)
    with LoadFile(path) as file, pytest.raises(DataError, match=rf"^{re.escape(str(path))} ?{re.escape(message)}$"):
        LoadSeries.read(file, split)
