"""File systems without locks, such as some NFS mounts: HDF5 files are written and read there like anywhere."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NO_LOCKS = """
#include <errno.h>
#include <fcntl.h>
int flock(int descriptor, int operation) { errno = ENOLCK; return -1; }
"""

WRITE_AND_READ = """
import sys
from pathlib import Path
import numpy as np
from datagen.ledger import LedgerShape, generate_ledger
from datagen.sharding import generate_load
from nerv_fl.data import LedgerFile
from nerv_fl.data.load import LoadFile
from nerv_fl.data.atomic_hdf5 import new_file
folder = Path(sys.argv[1])
generate_ledger(folder / "ledger.h5", LedgerShape(chains=2, steps=2, accounts=64, max_transactions=4, seed=1))
generate_load(folder / "load.h5", shards=2, steps=64, seed=1)
with new_file(folder / "plain.h5") as file:
    file["x"] = np.arange(3)
with LedgerFile(folder / "ledger.h5") as ledger, LoadFile(folder / "load.h5") as load:
    print(ledger.info.chains, load.info.shards)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="needs gcc and LD_PRELOAD")
def test_files_are_written_and_read_where_flock_fails(tmp_path: Path) -> None:
    source, library = tmp_path / "no_locks.c", tmp_path / "no_locks.so"
    source.write_text(NO_LOCKS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", WRITE_AND_READ, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2 2\n"), done.stderr


def opened_with_locks(source: str) -> list[int]:
    """Return the lines on which HDF5 files are opened with HDF5's own locks."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    opened = [call for call in calls if ast.unparse(call.func) == "h5py.File"]
    return [call.lineno for call in opened if "locking=False" not in map(ast.unparse, call.keywords)]


def test_every_place_that_opens_hdf5_does_without_locks() -> None:
    assert opened_with_locks("h5py.File('a', 'w')\nh5py.File('a', locking=False)") == [1]
    shipped = [path for package in ("nerv_fl", "datagen", "simulations") for path in (ROOT / package).rglob("*.py")]
    assert len(shipped) > 100
    assert {str(path): lines for path in shipped if (lines := opened_with_locks(path.read_text()))} == {}
