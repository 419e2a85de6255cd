"""CPU time and bytes of sealing and opening the quickstart's update, over plain AES-256-GCM of the same bytes.

The difference is what an envelope adds to secrecy between two parties that already share a key: a hybrid key exchange,
the node's post-quantum signature, the context, and the checks of all of them.

A second table has one update of the whitepaper's encoder in int8: CPU time, and the process's largest resident size
over what it held before the payload, in payloads.

python -m benchmarks.bench_seal
"""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl import rng
from nerv_fl.crypto import Context, OpeningKey, SigningKey, encode_update, open_envelope, seal
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset

REPEATS = 200
FULL_BYTES = 77_800_000
NONCE_BYTES = 12
SEAL, OPEN, BOTH, PLAIN = "seal", "open", "seal and open", "AES-256-GCM both ways"


def main() -> None:
    """Measure and print the table."""
    num_parameters = Encoder(get_preset("quickstart")).num_parameters
    payload = encode_update(rng.stream(7, "update").standard_normal(num_parameters, dtype="float32"))
    context = Context(run="bench", round=1, node=3, base_hash="ab" * 32)
    node, enclave = SigningKey.generate(), OpeningKey.generate()
    sealing_key, roster, shared = enclave.sealing_key, {3: node.verify_key}, AESGCM(secrets.token_bytes(32))

    def sealed() -> bytes:
        return seal(payload, context=context, sealing_key=sealing_key, signing_key=node)

    def opened(envelope: bytes) -> bytes:
        return open_envelope(envelope, expected=context, roster=roster, opening_key=enclave)

    def plain() -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return shared.decrypt(nonce, shared.encrypt(nonce, payload, None), None)

    envelope = sealed()
    if not opened(envelope) == plain() == payload:
        raise SystemExit("the payload did not come back")
    calls = {SEAL: sealed, OPEN: lambda: opened(envelope), BOTH: lambda: opened(sealed()), PLAIN: plain}
    times_ms = median_cpu_ms(calls, repeats=REPEATS, warm_up=5)

    what = f"One update of the quickstart, {len(payload):,} bytes; medians of {REPEATS}"
    print_setting(what, packages=("cryptography",))
    added = {SEAL: len(envelope) - len(payload), PLAIN: NONCE_BYTES + 16}
    rows = [
        [name, f"{ms:.3f}", f"{ms / times_ms[PLAIN]:.0f}", f"{added[name]:,}" if name in added else ""]
        for name, ms in times_ms.items()
    ]
    print_table(["", "CPU, ms", "over AES-256-GCM", "bytes added"], rows)
    full_size(context, node=node, enclave=enclave)


def full_size(context: Context, *, node: SigningKey, enclave: OpeningKey) -> None:
    """Measure one update of the whitepaper's encoder, in int8."""
    payload, sealing_key = secrets.token_bytes(FULL_BYTES), enclave.sealing_key
    envelope, sealed = _watched(lambda: seal(payload, context=context, sealing_key=sealing_key, signing_key=node))
    roster = {3: node.verify_key}
    opened, found = _watched(
        lambda: open_envelope(envelope, expected=context, roster=roster, opening_key=enclave),
    )
    if opened != payload:
        raise SystemExit("the payload did not come back")
    print(f"\nOne of the whitepaper's encoder in int8, {len(payload):,} bytes; once")
    rows = [
        [name, f"{cpu_s:.2f}", f"{1 + peak / len(payload):.1f}"]
        for name, (cpu_s, peak) in (("seal", sealed), ("open", found))
    ]
    print_table(["", "CPU, s", "peak memory, payloads"], rows)


def _watched(call: Callable[[], bytes]) -> tuple[bytes, tuple[float, int]]:
    """Return a call's result, its CPU seconds and by how many bytes the resident size rose at most (Linux alone)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before, began = _status_bytes("VmRSS"), time.process_time()
    result = call()
    return result, (time.process_time() - began, _status_bytes("VmHWM") - before)


def _status_bytes(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
