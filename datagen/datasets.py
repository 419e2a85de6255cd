"""What can be done with any data set, whichever it is: verify, inspect, export."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datagen.consensus.verify import verify_races
from datagen.export import export_load_parquet, export_parquet, export_seed_layout
from datagen.ledger_checks import verify_ledger
from datagen.sharding.verify import verify_load
from nerv_fl.data import open_ledger
from nerv_fl.data.consensus import RaceFile
from nerv_fl.data.identify import CONSENSUS, LEDGER, SHARD_LOAD, kind_of
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import FEATURES, SPLITS
from nerv_fl.data.multi_file import INDEX_FILE
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.checksums import SUMS_FILE, verify_bundle
from nerv_fl.tokens import SHARD_KINDS
from nerv_fl.validation import one_of

LAYOUTS = ("seed", "parquet")
EXPORTS = {
    (LEDGER, "seed"): export_seed_layout,
    (LEDGER, "parquet"): export_parquet,
    (SHARD_LOAD, "parquet"): export_load_parquet,
}


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
        return {"files": len(verify_bundle(path)), **verify_any(data_of(path), progress=progress)}
    if kind_of(path) == SHARD_LOAD:
        return asdict(verify_load(path))
    if kind_of(path) == CONSENSUS:
        return asdict(verify_races(path))
    return asdict(verify_ledger(path, progress=progress))


def inspect_any(path: Path) -> dict[str, Any]:
    """Return what a data set says of itself.

    Raises:
        DataError: If it is not a whole data set.
    """
    source = data_of(path)
    if kind_of(source) == SHARD_LOAD:
        return _inspect_load(source)
    if kind_of(source) == CONSENSUS:
        return _inspect_races(source)
    with open_ledger(source) as ledger:
        kinds = ledger.shard_kinds()
        counts = {name: int((kinds == kind).sum()) for kind, name in enumerate(SHARD_KINDS)}
        return {
            "kind": LEDGER,
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
    one_of("--format", to, choices=LAYOUTS)
    source = data_of(path)
    kind = kind_of(source)
    if (kind, to) not in EXPORTS:
        known = ", ".join(layout for of, layout in EXPORTS if of == kind) or "none"
        raise ConfigError(f"--format is {to!r}, expected one of: {known} (for {kind} data such as {source})")
    return EXPORTS[kind, to](source, out)


def _inspect_load(path: Path) -> dict[str, Any]:
    with LoadFile(path) as file:
        shards = {f"{name}_shards": len(file.shards_of(name)) for name in SPLITS}
        return {"kind": SHARD_LOAD, **asdict(file.info), **shards, "features": list(FEATURES)}


def _inspect_races(path: Path) -> dict[str, Any]:
    with RaceFile(path) as file:
        shards = {f"{name}_shards": len(file.shards_of(name)) for name in SPLITS}
        sizes = {name: len(file.handle()[f"{name}/{of}"]) for name, of in (("candidate", "valid"), ("event", "token"))}
        return {"kind": CONSENSUS, **asdict(file.info), **shards, **{f"{name}s": size for name, size in sizes.items()}}


def data_of(path: Path) -> Path:
    """Return the data set of a bundle, its one HDF5 file; what is no bundle, or has an index, is a data set itself.

    Raises:
        DataError: If a bundle holds none.
    """
    if not (path / SUMS_FILE).exists() or (path / INDEX_FILE).exists():
        return path
    found = sorted(path.glob("*.h5"))
    if len(found) != 1:
        raise DataError(f"{path} holds {len(found)} data files, expected one, or an {INDEX_FILE}")
    return found[0]
