"""Named sizes of the data sets: `sample` takes seconds, `standard` minutes, `full` time and disk.

`quickstart` is the ledger of the smallest encoder; the others have the protocol's 1,024 accounts.
"""

from collections.abc import Mapping
from typing import Final

from datagen.ledger import LedgerShape

LEDGER_PRESETS: Final[Mapping[str, LedgerShape]] = {
    "quickstart": LedgerShape(chains=1024),
    "sample": LedgerShape(chains=64, accounts=1024, max_transactions=256, heterogeneity=1.0),
    "standard": LedgerShape(chains=12_500, accounts=1024, max_transactions=256, heterogeneity=1.0),
    "full": LedgerShape(chains=9_766, steps=128, accounts=1024, max_transactions=256, heterogeneity=1.0),
}
"""8,192, 512, 100,000 and 1,250,048 samples; `full` has 10,000,384 accounts and about 160 million transactions."""

SHARDING_PRESETS: Final[Mapping[str, Mapping[str, int]]] = {
    "sample": {"shards": 20, "steps": 2 * 1440},
    "standard": {"shards": 200, "steps": 14 * 1440},
    "full": {"shards": 1000, "steps": 30 * 1440},
}
"""Shards, and minutes of each."""

CONSENSUS_PRESETS: Final[Mapping[str, int]] = {"sample": 20, "standard": 1600, "full": 15_625}
"""Shards of 64 races: 1,280, 102,400 and 1,000,000 races."""
