import stat
from pathlib import Path

import pytest

from nerv_fl.errors import SealError
from nerv_fl.sealing import check_evidence
from nerv_fl.strategy.identity import VENDOR_ROOT_FILE, EnclaveIdentity, own_code_hash, read_vendor_root


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
