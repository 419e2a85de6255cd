"""Results at seed 7 that no change of the code's structure may alter: runs, data, valuations and encoded updates.

`python -m tests.golden.results FILE` computes them; call it in the environment of `tests.golden.environment`.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch

from datagen.consensus.generate import RaceShape, generate_races
from datagen.ledger import generate_ledger
from datagen.presets import LEDGER_PRESETS
from datagen.sharding.generate import generate_load
from nerv_fl.config import Flat, build
from nerv_fl.crypto import decode_update, encode_update
from nerv_fl.crypto.update_codecs import CODECS
from nerv_fl.rng import stream
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.shapley import estimate
from simulations.prepare import load_recipe, open_folder, prepare
from tests.federation.test_forecaster import LOAD
from tests.federation.tiny_run import SETTINGS, run_rounds
from tests.golden.environment import fingerprint
from tests.shapley.known_games import make_game
from tests.tasks.own_task import saved
from tests.tasks.test_own_task import SMALL

NAME_DIGITS: Final = "0123456789abcdef"
"""Of a run's name, which else is drawn at random: the ledger's hashes begin with it."""

PLAYERS: Final = 9
VECTOR_LENGTH: Final = 3000


def all_results(scratch: Path) -> dict[str, Any]:
    """Compute every golden result.

    Args:
        scratch: Folder for run folders and data files.
    """
    torch.set_num_threads(1)
    return {
        "fingerprint": fingerprint(),
        "runs": {
            "encoder": run_of({"federation.num_rounds": 2}, scratch / "encoder"),
            "forecaster": run_of(LOAD | {"federation.num_rounds": 2}, scratch / "forecaster"),
            "own task": own_run(scratch),
        },
        "data": data_hashes(scratch),
        "shapley": shapley_values(),
        "codecs": encoded_updates(),
    }


def run_of(changes: Flat, root: Path) -> dict[str, Any]:
    """Prepare and run a small federation; return what it recorded."""
    return recorded(run_it(lambda: open_folder(root, build(SETTINGS | changes), resume=False)))


def own_run(scratch: Path) -> dict[str, Any]:
    """Run the task of docs/bring-your-own-model.md; return what it recorded."""
    with saved(scratch) as recipe:
        config = load_recipe(str(recipe), overrides=SMALL)
        return recorded(run_it(lambda: open_folder(scratch / "own", config, resume=False)))


def run_it(make: Callable[[], RunFolder]) -> RunFolder:
    """Make a run folder under a fixed name, and run all of its rounds."""
    with patch("secrets.token_hex", lambda size=8: (NAME_DIGITS * 8)[: 2 * size]):
        folder = make()
        prepare(folder)
    run_rounds(folder)
    return folder


def recorded(folder: RunFolder) -> dict[str, Any]:
    """Return what a run recorded, without keys, times and the hash of the code."""
    manifest = folder.read_manifest()
    return {
        "run": manifest["run"],
        "data": manifest["data"],
        "bootstrap": manifest["bootstrap"],
        "references": manifest["references"],
        "final": manifest["final"],
        "rounds": [_timeless(line) for line in (folder.root / "rounds.jsonl").read_text().splitlines()],
        "rewards.csv": (folder.root / "rewards.csv").read_text().splitlines(),
        "ledger head": folder.read_ledger()[-1].hash,
        "certificates": {
            path.name: _body(json.loads(path.read_text())) for path in sorted(folder.root.glob("certificates/*.json"))
        },
    }


def _timeless(line: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    return record | {"seconds": sorted(record["seconds"])}


def _body(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a certificate states; the enclave draws the seed of its batches from its own key."""
    return {name: value for name, value in certificate["body"].items() if name != "sampling_seed"}


def data_hashes(scratch: Path) -> dict[str, str]:
    """Return the content hash of a small data set of each kind."""
    shape = replace(LEDGER_PRESETS["quickstart"], chains=8, steps=4, seed=7)
    live, genesis = (replace(shape, profile=profile) for profile in ("live", "genesis"))
    races = RaceShape(shards=2, races=4, accounts=64, max_transactions=16, seed=7)
    return {
        "ledger, live": generate_ledger(scratch / "live.h5", live, workers=1).content_sha256,
        "ledger, genesis": generate_ledger(scratch / "genesis.h5", genesis, workers=1).content_sha256,
        "load": generate_load(scratch / "load.h5", shards=3, steps=1440, seed=7, workers=1).content_sha256,
        "races": generate_races(scratch / "races.h5", races, workers=1).content_sha256,
    }


def shapley_values() -> dict[str, dict[str, Any]]:
    """Return each method's values of two fixed games, as hexadecimal floating-point numbers."""
    model_N = stream(7, "golden surrogate").random(PLAYERS)
    budgets: dict[str, dict[str, Any]] = {
        "auto": {},
        "exact": {"budget": 512},
        "kernel_cv": {"budget": 96},
        "permutation": {"budget": 96, "permutations": 16},
        "surrogate": {"budget": 16, "surrogate": model_N},
        "audit": {"budget": 48, "surrogate": model_N},
    }
    return {
        f"{kind}, {method}": _estimated(kind, method, budget)
        for kind in ("coverage", "airport")
        for method, budget in budgets.items()
    }


def _estimated(kind: str, method: str, options: dict[str, Any]) -> dict[str, Any]:
    result = estimate(make_game(kind, PLAYERS), PLAYERS, method=method, seed=7, **options)
    return {
        "method": result.method,
        "evaluations": result.num_evaluations,
        "values": [float(value).hex() for value in result.values],
    }


def encoded_updates() -> dict[str, dict[str, Any]]:
    """Return what each codec makes of a fixed vector: the bytes' length and hash, and the decoded vector's hash."""
    vector_P = stream(7, "golden update").standard_normal(VECTOR_LENGTH).astype(np.float32)
    made = {}
    for codec in sorted(CODECS):
        payload = encode_update(vector_P, codec=codec, rounding=stream(7, "golden rounding"))
        decoded_P = decode_update(payload, num_parameters=VECTOR_LENGTH, codec=codec)
        made[codec] = {
            "size_bytes": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
            "decoded_sha256": hashlib.sha256(decoded_P.tobytes()).hexdigest(),
        }
    return made


def main() -> None:
    """Write all results to the file that the command line names."""
    with tempfile.TemporaryDirectory(prefix="nerv-fl-golden-") as scratch:
        found = all_results(Path(scratch))
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
