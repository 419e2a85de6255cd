"""Run a recipe without the console script: ``python -m simulations quickstart --out runs/quickstart``."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nerv_fl.errors import NervError
from nerv_fl.records import FINAL_CLOSED, RewardRow, RoundRecord
from nerv_fl.server.shutdown import GracefulStop
from simulations.engine import run
from simulations.prepare import claimed_folder, load_recipe, prepare


def print_round(record: RoundRecord, _rows: Sequence[RewardRow]) -> None:
    """Print a finished round."""
    print(f"round {record.round}: loss {record.loss:.4f} {record.reason}")


def main() -> int:
    """Prepare and run one recipe; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulations", description="Run a federation of virtual nodes.")
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--ray", default="local", metavar="ADDRESS")
    options = parser.parse_args()
    try:
        config = load_recipe(options.recipe, overrides=options.overrides)
        out = options.out or Path("runs") / config.name
        with claimed_folder(out, config, resume=options.resume, ray=options.ray) as folder:
            prepare(folder, ray=options.ray)
            stop = GracefulStop(print_round, say=partial(print, file=sys.stderr, flush=True))
            stop.listen()
            run(folder, ray=options.ray, on_round=stop.on_round)
    except NervError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the last finished round is kept, --resume goes on from it", file=sys.stderr)
        # Flower's server thread may still wait for replies; the checkpoint is whole at every moment.
        os._exit(130)
    if closed := folder.read_manifest().get(FINAL_CLOSED):
        print(f"final pool not opened: {closed}")
    print(folder.root / "report.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
