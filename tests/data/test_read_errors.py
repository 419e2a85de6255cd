"""Whatever is not a whole ledger is refused by name, whichever byte is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nerv_fl.data import LedgerFile
from nerv_fl.errors import DataError
from tests.data.small_ledger import CHAINS, edit


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        LedgerFile(tmp_path / "none.h5")
    assert str(error.value) == f"{tmp_path / 'none.h5'} does not exist, expected a ledger file"


def test_file_that_is_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("balances\n1,2,3\n")
    with pytest.raises(DataError, match=r"text\.h5 is not a readable HDF5 file \(.*signature not found.*\), expected"):
        LedgerFile(tmp_path / "text.h5")


def test_truncated_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"is not a readable HDF5 file \(.*truncated.*\), expected a whole ledger file"):
        LedgerFile(path)


def test_damaged_chunk(path: Path) -> None:
    with h5py.File(path) as file:
        chunk = file["balances"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with (
        LedgerFile(path) as ledger,
        pytest.raises(DataError, match=r"balances cannot be read .*expected a whole ledger"),
    ):
        ledger.read([0])


def replace(file: Any, name: str, values: object) -> None:
    del file[name]
    file[name] = values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.clear(), " has no schema_version, expected a ledger file of schema 2"),
        (lambda file: file.attrs.update(schema_version=1), ": schema_version is 1, expected 2"),
        (
            lambda file: file.attrs.pop("complete"),
            " is incomplete: its writer was stopped, expected a whole ledger file",
        ),
        (lambda file: file.attrs.update(seed=0.5), ": attribute seed is np.float64(0.5), expected an integer"),
        (lambda file: file.attrs.pop("profile"), ": attribute profile is None, expected a text of fixed length"),
        (lambda file: file.pop("tx/kind"), " has no dataset tx/kind, expected a ledger file"),
        (lambda file: replace(file, "balances", np.zeros((11, 4, 8))), ": balances is float64, expected int64"),
        (
            lambda file: replace(file, "balances", np.zeros((11, 4, 9), dtype=np.int64)),
            ": balances has shape (11, 4, 9), expected (11, 4, 8)",
        ),
        (
            lambda file: replace(file, "tx/sender", np.zeros(2, dtype=np.uint16)),
            ": tx/sender has shape (2,), expected (83,)",
        ),
    ],
)
def test_files_of_another_schema(path: Path, change: Callable[[Any], object], message: str) -> None:
    edit(path, change)
    with pytest.raises(DataError) as error:
        LedgerFile(path)
    assert str(error.value) == f"{path}{message}"


@pytest.mark.parametrize(
    ("entry", "value", "where"),
    [
        (0, -1, "chain 0, step 0: its batch begins at transaction -1 and ends before 1"),
        (4, 99, "chain 1, step 0: its batch begins at transaction 6 and ends before 99"),
        (4, 5, "chain 1, step 0: its batch begins at transaction 6 and ends before 5"),
        (4, 6, "chain 1, step 0: its batch begins at transaction 6 and ends before 6"),
        (33, 82, "chain 10, step 2: its batch begins at transaction 82 and ends before 82"),
    ],
)
def test_batches_without_a_transaction_or_outside_the_file(path: Path, entry: int, *, value: int, where: str) -> None:
    edit(path, lambda file: file["batch/offset"].write_direct(np.array([value]), dest_sel=np.s_[entry : entry + 1]))
    with LedgerFile(path) as ledger:
        for read in (lambda: ledger.read(range(33), with_batches=True), lambda: ledger.read_chains(0, CHAINS)):
            with pytest.raises(DataError) as error:
                read()
            assert str(error.value) == f"{path}: {where}, expected at least one transaction of the file's 83"


def everything(path: Path) -> list[object]:
    with LedgerFile(path) as ledger:
        samples, block = ledger.read([32, 0, 5], with_batches=True), ledger.read_chains(0, CHAINS)
        parts = [samples, samples.batches, block]
        arrays = [value for part in parts for value in vars(part).values() if isinstance(value, np.ndarray)]
        return [ledger.info, ledger.num_transactions, *(array.tobytes() for array in arrays)]


def refuses(damaged: Path, *, whole: list[object]) -> bool:
    """Return whether a file is refused, by its name; if not, it must read as if it were whole."""
    try:
        found = everything(damaged)
    except DataError as error:
        return str(error).startswith(str(damaged))
    assert found == whole
    return False


@pytest.mark.parametrize("stride", [37, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_byte_is_named_or_changes_nothing(path: Path, stride: int) -> None:
    content, whole = path.read_bytes(), everything(path)
    damaged, places = path.with_name("damaged.h5"), range(0, 6000, stride)
    num_refused = 0
    for place in places:
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        num_refused += refuses(damaged, whole=whole)
    assert num_refused > 0.85 * len(places)


def test_texts_of_variable_length_are_not_read(path: Path) -> None:
    edit(path, lambda file: file.attrs.update(profile="live"))
    with pytest.raises(DataError) as error:
        LedgerFile(path)
    assert str(error.value) == f"{path}: attribute profile is None, expected a text of fixed length"
