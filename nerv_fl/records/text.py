"""Reading the text files of a run folder."""

from pathlib import Path

from nerv_fl.errors import DataError


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        DataError: If it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
