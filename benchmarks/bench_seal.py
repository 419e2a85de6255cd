"""CPU time and bytes of sealing and opening the quickstart's update, over plain AES-256-GCM of the same bytes.

The difference is what an envelope adds to secrecy between two parties that already share a key: a hybrid key exchange,
the node's post-quantum signature, the context, and the checks of all of them.

python -m benchmarks.bench_seal
"""

import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl import rng
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.sealing import Context, OpeningKey, SigningKey, encode_update, open_envelope, seal

REPEATS = 200
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


if __name__ == "__main__":
    main()
