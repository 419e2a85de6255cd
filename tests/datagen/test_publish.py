"""A bundle is whole or absent, and every way to change one is named."""

import re
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from datagen import publish as bundle
from datagen.publish import write_bundle
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.checksums import copy_file, staged_folder, verify_bundle

FILES = {"data.h5": b"data", "data.h5.card.md": b"# Card", "data.h5.card/bars.svg": b"<svg/>"}
DATA_SHA256 = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"  # printf data | sha256sum


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    put(tmp_path / "in", {**FILES, "other.h5": b"not this one's"})
    return tmp_path / "in" / "data.h5"


@pytest.fixture
def whole(source: Path, tmp_path: Path) -> Path:
    return write_bundle(source, tmp_path / "out")


def test_bundle_of_a_file(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert write_bundle(source, out) == out
    found = contents(out)
    licence, sums = found.pop("LICENSE"), found.pop("SHA256SUMS")
    assert found == FILES
    assert licence.startswith(b"MIT License\n\nCopyright (c) ")
    expected = {**FILES, "LICENSE": licence}
    assert sums.decode() == "".join(f"{sha256(expected[name]).hexdigest()}  {name}\n" for name in sorted(expected))
    assert f"{DATA_SHA256}  data.h5\n" in sums.decode()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_bundle_of_a_folder(tmp_path: Path) -> None:
    files = {"index.json": b"{}", "part-0.h5": b"0", "card.md": b"# Card", "card/bars.svg": b"<svg/>"}
    put(tmp_path / "in", files)
    assert set(contents(write_bundle(tmp_path / "in", tmp_path / "out"))) == {*files, "LICENSE", "SHA256SUMS"}


def test_an_empty_folder_may_become_a_bundle(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert len(verify_bundle(write_bundle(source, tmp_path / "out"))) == 4


def test_sha256sum_agrees(whole: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=whole, capture_output=True, check=False)
    assert (done.returncode, done.stdout.count(b": OK\n")) == (0, 4)


def test_verified_files(whole: Path) -> None:
    assert verify_bundle(whole) == tuple(whole / name for name in ("LICENSE", *FILES))


@pytest.mark.parametrize("name", ["data.h5", "data.h5.card/bars.svg"])
def test_a_stopped_writer_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def stop(path: Path, target: Path) -> str:
        if target.as_posix().endswith(name):
            raise OSError("disk full")
        return copy_file(path, target)

    monkeypatch.setattr(bundle, "copy_file", stop)
    with pytest.raises(OSError, match="disk full"):
        write_bundle(source, source.parents[1] / "out")
    assert [path.name for path in source.parents[1].iterdir()] == ["in"]


def test_checksums_come_last(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write = Path.write_bytes

    def record(path: Path, data: bytes) -> int:
        order.extend([path.name, str(len(contents(path.parent)))])
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", record)
    write_bundle(source, tmp_path / "out")
    assert order == ["LICENSE", "3", "SHA256SUMS", "4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: put(out, {"x": b""}), "out is {out}, which holds 1 files, expected a new or empty folder"),
        (lambda out: out.write_bytes(b""), "out is {out}, a file or a link, expected a new or empty folder"),
        (lambda out: out.symlink_to(out.parent), "out is {out}, a file or a link, expected a new or empty folder"),
    ],
)
def test_out_that_is_not_free(source: Path, change: Callable[[Path], object], message: str) -> None:
    out = source.parents[1] / "out"
    change(out)
    with pytest.raises(ConfigError, match=f"^{re.escape(message.format(out=out))}$"):
        write_bundle(source, out)


def test_out_within_the_data(tmp_path: Path) -> None:
    put(tmp_path, {"card.md": b""})
    message = f"out is {tmp_path / 'out'}, expected a folder outside the data {tmp_path}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_bundle(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.unlink(), "{data} does not exist, expected the data to publish"),
        (
            lambda data: (data.parent / "data.h5.card.md").unlink(),
            "{data}.card.md does not exist, expected the card of {data}: data is published with one",
        ),
        (
            lambda data: put(data.parent, {"data.h5.card/.bars.svg.tmp": b""}),
            "{data}.card/.bars.svg.tmp has the name 'data.h5.card/.bars.svg.tmp', "
            "expected no hidden file, backslash or line break",
        ),
        (
            lambda data: (data.parent / "data.h5.card" / "a.svg").symlink_to("/etc/passwd"),
            "{data}.card/a.svg is a link or a device, expected plain files and folders",
        ),
    ],
)
def test_sources_that_cannot_be_published(source: Path, change: Callable[[Path], object], message: str) -> None:
    change(source)
    with pytest.raises(DataError, match=f"^{re.escape(message.format(data=source))}$"):
        write_bundle(source, source.parents[1] / "out")


def test_a_folder_with_a_licence_of_its_own(tmp_path: Path) -> None:
    put(tmp_path / "in", {"card.md": b"", "LICENSE": b"other"})
    message = f"{tmp_path / 'in/LICENSE'} has the name of a bundle's own file, expected another"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        write_bundle(tmp_path / "in", tmp_path / "out")


def lines(*wanted: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "SHA256SUMS").write_text("".join(f"{line}\n" for line in wanted))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "data.h5").write_bytes(b"Data"),
            f"{{folder}}/data.h5: its SHA-256 is {sha256(b'Data').hexdigest()}, "
            f"expected {DATA_SHA256} ({{folder}}/SHA256SUMS)",
        ),
        (
            lambda folder: (folder / "data.h5").unlink(),
            f"{{folder}}/data.h5 does not exist, expected a file of SHA-256 {DATA_SHA256} ({{folder}}/SHA256SUMS)",
        ),
        (
            lambda folder: put(folder, {"data.h5.card/.new": b""}),
            "{folder}/data.h5.card/.new is not listed, expected only the 4 files of {folder}/SHA256SUMS",
        ),
        (
            lambda folder: (folder / "link").symlink_to("data.h5"),
            "{folder}/link is a link or a device, expected plain files and folders",
        ),
        (
            lambda folder: (folder / "SHA256SUMS").unlink(),
            "{folder}/SHA256SUMS does not exist, expected the checksums of a bundle: they are written last",
        ),
        (lines(), "{folder}/SHA256SUMS lists no file, expected at least one"),
        (
            lines("data.h5"),
            "{folder}/SHA256SUMS, line 1: 'data.h5', expected a SHA-256, two spaces and a file",
        ),
        *(
            (
                lines(f"{DATA_SHA256}  {name}"),
                f"{{folder}}/SHA256SUMS, line 1: file {name!r}, expected one below the bundle's folder",
            )
            for name in ("../in/data.h5", "/etc/passwd", "./data.h5", "SHA256SUMS")
        ),
        (
            lines(f"{DATA_SHA256}  data.h5", f"{DATA_SHA256}  data.h5"),
            "{folder}/SHA256SUMS, line 2: file 'data.h5' is listed twice, expected once",
        ),
    ],
)
def test_damaged_bundles(whole: Path, change: Callable[[Path], object], message: str) -> None:
    change(whole)
    with pytest.raises(DataError, match=f"^{re.escape(message.format(folder=whole))}$"):
        verify_bundle(whole)


def test_a_bundle_may_be_moved(whole: Path, tmp_path: Path) -> None:
    shutil.move(whole, tmp_path / "elsewhere")
    assert len(verify_bundle(tmp_path / "elsewhere")) == 4


def test_a_stopped_stage_keeps_what_was_there(tmp_path: Path) -> None:
    def stop() -> None:
        with staged_folder(tmp_path / "out") as folder:
            put(folder, {"half": b""})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert list(tmp_path.iterdir()) == []
