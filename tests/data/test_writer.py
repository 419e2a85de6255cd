"""What no ledger may hold is refused before it is written, and a full disk leaves nothing behind."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from nerv_fl.data import ChainBlock, LedgerFile, join_ledgers, write_ledger
from nerv_fl.errors import DataError
from tests.data.small_ledger import ACCOUNTS, CHAINS, STEPS, make_block


def put(name: str, place: tuple[int, ...], value: int) -> Callable[[ChainBlock], ChainBlock]:
    def change(block: ChainBlock) -> ChainBlock:
        values = getattr(block, name).copy()
        values[place] = value
        return replace(block, **{name: values})

    return change


def write(path: Path, block: ChainBlock, *, seed: int = 5) -> None:
    described = {"steps": STEPS, "accounts": ACCOUNTS, "seed": seed, "profile": "live", "generator": "test/1"}
    write_ledger(path, [block], chains=len(block.balances), **described)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("balances", (3, 2, 1), -4), "chain 3, state 2: a balance is -4 NANO, expected at least 0"),
        (
            put("balances", (1, 0, 0), 2**54),
            "chain 1, state 0: balances sum to 1.801440e+16 NANO, expected at most 10000000000000000",
        ),
        (put("counts", (2, 1), 257), "chain 2, step 1: the batch holds 257 transactions, expected 1 to 256"),
        (put("counts", (0, 0), 0), "chain 0, step 0: the batch holds 0 transactions, expected 1 to 256"),
    ],
)
def test_what_no_ledger_may_hold(tmp_path: Path, change: Callable[[ChainBlock], ChainBlock], message: str) -> None:
    with pytest.raises(DataError) as error:
        write(tmp_path / "a.h5", change(make_block(0, CHAINS)))
    assert str(error.value) == f"{tmp_path / 'a.h5'}: {message}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "write",
    [
        "from datagen.ledger import *; generate_ledger(path, LedgerShape(chains=64, accounts=1024))",
        "from datagen.sharding import *; generate_load(path, shards=2, steps=20_000, seed=1)",
    ],
)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, write: str) -> None:
    """The limit on a file's size stands for the disk: both fail the same write."""
    code = (
        "import resource, sys; from pathlib import Path; path = Path(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"try:\n    {write}\n"
        "except OSError as error: print(error)\n"
    )
    path = tmp_path / "a.h5"
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "cannot be written" in found.stdout, found.stderr
    assert f"'{path}" in found.stdout
    assert not path.exists()
    assert [left for left in tmp_path.rglob("*") if left.is_file() and left.name != "plan.json"] == []


def test_joined_parts_are_the_file_written_at_once(tmp_path: Path) -> None:
    write(tmp_path / "whole.h5", make_block(0, CHAINS))
    for number, (first, last) in enumerate(((0, 4), (4, 5), (5, CHAINS))):
        write(tmp_path / f"{number}.h5", make_block(first, last))
    joined = join_ledgers(tmp_path / "joined.h5", [tmp_path / f"{number}.h5" for number in range(3)], chains=CHAINS)
    with LedgerFile(tmp_path / "whole.h5") as whole, LedgerFile(tmp_path / "joined.h5") as found:
        assert joined == whole.info
        assert all(
            (getattr(found.read_chains(0, CHAINS), name) == values).all()
            for name, values in vars(whole.read_chains(0, CHAINS)).items()
        )


def test_parts_that_differ_are_not_joined(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", make_block(0, 4))
    write(tmp_path / "b.h5", make_block(4, CHAINS), seed=6)
    with pytest.raises(DataError) as error:
        join_ledgers(tmp_path / "c.h5", [tmp_path / "a.h5", tmp_path / "b.h5"], chains=CHAINS)
    assert str(error.value) == f"{tmp_path / 'b.h5'}: seed is 6, expected 5 as in {tmp_path / 'a.h5'}"


def test_any_hdf5_library_can_read_it(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", make_block(0, CHAINS))
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file["balances"][:] == make_block(0, CHAINS).balances).all()
        assert file["balances"].compression == "gzip"
        assert (file["tx/amount_nano"][:] == make_block(0, CHAINS).amount_nano).all()


def test_a_file_compressed_otherwise_is_read_too(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", make_block(0, CHAINS))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        values = file["balances"][:]
        del file["balances"]
        file.create_dataset("balances", data=values, chunks=(2, 4, 8), compression="lzf")
    with LedgerFile(tmp_path / "a.h5") as ledger:
        assert ledger.read([32, 0, 5]).before[:, 0].tolist() == [10200, 0, 1200]
