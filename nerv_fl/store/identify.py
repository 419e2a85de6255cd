"""Which kind of data set a path holds."""

from pathlib import Path
from typing import Final

import numpy as np

from nerv_fl.store.damage import naming_damage
from nerv_fl.store.handle import Handle, is_fixed
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
    handle = Handle(path, what="data")
    try:
        with naming_damage(path, what="its description"):
            file = handle.file()
            says_load = "kind" in file.attrs and is_fixed(file, "kind") and file.attrs["kind"] == np.bytes_(SHARD_LOAD)
            return SHARD_LOAD if says_load else LEDGER
    finally:
        handle.close()
