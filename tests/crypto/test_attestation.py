"""Mock evidence: signed by the vendor root, and about one enclave, run, code and nonce."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.crypto import Evidence, OpeningKey, SigningKey, check_evidence, code_hash
from nerv_fl.crypto.attestation import MAX_EVIDENCE_CHARACTERS
from nerv_fl.errors import SealError


def test_genuine_evidence_gives_the_keys(evidence: Evidence, vendor: SigningKey, opening_key: OpeningKey) -> None:
    found = check_evidence(
        evidence.to_text(), vendor_root=vendor.verify_key, run="demo", nonce="n-1", code_hash="ab" * 32
    )
    assert found == evidence
    assert found.sealing_key == opening_key.sealing_key
    assert check_evidence(evidence.to_text(), vendor_root=vendor.verify_key, run=None) == evidence


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"run": "other"}, "evidence has the run 'demo', expected 'other'"),
        ({"run": "demo", "nonce": "n-2"}, "evidence has the nonce 'n-1', expected 'n-2'"),
        ({"run": "demo", "code_hash": "cd"}, f"evidence has the code_hash '{'ab' * 32}', expected 'cd'"),
    ],
)
def test_what_differs_is_named(
    *, evidence: Evidence, vendor: SigningKey, expected: dict[str, str], message: str
) -> None:
    with pytest.raises(SealError, match=f"^{re.escape(message)}$"):
        check_evidence(evidence.to_text(), vendor_root=vendor.verify_key, **expected)


def test_another_vendor_root_is_refused(evidence: Evidence, nodes: dict[int, SigningKey]) -> None:
    root = nodes[3].verify_key
    with pytest.raises(SealError, match=f"^evidence is not signed by the vendor root {root.fingerprint}$"):
        check_evidence(evidence.to_text(), vendor_root=root, run="demo")


def test_no_field_can_be_exchanged(evidence: Evidence, vendor: SigningKey, nodes: dict[int, SigningKey]) -> None:
    for changed in (
        replace(evidence, sealing_key=OpeningKey.generate().sealing_key),
        replace(evidence, verify_key=nodes[4].verify_key),
        replace(evidence, code_hash="cd" * 32),
        replace(evidence, run="demo2"),
        replace(evidence, nonce="n-2"),
        replace(evidence, signature=bytes(3309)),
        replace(evidence, signature=b""),
    ):
        with pytest.raises(SealError, match=r"^evidence is not signed by the vendor root"):
            check_evidence(changed.to_text(), vendor_root=vendor.verify_key, run=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "evidence is not JSON"),
        ("\ud800", "evidence is not JSON"),
        (
            "{}",
            "evidence must be a JSON object with the keys code_hash, nonce, run, sealing_key, signature, verify_key",
        ),
        ("x" * (MAX_EVIDENCE_CHARACTERS + 1), "evidence has 16385 characters, expected at most 16384"),
    ],
)
def test_malformed_evidence_is_refused(vendor: SigningKey, text: str, message: str) -> None:
    with pytest.raises(SealError, match=f"^{re.escape(message)}$"):
        check_evidence(text, vendor_root=vendor.verify_key, run=None)


def test_nested_evidence_is_refused(evidence: Evidence, vendor: SigningKey) -> None:
    text = evidence.to_text().replace('"n-1"', "[" * 600 + "]" * 600)
    with pytest.raises(SealError, match=r"^evidence is nested deeper than 16 levels$"):
        check_evidence(text, vendor_root=vendor.verify_key, run=None)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "here" / "nerv"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.py").write_text("one = 1\n")
    (folder / "inner" / "b.py").write_text("two = 2\n")
    return folder


def test_the_code_hash_depends_on_code_alone(package: Path, tmp_path: Path) -> None:
    before = code_hash([package])
    elsewhere = Path(shutil.copytree(package, tmp_path / "there" / "nerv"))
    (elsewhere / "a.pyc").write_bytes(b"compiled")
    assert code_hash([elsewhere]) == before
    assert code_hash([package, package / "inner"]) == code_hash([package / "inner", package])


def test_every_change_of_code_changes_the_hash(package: Path) -> None:
    hashes = {code_hash([package])}
    (package / "a.py").write_text("one = 2\n")
    hashes.add(code_hash([package]))
    (package / "a.py").rename(package / "c.py")
    hashes.add(code_hash([package]))
    (package / "empty.py").touch()
    hashes.add(code_hash([package]))
    assert len(hashes) == 4


def test_packages_of_one_name_are_all_hashed(package: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(package, tmp_path / "there" / "nerv"))
    before = code_hash([package, twin])
    (package / "a.py").write_text("one = 2\n")
    assert code_hash([package, twin]) != before


def test_a_folder_without_code_is_named(tmp_path: Path) -> None:
    with pytest.raises(SealError, match=f"^{re.escape(str(tmp_path / 'absent'))} holds no Python file to hash$"):
        code_hash([tmp_path / "absent"])
