"""Keys sign, seal and open; they travel as text and rest in files of mode 0600."""

import pickle
import re
import stat
from pathlib import Path

import pytest

from nerv_fl.crypto import OpeningKey, SealingKey, SigningKey, VerifyKey
from nerv_fl.crypto.keys import SEAL_OVERHEAD_BYTES, SIGNATURE_SIZE_BYTES
from nerv_fl.errors import SealError


def test_a_signature_verifies_under_its_key_message_and_context_only(nodes: dict[int, SigningKey]) -> None:
    key, other = nodes[3], nodes[4]
    signature = key.sign(b"message", context=b"kind")
    assert len(signature) == SIGNATURE_SIZE_BYTES
    key.verify_key.verify(b"message", signature=signature, context=b"kind")
    forged = bytes([signature[0] ^ 1]) + signature[1:]
    for verify_key, message, candidate, context in (
        (other.verify_key, b"message", signature, b"kind"),
        (key.verify_key, b"messagf", signature, b"kind"),
        (key.verify_key, b"message", signature, b"king"),
        (key.verify_key, b"message", forged, b"kind"),
        (key.verify_key, b"message", b"", b"kind"),
        (key.verify_key, b"message", signature + b"\x00", b"kind"),
    ):
        expected = f"^the signature is not by the key {verify_key.fingerprint} over these bytes$"
        with pytest.raises(SealError, match=expected):
            verify_key.verify(message, signature=candidate, context=context)


def test_a_seed_gives_one_key_and_generation_gives_new_ones() -> None:
    assert SigningKey(bytes(32)).verify_key == SigningKey(bytes(32)).verify_key
    assert SigningKey.generate() != SigningKey.generate()
    assert OpeningKey.generate().sealing_key != OpeningKey.generate().sealing_key


def test_what_is_sealed_opens_with_its_key_and_info_only(opening_key: OpeningKey) -> None:
    sealed = opening_key.sealing_key.seal(b"update", info=b"round 7")
    assert len(sealed) == len(b"update") + SEAL_OVERHEAD_BYTES
    assert opening_key.open(sealed, info=b"round 7") == b"update"
    assert opening_key.sealing_key.seal(b"update", info=b"round 7") != sealed
    for key, ciphertext, info in (
        (OpeningKey.generate(), sealed, b"round 7"),
        (opening_key, sealed, b"round 8"),
        (opening_key, sealed[:-1], b"round 7"),
        (opening_key, b"", b"round 7"),
        (opening_key, bytes(len(sealed)), b"round 7"),
    ):
        with pytest.raises(SealError, match=r"^the ciphertext does not open with this key and info$"):
            key.open(ciphertext, info=info)


def test_private_keys_survive_a_restart_in_a_file_for_their_owner_alone(
    tmp_path: Path, opening_key: OpeningKey
) -> None:
    signing_key, path = SigningKey.generate(), tmp_path / "node.key"
    signing_key.save_private(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load_private(path) == signing_key
    sealed = opening_key.sealing_key.seal(b"before the restart", info=b"")
    opening_key.save_private(path)
    assert OpeningKey.load_private(path).open(sealed, info=b"") == b"before the restart"


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.key"
    message = f"{path} cannot be read as ML-DSA-65 private key: FileNotFoundError"
    with pytest.raises(SealError, match=f"^{re.escape(message)}$"):
        SigningKey.load_private(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with 'nerv_fl HPKE private key'"),
        (b"nerv_fl HPKE private key\n", "holds a damaged HPKE private key"),
        (b"nerv_fl ML-DSA-65 private key\nAA==\n", "does not begin with 'nerv_fl HPKE private key'"),
        (b"nerv_fl HPKE private key\nAA==\n", "holds a damaged HPKE private key"),
        (b"nerv_fl HPKE private key\nnot base64\n", "holds a damaged HPKE private key"),
        (b"\xff\xfe", "cannot be read as HPKE private key: UnicodeDecodeError"),
    ],
)
def test_a_malformed_key_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "enclave.key"
    path.write_bytes(content)
    with pytest.raises(SealError, match=f"^{re.escape(f'{path} {message}')}$"):
        OpeningKey.load_private(path)


def test_public_keys_travel_as_text_and_pickle(opening_key: OpeningKey, nodes: dict[int, SigningKey]) -> None:
    verify_key, sealing_key = nodes[3].verify_key, opening_key.sealing_key
    assert VerifyKey.from_text(verify_key.to_text()) == verify_key
    assert SealingKey.from_text(sealing_key.to_text()) == sealing_key
    assert pickle.loads(pickle.dumps(sealing_key)) == sealing_key
    assert len(sealing_key.raw) == 1184 + 32


def test_reprs_show_fingerprints_and_no_secrets(opening_key: OpeningKey) -> None:
    sealing_key = opening_key.sealing_key
    assert repr(sealing_key) == f"SealingKey({sealing_key.fingerprint})"
    assert re.fullmatch("[0-9a-f]{16}", sealing_key.fingerprint)
    assert sealing_key.digest.startswith(sealing_key.fingerprint)
    assert repr(opening_key) == "OpeningKey()"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (VerifyKey, "ML-DSA-65 public key has 3 bytes, expected 1952"),
        (SigningKey, "ML-DSA-65 private key has 3 bytes, expected 32"),
        (SealingKey, "HPKE public key has 3 bytes, expected 1216"),
        (OpeningKey, "HPKE private key has 3 bytes, expected 96"),
    ],
)
def test_a_key_of_another_size_is_refused(
    kind: type[VerifyKey | SigningKey | SealingKey | OpeningKey], message: str
) -> None:
    with pytest.raises(SealError, match=f"^{message}$"):
        kind(b"abc")


@pytest.mark.parametrize("half", ["lattice", "curve"])
def test_nothing_is_sealed_to_an_invalid_key(opening_key: OpeningKey, half: str) -> None:
    good = opening_key.sealing_key.raw
    key = SealingKey(b"\xff" * 1184 + good[1184:] if half == "lattice" else good[:1184] + bytes(32))
    message = f"HPKE public key {key.fingerprint} is not a valid pair of ML-KEM-768 and X25519 keys"
    with pytest.raises(SealError, match=f"^{message}$"):
        key.seal(b"update", info=b"")
