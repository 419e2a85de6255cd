"""What a process logs, and where: lines of text or of JSON, on stderr or in files that never outgrow 40 MB.

A command takes these from its options, an app that Flower starts from the environment:

    NERV_LOG_FORMAT   text (default) or json: an object a line, with time, level, logger, pid and message
    NERV_LOG_LEVEL    debug, info, warning (default) or error
    NERV_LOG_FILE     a file in place of stderr; at 10 MB it is renamed to FILE.1 and so on to FILE.3, the oldest goes

Times are UTC, from this machine's clock: they are for readers, nothing is decided by them.
"""

import logging
import os
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from pythonjsonlogger.json import JsonFormatter

from nerv_fl.validation import one_of

FORMATS: Final = ("text", "json")
LEVELS: Final = ("debug", "info", "warning", "error")
FILE_BYTES: Final = 10_000_000
OLD_FILES: Final = 3


def start_logs(*, form: str = "text", level: str = "warning", file: Path | None = None) -> None:
    """Log from now on as asked, and nowhere else.

    Args:
        form: "text" or "json".
        level: Least severe messages to log.
        file: File to append to, of this process alone; stderr if None.

    Raises:
        ConfigError: If a word is not one of those above.
        OSError: If the file cannot be written.
    """
    one_of("log format", form, choices=FORMATS)
    one_of("log level", level, choices=LEVELS)
    handler: logging.Handler = logging.StreamHandler()
    if file is not None:
        handler = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")
    handler.setFormatter(_json() if form == "json" else _text())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())


def start_logs_from_environment() -> None:
    """Log as the environment says; if it says nothing, logging stays as it is.

    Raises:
        ConfigError: If it does not say it in the words above.
        OSError: If its file cannot be written.
    """
    if not any(name.startswith("NERV_LOG_") for name in os.environ):
        return
    file = os.environ.get("NERV_LOG_FILE")
    start_logs(
        form=os.environ.get("NERV_LOG_FORMAT", "text"),
        level=os.environ.get("NERV_LOG_LEVEL", "warning"),
        file=Path(file) if file else None,
    )


def _text() -> logging.Formatter:
    made = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    made.converter = time.gmtime
    return made


def _json() -> logging.Formatter:
    names = {"asctime": "time", "levelname": "level", "name": "logger", "process": "pid", "exc_info": "error"}
    made = JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s", "%Y-%m-%dT%H:%M:%SZ", rename_fields=names
    )
    made.converter = time.gmtime
    return made
