import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import CPU, DTYPES, FEATURES, LATENCY, labels, overloaded, shapes
from nerv_fl.data.torch_datasets import LoadWindows
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.rng import stream

SHARDS, STEPS = 6, 200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A load file of random numbers, made with h5py alone."""
    rng, path = stream(0, "load"), tmp_path / "load.h5"
    with h5py.File(path, "w") as file:
        for name, shape in shapes(SHARDS, STEPS).items():
            values = rng.integers(0, 2, shape) if DTYPES[name] == "uint8" else rng.random(shape)
            file.create_dataset(name, data=values.astype(DTYPES[name]))
        file["shard/split"][:] = [0, 1, 0, 2, 0, 0]
        file["overload"][:] = rng.random((SHARDS, STEPS)) < 0.02
        texts = {"kind": b"shard-load", "generator": b"test", "content_sha256": b"0" * 64}
        for name, text in texts.items():
            file.attrs[name] = np.bytes_(text)
        numbers = {"schema_version": 1, "shards": SHARDS, "steps": STEPS, "seed": 3, "splits": 0, "complete": True}
        for name, number in numbers.items():
            file.attrs[name] = number
    return path


def slow_labels(overload: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> tuple[list[bool], list[bool]]:
    steps = range(len(overload))
    ahead = [bool(overload[t + 1 : t + 11].any()) for t in steps]
    clean = [t >= 59 and not overload[max(0, t - 59) : t + 1].any() for t in steps]
    return ahead, clean


@pytest.mark.parametrize("rate", [0.0, 0.005, 0.05, 1.0])
def test_labels_are_those_of_a_loop(rate: float) -> None:
    overload = (stream(1, "labels").random(500) < rate).astype(np.uint8)
    found = labels(overload)
    assert (found.ahead.tolist(), found.clean.tolist()) == slow_labels(overload)
    np.testing.assert_array_equal(found.onset, found.ahead & found.clean)


def test_one_overload_labels_the_ten_steps_before_it() -> None:
    overload = np.zeros(200, dtype=np.uint8)
    overload[100] = 1
    found = labels(overload)
    assert np.flatnonzero(found.ahead).tolist() == list(range(90, 100))
    assert np.flatnonzero(found.onset).tolist() == list(range(90, 100))
    assert np.flatnonzero(found.clean).tolist() == [*range(59, 100), *range(160, 200)]


@pytest.mark.parametrize(
    ("wait", "cpu", "expected"),
    [
        ([31, 31, 31, 31], [0] * 4, [0, 0, 1, 1]),
        ([30, 30, 30, 30], [0] * 4, [0, 0, 0, 0]),
        ([0] * 4, [95, 95, 95, 94], [0, 0, 1, 1]),
        ([31, 31, 0, 31], [0] * 4, [0, 0, 0, 0]),
        ([31, 0, 31, 0, 0, 15, 0, 0, 0], [0, 95, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 0]),
        ([31, 31, 31, 0, 0, 0], [0, 0, 0, 89, 90, 89], [0, 0, 1, 1, 1, 1]),
        ([31], [95], [0]),
    ],
)
def test_overload_has_hysteresis(wait: list[float], cpu: list[float], expected: list[int]) -> None:
    features = np.zeros((len(wait), len(FEATURES)), dtype=np.float32)
    features[:, LATENCY], features[:, CPU] = wait, cpu
    assert overloaded(features).tolist() == expected


@pytest.mark.parametrize("length", [1, 60, 120])
def test_windows_end_where_they_are_asked_to(path: Path, length: int) -> None:
    shards, ends = [5, 0, 5, 5, 0], [199, 119, 150, 150, 120]
    with h5py.File(path) as plain:
        expected = [plain["features"][s, e + 1 - length : e + 1] for s, e in zip(shards, ends, strict=True)]
        overload = plain["overload"][:]
    with LoadFile(path) as file:
        found = file.windows(shards, ends, length=length)
        answer = file.window_labels(shards, ends)
    np.testing.assert_array_equal(found, np.stack(expected))
    assert found.dtype == np.float32
    assert answer.ahead.tolist() == [slow_labels(overload[s])[0][e] for s, e in zip(shards, ends, strict=True)]
    assert answer.clean.tolist() == [slow_labels(overload[s])[1][e] for s, e in zip(shards, ends, strict=True)]


@pytest.mark.parametrize(
    ("shard", "end", "length", "message"),
    [
        (6, 100, 60, r"shard is 6, expected 0 to 5 \(of {}\)"),
        (-1, 100, 60, r"shard is -1, expected 0 to 5 \(of {}\)"),
        (0, 58, 60, r"end step is 58, expected 59 to 199 \(of {}\)"),
        (0, 200, 60, r"end step is 200, expected 59 to 199 \(of {}\)"),
        (0, 100, 0, r"length is 0, expected a number in \[1, 200\]"),
    ],
)
def test_windows_outside_the_file_are_refused(path: Path, shard: int, end: int, *, length: int, message: str) -> None:
    with LoadFile(path) as file, pytest.raises(ConfigError, match="^" + message.format(path) + "$"):
        file.windows([shard], [end], length=length)


def test_the_windows_of_a_split_are_normalised(path: Path) -> None:
    with LoadFile(path) as file:
        windows = LoadWindows(file, "train", length=60)
        # Four shards; ends 59 to 189, so that ten steps follow.
        assert len(windows) == 4 * 131
        mean, std = file.normalisation
        x, y = windows[131 + 5]
        np.testing.assert_allclose(x, (file.windows([2], [64])[0] - mean) / std, rtol=1e-3, atol=1e-5)
        assert y == file.window_labels([2], [64]).ahead[0]
        batch = windows.__getitems__([500, 136])
        torch.testing.assert_close(batch[1][0], x)
        with pytest.raises(IndexError, match=rf"^window is 524, expected 0 to 523 \(of {path}\)$"):
            windows[524]
        with pytest.raises(ConfigError, match=r"^split is 'tests', expected one of: .* \(did you mean 'test'\?\)$"):
            LoadWindows(file, "tests")
        with pytest.raises(ConfigError, match=r"^length is 191, expected a number in \[1, 190\]$"):
            LoadWindows(file, "test", length=191)


def test_splits_share_no_shard(path: Path) -> None:
    with LoadFile(path) as file:
        found = [file.shards_of(split).tolist() for split in ("train", "validation", "test")]
    assert found == [[0, 2, 4, 5], [1], [3]]


def _sum(windows: LoadWindows) -> float:
    return float(windows[7][0].sum())


def test_other_processes_open_the_file_anew(path: Path) -> None:
    with LoadFile(path) as file:
        windows = LoadWindows(file, "validation")
        expected = _sum(windows)
        assert _sum(pickle.loads(pickle.dumps(windows))) == expected
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
            assert executor.submit(_sum, windows).result() == expected
    assert _sum(windows) == expected
    file.close()


def test_a_forked_process_does_not_share_the_handle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoadFile(path) as file:
        before = file.handle()
        assert file.handle() is before
        monkeypatch.setattr(os, "getpid", lambda: -5)
        assert file.handle() is not before
    before.close()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path / 'no.h5'} does not exist, expected a load file$"):
        LoadFile(tmp_path / "no.h5")


def test_a_truncated_file_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"^{path} is not a readable HDF5 file \(.*\), expected a whole load file$"):
        LoadFile(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema_version", 2, ": schema_version is 2, expected 1"),
        ("kind", np.bytes_(b"ledger"), ": kind is 'ledger', expected 'shard-load'"),
        ("complete", False, " is incomplete: its writer was stopped, expected a whole load file"),
        ("shards", 7, r": features is \('float32', \(6, 200, 11\)\), expected \('float32', \(7, 200, 11\)\)"),
    ],
)
def test_a_foreign_or_unfinished_file_is_named(path: Path, name: str, *, value: object, message: str) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(DataError, match=rf"^{path}{message}$"):
        LoadFile(path)


@pytest.mark.parametrize("name", ["mean", "features"])
def test_a_file_without_a_dataset_is_named(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
    with pytest.raises(DataError, match=rf"^{path}: its description cannot be read \(.*{name}.*\), expected a whole"):
        LoadFile(path)


def test_any_flipped_byte_of_the_features_is_an_error_or_other_values(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        values = file["features"][:]
        del file["features"]
        file.create_dataset("features", data=values, compression="gzip", chunks=(1, 200, 11))
        place = file["features"].id.get_chunk_info(2).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place + 40] ^= 255
    path.write_bytes(raw)
    with LoadFile(path) as file, pytest.raises(DataError, match=rf"^{path}: features cannot be read \("):
        file.shard(2)
