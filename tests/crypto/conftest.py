"""The cast of every sealing test: a vendor, an enclave, two nodes and one context."""

import pytest

from nerv_fl.crypto import Context, Evidence, OpeningKey, SigningKey, VerifyKey, issue_evidence


@pytest.fixture(scope="session")
def vendor() -> SigningKey:
    return SigningKey(b"vendor".ljust(32))


@pytest.fixture(scope="session")
def enclave_signer() -> SigningKey:
    return SigningKey(b"enclave".ljust(32))


@pytest.fixture(scope="session")
def opening_key() -> OpeningKey:
    return OpeningKey(b"enclave".ljust(96))


@pytest.fixture(scope="session")
def nodes() -> dict[int, SigningKey]:
    return {node: SigningKey(f"node {node}".encode().ljust(32)) for node in (3, 4)}


@pytest.fixture(scope="session")
def roster(nodes: dict[int, SigningKey]) -> dict[int, VerifyKey]:
    return {node: key.verify_key for node, key in nodes.items()}


@pytest.fixture(scope="session")
def context() -> Context:
    return Context(run="demo", round=7, node=3, base_hash="c0ffee")


@pytest.fixture(scope="session")
def evidence(vendor: SigningKey, enclave_signer: SigningKey, opening_key: OpeningKey) -> Evidence:
    return issue_evidence(
        vendor,
        sealing_key=opening_key.sealing_key,
        verify_key=enclave_signer.verify_key,
        code_hash="ab" * 32,
        run="demo",
        nonce="n-1",
    )
