"""CPU time of a node's spending ledger in one round: read, spend and write, unsigned as in a simulation, and signed.

Writing waits for the disk, which CPU time leaves out; both do so once.

python -m benchmarks.bench_spending
"""

import tempfile
from pathlib import Path

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl.client.alone import alone_in
from nerv_fl.config import PrivacyConfig
from nerv_fl.crypto import SigningKey
from nerv_fl.privacy.accounting import Mechanism
from nerv_fl.privacy.budget import SpendingLedger

REPEATS = 200
ROUNDS_BEFORE = 20
UNSIGNED, SIGNED, LOCK = "unsigned", "signed", "lock"


def main() -> None:
    """Measure and print the table."""
    mechanism = Mechanism(sigma=0.5, sampling_rate=1 / 64)
    privacy = PrivacyConfig(max_epsilon=1e6)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def opened(key: SigningKey | None) -> SpendingLedger:
            return SpendingLedger(folder / f"{key is None}.json", mechanism=mechanism, privacy=privacy, key=key)

        def round_of(key: SigningKey | None) -> None:
            written = (folder / f"{key is None}.json").read_bytes()
            opened(key).spend("bench", ROUNDS_BEFORE + 1, num_steps=1)
            (folder / f"{key is None}.json").write_bytes(written)

        def lock() -> None:
            with alone_in(folder):
                pass

        key = SigningKey.generate()
        for ledger in (opened(None), opened(key)):
            for number in range(1, ROUNDS_BEFORE + 1):
                ledger.spend("bench", number, num_steps=1)
        calls = {UNSIGNED: lambda: round_of(None), SIGNED: lambda: round_of(key), LOCK: lock}
        times_ms = median_cpu_ms(calls, repeats=REPEATS)

    print_setting(f"A node's round after {ROUNDS_BEFORE}; medians of {REPEATS}", packages=("cryptography",))
    rows = [[name, f"{ms:.3f}", f"{ms / times_ms[UNSIGNED]:.1f}"] for name, ms in times_ms.items()]
    print_table(["", "CPU, ms", "over unsigned"], rows)


if __name__ == "__main__":
    main()
