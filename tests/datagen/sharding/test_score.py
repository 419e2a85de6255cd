from pathlib import Path

import numpy as np
import pytest

from datagen.sharding import generate_load
from datagen.sharding.score import recall_at, score_load, window_features
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.rng import stream


def test_recall_at_a_rate_of_false_alarms() -> None:
    score = np.arange(1.0, 13.0)
    ahead = np.array([False] * 5 + [True, False, True, False, True, True, False])
    # One alarm of eight negatives is allowed: the threshold is 9, the best positives are 10 and 11, of four.
    assert recall_at(score, ahead, false_alarms=0.125) == 0.5


def test_a_constant_score_finds_nothing() -> None:
    assert recall_at(np.zeros(8), np.arange(8) < 4) == 0.0


def test_features_of_a_window() -> None:
    features = stream(0, "features").random((100, 11)).astype(np.float32)
    ends = np.array([59, 99])
    found = window_features(features, ends)
    assert found.shape == (2, 77)
    for row, end in enumerate(ends):
        expected = [features[end]]
        for span in (5, 15, 60):
            window = features[end + 1 - span : end + 1].astype(np.float64)
            slope = np.polyfit(np.arange(span), window, 1)[0]
            expected += [window.mean(axis=0), slope]
        np.testing.assert_allclose(found[row], np.concatenate(expected), atol=1e-5)


def test_files_without_overload_cannot_be_scored(tmp_path: Path) -> None:
    generate_load(tmp_path / "a.h5", shards=10, steps=80, seed=1)
    message = r"a\.h5: no window of 7 shards comes before overload, expected some to score$"
    with pytest.raises(DataError, match=message):
        score_load(tmp_path / "a.h5")
    with pytest.raises(ConfigError, match=r"^max_shards is 0, expected a number in \[1, inf\]$"):
        score_load(tmp_path / "a.h5", max_shards=0)


@pytest.mark.slow
def test_windows_are_needed_to_foresee_overload_and_suffice(tmp_path: Path) -> None:
    generate_load(tmp_path / "a.h5", shards=300, steps=14 * 1440, seed=2)
    onsets = score_load(tmp_path / "a.h5").clean_onsets
    assert onsets.oracle >= 0.95
    assert max(onsets.persistence, onsets.logistic) <= onsets.trees - 0.03
    assert 0.003 < onsets.base_rate < 0.012
