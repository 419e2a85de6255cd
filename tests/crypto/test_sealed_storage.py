"""What is sealed to code, run and machine opens for these three alone."""

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from nerv_fl.crypto import MachineSecret, Owner, machine_secret, seal_storage, unseal_storage
from nerv_fl.crypto.canonical_json import to_json
from nerv_fl.errors import SealError

OWNER: Final = Owner(code_hash="ab" * 32, run="demo")
MACHINE: Final = MachineSecret(b"machine".ljust(32))
SECRET: Final = b"what only the enclave may know"


@pytest.fixture
def sealed() -> bytes:
    return seal_storage(SECRET, machine=MACHINE, owner=OWNER)


def test_its_owner_reads_it_again(sealed: bytes) -> None:
    assert unseal_storage(sealed, machine=MACHINE, owner=OWNER) == SECRET
    assert SECRET not in sealed


def test_the_same_content_is_never_the_same_bytes(sealed: bytes) -> None:
    assert seal_storage(SECRET, machine=MACHINE, owner=OWNER) != sealed


@pytest.mark.parametrize(("name", "value"), [("code_hash", "cd" * 32), ("run", "other")])
def test_another_owner_is_told_whose_it_is(name: str, value: str, *, sealed: bytes) -> None:
    with pytest.raises(SealError) as caught:
        unseal_storage(sealed, machine=MACHINE, owner=replace(OWNER, **{name: value}))

    assert str(caught.value) == f"sealed storage is for the {name} {getattr(OWNER, name)!r}, expected {value!r}"


@pytest.mark.parametrize(("name", "value"), [("code_hash", "cd" * 32), ("run", "demi")])
def test_another_label_makes_nobody_an_owner(name: str, value: str, *, sealed: bytes) -> None:
    """The key depends on code and run themselves: an edited label only gives another key."""
    other = replace(OWNER, **{name: value})
    edited = sealed.replace(to_json(vars(OWNER), what="label").encode(), to_json(vars(other), what="label").encode())
    assert edited != sealed

    with pytest.raises(SealError, match=r"^sealed storage does not open on this machine, "):
        unseal_storage(edited, machine=MACHINE, owner=other)


def test_another_machine(sealed: bytes) -> None:
    with pytest.raises(SealError) as caught:
        unseal_storage(sealed, machine=MachineSecret(b"another".ljust(32)), owner=OWNER)

    assert str(caught.value) == (
        "sealed storage does not open on this machine, expected the one on which run 'demo' began, "
        "and an unaltered file"
    )


def test_every_byte_counts(sealed: bytes) -> None:
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealError):
            unseal_storage(bytes(changed), machine=MACHINE, owner=OWNER)


@pytest.mark.parametrize("length", [0, 7, 11, 12, 60, 100, 130])
def test_what_is_cut_off_is_refused(length: int, sealed: bytes) -> None:
    assert length < len(sealed)

    with pytest.raises(SealError):
        unseal_storage(sealed[:length], machine=MACHINE, owner=OWNER)


def test_a_label_has_its_limit() -> None:
    with pytest.raises(SealError, match=r"^label of sealed storage has 2\d{3} bytes, expected at most 1024$"):
        seal_storage(SECRET, machine=MACHINE, owner=replace(OWNER, run="r" * 2000))


def test_a_machine_has_one_secret_however_many_ask(tmp_path: Path) -> None:
    path = tmp_path / "state" / "machine.secret"

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: machine_secret(path), range(32)))

    assert len(set(found)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_where_the_secret_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERV_FL_MACHINE", str(tmp_path / "mine"))
    mine = machine_secret()
    monkeypatch.delenv("NERV_FL_MACHINE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    theirs = machine_secret()

    assert mine == machine_secret(tmp_path / "mine")
    assert theirs == machine_secret(tmp_path / "home" / ".nerv_fl" / "machine.secret")
    assert mine != theirs


def test_a_damaged_secret_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "machine.secret"
    path.write_text("damaged")

    with pytest.raises(SealError, match=r"does not begin with 'nerv_fl mock machine secret'$"):
        machine_secret(path)
    assert path.read_text() == "damaged"
