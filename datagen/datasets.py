"""What can be done with any data set, whichever it is: verify, inspect, export."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datagen.bundle import SUMS_FILE, verify_bundle
from datagen.export import export_parquet, export_seed_layout
from datagen.invariants import verify_ledger
from nerv_fl.checks import one_of
from nerv_fl.errors import DataError
from nerv_fl.ledger import SHARD_KINDS
from nerv_fl.store import open_ledger
from nerv_fl.store.parts import INDEX_FILE

EXPORTS = {"seed": export_seed_layout, "parquet": export_parquet}


def verify_any(path: Path, *, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Prove the invariants of a data set; of a bundle, the hashes of its files and then its data set's.

    Args:
        path: Data file, folder of parts, or bundle.
        progress: Told the number of chains that each step has checked.

    Returns:
        What was found.

    Raises:
        DataError: If it is damaged, naming the file and what is wrong.
    """
    if (path / SUMS_FILE).exists():
        files = verify_bundle(path)
        return {"files": len(files), **verify_any(data_of(path), progress=progress)}
    return asdict(verify_ledger(path, progress=progress))


def inspect_any(path: Path) -> dict[str, Any]:
    """Return what a data set says of itself.

    Raises:
        DataError: If it is not a whole data set.
    """
    source = data_of(path) if (path / SUMS_FILE).exists() else path
    with open_ledger(source) as ledger:
        kinds = ledger.shard_kinds()
        counts = {name: int((kinds == kind).sum()) for kind, name in enumerate(SHARD_KINDS)}
        return {
            "kind": "ledger",
            **asdict(ledger.info),
            "samples": ledger.info.num_samples,
            "transactions": ledger.num_transactions,
            "shard_kinds": {name: count for name, count in counts.items() if count},
        }


def export_any(path: Path, out: Path, *, to: str) -> Path:
    """Write a data set in another layout; return where.

    Raises:
        ConfigError: If there is no such layout, or a library it needs is missing.
    """
    one_of("--format", to, choices=EXPORTS)
    EXPORTS[to](data_of(path) if (path / SUMS_FILE).exists() else path, out)
    return out


def data_of(bundle: Path) -> Path:
    """Return the data set of a bundle: its one HDF5 file, or the folder itself if that holds an index.

    Raises:
        DataError: If there is none.
    """
    if (bundle / INDEX_FILE).exists():
        return bundle
    found = sorted(bundle.glob("*.h5"))
    if len(found) != 1:
        raise DataError(f"{bundle} holds {len(found)} data files, expected one, or an {INDEX_FILE}")
    return found[0]
