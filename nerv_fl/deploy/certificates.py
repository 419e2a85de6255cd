"""TLS certificates of the SuperLink, and the keys by which SuperNodes are known to it.

The authority and the server have EC P-256 keys (FIPS 186-5), a SuperNode an EC P-384 key in OpenSSH's form, as Flower
asks for. They carry transport and admission alone: what a node sends is sealed and signed under keys of its own.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nerv_fl.errors import SealError
from nerv_fl.io.atomic import write_atomically

LOOPBACK: Final = "127.0.0.1"
AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 398
"""How long certificates hold; public authorities give a server no longer either."""

_CLOCK_SKEW: Final = timedelta(hours=1)
"""A machine whose clock is behind by less accepts a new certificate."""


def make_authority(key_path: Path, certificate_path: Path) -> None:
    """Make a private key and the certificate of an authority of its own, good for servers below it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("nerv_fl deployment authority")
    unsigned = (
        _certificate(subject=name, issuer=name, key=key.public_key(), days=AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    _write_key(key_path, key)
    write_atomically(certificate_path, unsigned.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


def make_server_certificate(
    key_path: Path, certificate_path: Path, *, host: str, authority_key: Path, authority: Path
) -> None:
    """Make a private key and a certificate for a host and for 127.0.0.1.

    Args:
        key_path: Private key to write.
        certificate_path: Certificate to write.
        host: Name or address under which nodes reach the server.
        authority_key: The authority's private key.
        authority: The authority's certificate.
    """
    key, issuer, signer = ec.generate_private_key(ec.SECP256R1()), read_certificate(authority), read_key(authority_key)
    names = [_alternative(name) for name in dict.fromkeys((host, LOOPBACK))]
    unsigned = (
        _certificate(subject=_name("nerv_fl SuperLink"), issuer=issuer.subject, key=key.public_key(), days=SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    _write_key(key_path, key)
    write_atomically(certificate_path, unsigned.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM))


def make_supernode_key(key_path: Path, public_path: Path) -> None:
    """Make the key pair by which a SuperNode is known."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_atomically(key_path, pem, mode=0o600)
    write_atomically(public_path, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n")


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate.

    Raises:
        SealError: If the file is none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SealError(f"{path} cannot be read ({error}), expected a certificate in PEM") from error


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the private key of a certificate.

    Raises:
        SealError: If the file is none; the message never shows its content.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SealError(f"{path} cannot be read ({type(error).__name__}), expected a private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SealError(f"{path} holds a {type(key).__name__}, expected a key on an elliptic curve")
    return key


def read_supernode_key(path: Path) -> str:
    """Read a SuperNode's private key, and return the public half in OpenSSH's form.

    Raises:
        SealError: If the file is none; the message never shows its content.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SealError(f"{path} cannot be read ({type(error).__name__}), expected a private OpenSSH key") from None
    return _p384(key.public_key(), path=path)


def read_supernode_public_key(path: Path) -> str:
    """Read a SuperNode's public key, and return it in OpenSSH's form.

    Raises:
        SealError: If the file is none.
    """
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        # The text of an error about its algorithm would quote the file, which may hold a private key by mistake.
        why = type(error).__name__ if isinstance(error, UnsupportedAlgorithm) else error
        raise SealError(f"{path} cannot be read ({why}), expected a public OpenSSH key") from error
    return _p384(key, path=path)


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the hosts and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def plain_host(host: str) -> str:
    """Return a host as certificates spell it: an address in its canonical form, a name as it is."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def require_issued_by(certificate: x509.Certificate, authority: x509.Certificate, *, path: Path) -> None:
    """Refuse a certificate that an authority did not sign.

    Raises:
        SealError: If it did not.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception as error:
        raise SealError(
            f"{path} is issued by another authority, expected that of fingerprint {fingerprint(authority)}"
        ) from error


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the first 16 digits of a certificate's SHA-256."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:16]


def _p384(key: object, *, path: Path) -> str:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SealError(f"{path} holds a {type(key).__name__}, expected a key on the curve P-384")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate(
    *, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(path, pem, mode=0o600)
