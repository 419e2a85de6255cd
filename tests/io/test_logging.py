"""Lines as readers and programs get them, and files that stay small."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerv_fl.errors import ConfigError
from nerv_fl.io import logging as logs
from nerv_fl.io.logging import start_logs, start_logs_from_environment

log = logging.getLogger("nerv_fl.somewhere")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_json_lines_hold_the_fields_and_the_error(tmp_path: Path) -> None:
    start_logs(form="json", level="info", file=tmp_path / "log")
    log.info("node %d refuses", 3)
    try:
        raise ValueError("a line\nand another")
    except ValueError:
        log.exception("it failed")
    first, second = (json.loads(line) for line in lines_of(tmp_path / "log"))
    assert first.keys() == {"time", "level", "logger", "pid", "message"}
    assert (first["level"], first["logger"], first["message"]) == ("INFO", "nerv_fl.somewhere", "node 3 refuses")
    assert "ValueError: a line\nand another" in second["error"]


def test_text_lines_below_the_level_are_left_out(tmp_path: Path) -> None:
    start_logs(file=tmp_path / "log")
    log.info("no")
    log.warning("yes")
    (line,) = lines_of(tmp_path / "log")
    assert line.endswith("Z WARNING nerv_fl.somewhere: yes")


def test_files_never_outgrow_their_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 1_000)
    start_logs(file=tmp_path / "log")
    for number in range(500):
        log.warning("message %d", number)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["log", "log.1", "log.2", "log.3"]
    assert all(path.stat().st_size <= 1_000 for path in files)
    assert lines_of(tmp_path / "log")[-1].endswith("message 499")


def test_the_environment_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = list(logging.getLogger().handlers)
    start_logs_from_environment()
    assert logging.getLogger().handlers == kept
    monkeypatch.setenv("NERV_LOG_FORMAT", "json")
    monkeypatch.setenv("NERV_LOG_LEVEL", "info")
    start_logs_from_environment()
    log.info("here")
    assert json.loads(capsys.readouterr().err)["message"] == "here"
    monkeypatch.setenv("NERV_LOG_FILE", str(tmp_path / "log"))
    start_logs_from_environment()
    log.info("there")
    assert json.loads(lines_of(tmp_path / "log")[0])["message"] == "there"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "xml"}, "log format is 'xml', expected one of: json, text"),
        ({"level": "loud"}, "log level is 'loud', expected one of: debug, error, info, warning"),
    ],
)
def test_other_words_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start_logs(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message
