"""Make and verify synthetic data.

python -m datagen ledger --out data.h5 --chains 512
python -m datagen verify data.h5
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from datagen.invariants import verify_ledger
from datagen.ledger import generate_ledger
from datagen.roles import PROFILES
from nerv_fl.errors import NervError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line; None for the process's own.

    Returns:
        Exit status: 0, or 1 after an error that was named.
    """
    options = _parser().parse_args(arguments)
    try:
        found = _verify(options) if options.command == "verify" else _ledger(options)
    except (NervError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, value in found.items():
        print(f"{name:16} {value:.4f}" if isinstance(value, float) else f"{name:16} {value}")
    return 0


def _ledger(options: argparse.Namespace) -> dict[str, object]:
    info = generate_ledger(
        options.out,
        chains=options.chains,
        steps=options.steps,
        accounts=options.accounts,
        max_transactions=options.max_transactions,
        profile=options.profile,
        seed=options.seed,
    )
    return dataclasses.asdict(info)


def _verify(options: argparse.Namespace) -> dict[str, object]:
    return dataclasses.asdict(verify_ledger(options.file, min_changed=options.min_changed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m datagen", description="Make and verify synthetic data.")
    commands = parser.add_subparsers(dest="command", required=True)
    ledger = commands.add_parser(
        "ledger", help="write a ledger file", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    ledger.add_argument("--out", type=Path, required=True, help="HDF5 file to write")
    ledger.add_argument("--chains", type=int, default=1024, help="number of chains")
    ledger.add_argument("--steps", type=int, default=8, help="batches of each chain")
    ledger.add_argument("--accounts", type=int, default=64, help="accounts of a shard")
    ledger.add_argument("--max-transactions", type=int, default=16, help="largest batch")
    ledger.add_argument("--profile", choices=PROFILES, default="live", help="roles in registry order, or shuffled")
    ledger.add_argument("--seed", type=int, default=7, help="seed of every random stream")
    verify = commands.add_parser("verify", help="prove the invariants of a ledger file")
    verify.add_argument("file", type=Path, help="HDF5 file to check")
    verify.add_argument("--min-changed", type=float, help="least fraction of accounts that change bucket")
    return parser


if __name__ == "__main__":
    sys.exit(main())
