"""The four keys: nodes and the enclave sign and verify, nodes seal, the enclave opens.

Signatures are ML-DSA-65 (FIPS 204; CRYSTALS-Dilithium at level 3). Sealing is HPKE in base mode (RFC 9180) with the
hybrid KEM ML-KEM-768 + X25519 (FIPS 203, RFC 7748; draft-ietf-hpke-pq, draft-connolly-cfrg-xwing-kem), HKDF-SHA256 and
AES-256-GCM. The `cryptography` package computes all of it; nothing here is a cipher of our own.
"""

from functools import cached_property

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem, x25519

from nerv_fl.crypto.hybrid_keys import PrivateKey, PublicKey
from nerv_fl.errors import SealError

SIGNATURE_SIZE_BYTES = 3309
"""Size of an ML-DSA-65 signature (FIPS 204, table 2)."""

SEAL_OVERHEAD_BYTES = 1088 + 32 + 16
"""What sealing adds: an ML-KEM-768 ciphertext (FIPS 203, table 3), an X25519 key, a GCM tag."""

_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_SEED_BYTES = 64
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class VerifyKey(PublicKey):
    """ML-DSA-65 public key, 1,952 bytes."""

    kind = "ML-DSA-65 public key"
    size_bytes = 1952

    def verify(self, message: bytes, *, signature: bytes, context: bytes) -> None:
        """Return if the signature is this key's over the message in this context (FIPS 204, algorithm 3).

        Args:
            message: What was signed.
            signature: 3,309 bytes.
            context: What kind of thing was signed, at most 255 bytes; the same bytes in another context do not verify.

        Raises:
            SealError: If it is not.
        """
        try:
            mldsa.MLDSA65PublicKey.from_public_bytes(self.raw).verify(signature, message, context)
        except InvalidSignature:
            raise SealError(f"the signature is not by the key {self.fingerprint} over these bytes") from None


class SigningKey(PrivateKey):
    """ML-DSA-65 private key: the 32-byte seed of FIPS 204, algorithm 1."""

    kind = "ML-DSA-65 private key"
    size_bytes = 32

    @property
    def verify_key(self) -> VerifyKey:
        """The public key that belongs to it."""
        return VerifyKey(self._key().public_key().public_bytes_raw())

    def sign(self, message: bytes, *, context: bytes) -> bytes:
        """Return a signature of 3,309 bytes, hedged: two over the same message differ (FIPS 204, algorithm 2).

        Args:
            message: What to sign.
            context: What kind of thing it is, at most 255 bytes.
        """
        return self._key().sign(message, context)

    def _key(self) -> mldsa.MLDSA65PrivateKey:
        return mldsa.MLDSA65PrivateKey.from_seed_bytes(self.raw)


class SealingKey(PublicKey):
    """HPKE public key: ML-KEM-768 (1,184 bytes), then X25519 (32 bytes), in the order of X-Wing."""

    kind = "HPKE public key"
    size_bytes = _MLKEM_PUBLIC_BYTES + 32

    def seal(self, plaintext: bytes, *, info: bytes) -> bytes:
        """Encrypt to the holder of the opening key (RFC 9180, section 6.1, base mode: the sender stays anonymous).

        Args:
            plaintext: Any bytes.
            info: What the ciphertext is for; it opens under the same bytes only.

        Returns:
            The ciphertext, `SEAL_OVERHEAD_BYTES` longer than the plaintext; two of the same plaintext differ.

        Raises:
            SealError: If the key is not a valid pair of ML-KEM-768 and X25519 keys.
        """
        try:
            lattice = mlkem.MLKEM768PublicKey.from_public_bytes(self.raw[:_MLKEM_PUBLIC_BYTES])
            curve = x25519.X25519PublicKey.from_public_bytes(self.raw[_MLKEM_PUBLIC_BYTES:])
            return _SUITE.encrypt(plaintext, hpke.MLKEM768X25519PublicKey(lattice, curve), info=info)
        except ValueError as error:
            raise SealError(
                f"{self.kind} {self.fingerprint} is not a valid pair of ML-KEM-768 and X25519 keys"
            ) from error


class OpeningKey(PrivateKey):
    """HPKE private key: the ML-KEM-768 seed (64 bytes, FIPS 203, algorithm 16), then the X25519 scalar (32 bytes).

    A real enclave would keep it in the processor's sealed storage. Here `save_private` is the mock of that.
    """

    kind = "HPKE private key"
    size_bytes = _MLKEM_SEED_BYTES + 32

    @cached_property
    def sealing_key(self) -> SealingKey:
        """The public key that belongs to it."""
        lattice, curve = self._pair
        return SealingKey(lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw())

    def open(self, ciphertext: bytes | memoryview, *, info: bytes) -> bytes:
        """Decrypt what `SealingKey.seal` made.

        Raises:
            SealError: If it was sealed to another key, under another info, or altered; which of these is not known.
        """
        try:
            return _SUITE.decrypt(ciphertext, self._whole, info=info)
        except (InvalidTag, ValueError):
            raise SealError("the ciphertext does not open with this key and info") from None

    @cached_property
    def _whole(self) -> hpke.MLKEM768X25519PrivateKey:
        return hpke.MLKEM768X25519PrivateKey(*self._pair)

    @cached_property
    def _pair(self) -> tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]:
        """The two keys, expanded from their seeds: as much work as opening an envelope of 200 KB."""
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(self.raw[:_MLKEM_SEED_BYTES])
        return lattice, x25519.X25519PrivateKey.from_private_bytes(self.raw[_MLKEM_SEED_BYTES:])
