"""Which kind of data set a path holds."""

from pathlib import Path
from typing import Final

import h5py
import numpy as np

from nerv_fl.errors import DataError
from nerv_fl.store.damage import DAMAGE
from nerv_fl.store.load_schema import KIND as SHARD_LOAD
from nerv_fl.store.parts import INDEX_FILE

LEDGER: Final = "ledger"

__all__ = ["LEDGER", "SHARD_LOAD", "kind_of"]


def kind_of(path: Path) -> str:
    """Return `LEDGER` or `SHARD_LOAD`: what the file says of itself; what says nothing is taken for a ledger.

    Raises:
        DataError: If there is no such file, or HDF5 cannot open it.
    """
    if path.is_dir() or path.name == INDEX_FILE:
        return LEDGER
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected a data set")
    try:
        with h5py.File(path, "r", locking=False) as file:
            fixed = "kind" in file.attrs and file.attrs.get_id("kind").dtype.kind == "S"
            kind = file.attrs["kind"] if fixed else np.bytes_(b"")
    except DAMAGE as error:
        raise DataError(f"{path} is not a readable HDF5 file ({error}), expected a data set") from error
    return SHARD_LOAD if kind == SHARD_LOAD.encode() else LEDGER
