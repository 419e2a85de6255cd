import stat
from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.crypto import check_evidence
from nerv_fl.crypto.canonical_json import to_base64
from nerv_fl.crypto.sealed_storage import MACHINE_VARIABLE
from nerv_fl.enclave import identity
from nerv_fl.enclave.identity import VENDOR_ROOT_FILE, EnclaveIdentity, own_code_hash, read_vendor_root
from nerv_fl.errors import CheckpointError, SealError


def test_keys_survive_a_restart(tmp_path: Path) -> None:
    made = EnclaveIdentity.load_or_create(tmp_path / "enclave", run="demo")
    again = EnclaveIdentity.load_or_create(tmp_path / "enclave", run="demo")

    assert again == made


def test_evidence_speaks_of_these_keys_this_run_and_this_code(tmp_path: Path) -> None:
    made = EnclaveIdentity.create(tmp_path, run="demo")

    evidence = check_evidence(
        made.evidence.to_text(), vendor_root=made.vendor_root, run="demo", code_hash=own_code_hash()
    )

    assert evidence.sealing_key == made.opening_key.sealing_key
    assert evidence.verify_key == made.signing_key.verify_key
    assert read_vendor_root(tmp_path / VENDOR_ROOT_FILE) == made.vendor_root


def test_each_run_has_its_own_keys_and_nonce(tmp_path: Path) -> None:
    one, other = (EnclaveIdentity.create(tmp_path / name, run="demo") for name in ("one", "other"))

    assert one.opening_key != other.opening_key
    assert one.signing_key != other.signing_key
    assert one.vendor_root != other.vendor_root
    assert one.evidence.nonce != other.evidence.nonce


def test_private_keys_are_their_owners_alone(tmp_path: Path) -> None:
    EnclaveIdentity.create(tmp_path, run="demo")

    for name in ("opening.key", "signing.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_vendors_private_key_is_kept_nowhere(tmp_path: Path) -> None:
    EnclaveIdentity.create(tmp_path, run="demo")

    assert {path.name for path in tmp_path.iterdir()} == {
        "opening.key", "signing.key", "evidence.json", VENDOR_ROOT_FILE,
    }  # fmt: skip


def test_a_torn_start_begins_anew(tmp_path: Path) -> None:
    torn = EnclaveIdentity.create(tmp_path, run="demo")
    (tmp_path / "evidence.json").unlink()

    again = EnclaveIdentity.load_or_create(tmp_path, run="demo")

    assert again.opening_key != torn.opening_key
    evidence = check_evidence(again.evidence.to_text(), vendor_root=again.vendor_root, run="demo")
    assert evidence.sealing_key == again.opening_key.sealing_key


@pytest.mark.parametrize("name", ["opening.key", "signing.key", "evidence.json", VENDOR_ROOT_FILE])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    EnclaveIdentity.create(tmp_path, run="demo")
    (tmp_path / name).write_text("damaged")

    with pytest.raises(SealError):
        EnclaveIdentity.load(tmp_path)


def test_code_hash_is_of_the_whole_package() -> None:
    assert len(own_code_hash()) == 64
    assert own_code_hash() == own_code_hash()


# --- Sealed -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's machine keeps its secret."""
    path = tmp_path / "machine" / "secret"
    monkeypatch.setenv(MACHINE_VARIABLE, str(path))
    return path


def test_sealed_keys_survive_a_restart(tmp_path: Path, machine: Path) -> None:
    made = EnclaveIdentity.load_or_create(tmp_path / "enclave", run="demo", place="process")
    again = EnclaveIdentity.load_or_create(tmp_path / "enclave", run="demo", place="process")

    assert again == made
    assert machine.exists()


def test_sealed_keys_are_in_no_file(tmp_path: Path, machine: Path) -> None:
    made = EnclaveIdentity.create(tmp_path / "enclave", run="demo", place="process")
    EnclaveIdentity.create(tmp_path / "clear", run="demo")

    files = {path.name: path.read_bytes() for path in (tmp_path / "enclave").iterdir()}
    assert files.keys() == {"identity.sealed", "evidence.json", VENDOR_ROOT_FILE}
    for key in (made.opening_key, made.signing_key):
        assert not any(form in content for form in (key.raw, to_base64(key.raw).encode()) for content in files.values())
    assert stat.S_IMODE((tmp_path / "enclave" / "identity.sealed").stat().st_mode) == 0o600


def test_another_run_cannot_unseal(tmp_path: Path, machine: Path) -> None:
    EnclaveIdentity.create(tmp_path, run="demo", place="process")

    with pytest.raises(SealError) as caught:
        EnclaveIdentity.load(tmp_path, run="other", place="process")

    assert str(caught.value) == (
        f"{tmp_path / 'identity.sealed'}: sealed storage is for the run 'demo', expected 'other'"
    )


def test_other_code_cannot_unseal(tmp_path: Path, machine: Path, *, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence names the code as well; without it the sealed file itself refuses."""
    made = EnclaveIdentity.create(tmp_path, run="demo", place="process")
    monkeypatch.setattr(identity, "own_code_hash", lambda: "cd" * 32)

    with pytest.raises(CheckpointError, match=r"this run began with another version of nerv_fl$"):
        EnclaveIdentity.load(tmp_path, run="demo", place="process")
    forged = replace(made.evidence, code_hash="cd" * 32)
    (tmp_path / "evidence.json").write_text(forged.to_text())
    with pytest.raises(SealError) as caught:
        EnclaveIdentity.load(tmp_path, run="demo", place="process")

    assert str(caught.value) == (
        f"{tmp_path / 'identity.sealed'}: sealed storage is for the code_hash {made.evidence.code_hash!r}, "
        f"expected {'cd' * 32!r}"
    )


def test_another_machine_cannot_unseal(tmp_path: Path, machine: Path) -> None:
    EnclaveIdentity.create(tmp_path, run="demo", place="process")
    machine.unlink()

    with pytest.raises(SealError, match=r"identity.sealed: sealed storage does not open on this machine, "):
        EnclaveIdentity.load(tmp_path, run="demo", place="process")


def test_keys_in_the_clear_are_not_taken_for_sealed_ones(tmp_path: Path, machine: Path) -> None:
    EnclaveIdentity.create(tmp_path, run="demo")

    with pytest.raises(SealError) as caught:
        EnclaveIdentity.load(tmp_path, run="demo", place="process")

    assert str(caught.value) == f"{tmp_path / 'identity.sealed'} is missing, expected the sealed keys of run 'demo'"


@pytest.mark.parametrize("place", ["here", "process"])
def test_evidence_of_other_keys_is_refused(place: str, tmp_path: Path, machine: Path) -> None:
    one, other = (EnclaveIdentity.create(tmp_path / name, run="demo", place=place) for name in ("one", "other"))
    (tmp_path / "one" / "evidence.json").write_text(other.evidence.to_text())

    with pytest.raises(SealError) as caught:
        EnclaveIdentity.load(tmp_path / "one", run="demo", place=place)

    named, found = other.evidence.sealing_key.fingerprint, one.evidence.sealing_key.fingerprint
    assert str(caught.value) == (
        f"{tmp_path / 'one' / 'evidence.json'} is for the key {named}, expected {found}, which lies beside it"
    )
