"""What a damaged file does to whoever reads it: one error, which names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import deflate

from nerv_fl.errors import DataError, NervError

DAMAGE: Final = (
    ArithmeticError,
    deflate.DeflateError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What h5py and the codec raise at damaged files, depending on the byte."""


@contextmanager
def naming_damage(path: Path, *, what: str) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into the error that names it; our own errors pass.

    Args:
        path: The file.
        what: The part of it that is being read.

    Raises:
        DataError: If the part cannot be read.
    """
    try:
        yield
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    except NervError:
        raise
    except DAMAGE as error:
        raise DataError(f"{path}: {what} cannot be read ({error}), expected a whole ledger file") from error
