"""Checksums, copies and walks; staged folders and damaged lists are tested with the bundles that use them."""

import hashlib
import re
from pathlib import Path

import pytest

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.checksums import copy_file, sha256_of, staged_folder, verify_bundle, walk, write_sums


def test_a_copy_gives_the_hash_of_what_was_read(tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(b"0123456789abcdef" * 2**17)
    digest = copy_file(source, tmp_path / "deep" / "er" / "copy")
    assert digest == sha256_of(source) == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (tmp_path / "deep" / "er" / "copy").read_bytes() == source.read_bytes()


def test_files_are_walked_in_order_and_links_refused(tmp_path: Path) -> None:
    for name in ("b", "a/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert walk(tmp_path) == [tmp_path / "a" / "c", tmp_path / "b"]
    link = tmp_path / "link"
    link.symlink_to("/etc")
    with pytest.raises(DataError, match=rf"^{link} is a link or a device, expected plain files and folders$"):
        walk(tmp_path)


def test_what_write_sums_writes_verifies(tmp_path: Path) -> None:
    (tmp_path / "z").write_text("last")
    (tmp_path / "a").write_text("first")
    write_sums(tmp_path, {name: sha256_of(tmp_path / name) for name in ("z", "a")})
    assert verify_bundle(tmp_path) == (tmp_path / "a", tmp_path / "z")
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert lines[0] == f"{hashlib.sha256(b'first').hexdigest()}  a"
    (tmp_path / "a").write_text("other")
    found, expected = sha256_of(tmp_path / "a"), hashlib.sha256(b"first").hexdigest()
    message = f"{tmp_path / 'a'}: its SHA-256 is {found}, expected {expected} ({tmp_path / 'SHA256SUMS'})"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        verify_bundle(tmp_path)


def test_a_staged_folder_is_whole_or_absent(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "file").read_text() == "x"
    with (
        pytest.raises(ConfigError, match=r"out, which holds 1 files, expected a new or empty folder$"),
        staged_folder(tmp_path / "out"),
    ):
        pass
    with pytest.raises(RuntimeError, match="stop"), staged_folder(tmp_path / "torn"):
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
