"""Which kind of data set a path holds."""

from pathlib import Path
from typing import Final

import numpy as np

from nerv_fl.data.consensus_schema import KIND as CONSENSUS
from nerv_fl.data.hdf5 import Handle, is_fixed
from nerv_fl.data.load_schema import KIND as SHARD_LOAD
from nerv_fl.data.multi_file import INDEX_FILE
from nerv_fl.data.read_errors import naming_damage

LEDGER: Final = "ledger"

__all__ = ["CONSENSUS", "LEDGER", "SHARD_LOAD", "kind_of"]


def kind_of(path: Path) -> str:
    """Return `LEDGER`, `SHARD_LOAD` or `CONSENSUS`, as the file says of itself; a ledger if it says nothing.

    Raises:
        DataError: If there is no such file, or HDF5 cannot open it.
    """
    if path.is_dir() or path.name == INDEX_FILE:
        return LEDGER
    handle = Handle(path, what="data")
    try:
        with naming_damage(path, what="its description"):
            file = handle.file()
            said = file.attrs["kind"] if "kind" in file.attrs and is_fixed(file, "kind") else None
            return next((kind for kind in (SHARD_LOAD, CONSENSUS) if said == np.bytes_(kind)), LEDGER)
    finally:
        handle.close()
