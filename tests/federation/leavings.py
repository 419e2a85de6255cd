"""All that a run leaves which must not depend on how it was executed, or how often it was killed."""

import hashlib
import json
from typing import Any

from nerv_fl.server.run_folder import RunFolder

SAME_BYTES = ("rewards.csv", "ledger.jsonl", "checkpoint/*", "nodes/*/spending.json", "nodes/*/seen.safetensors")
"""Rewards, ledger, state; what each node spent; what an adversary remembers. Envelopes and seconds may differ."""


def leavings(folder: RunFolder) -> dict[str, Any]:
    """Return a run's records without seconds, its facts, and the hash of every other file that counts, by path."""
    records = [json.loads(line) for line in folder.rounds_path.read_text(encoding="utf-8").splitlines()]
    files = sorted(path for pattern in SAME_BYTES for path in folder.root.glob(pattern))
    manifest = folder.read_manifest()
    return {
        "rounds.jsonl": [{key: value for key, value in record.items() if key != "seconds"} for record in records],
        "manifest.json": {key: manifest.get(key) for key in ("run", "data", "bootstrap", "references", "final")},
        **{str(path.relative_to(folder.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
