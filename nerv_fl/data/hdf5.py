"""An HDF5 file that is open for reading in whichever process asks for it."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nerv_fl.data.read_errors import DAMAGE, naming_damage
from nerv_fl.errors import DataError


class Handle:
    """A file that each process opens by itself when it first reads; it may be pickled or forked.

    Args:
        path: The file.
        what: What it should be, for messages.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self._path, self._what = path, what
        self._file: h5py.File | None = None
        self._owner = os.getpid()
        self._datasets: dict[str, h5py.Dataset] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave the open file behind."""
        return {"_path": self._path, "_what": self._what, "_file": None, "_owner": -1, "_datasets": {}}

    def file(self) -> h5py.File:
        """Return the open file of this process.

        Raises:
            DataError: If there is no file, or HDF5 cannot open it.
        """
        if self._file is None or self._owner != os.getpid():
            self._file, self._owner, self._datasets = self._open(), os.getpid(), {}
        return self._file

    def dataset(self, name: str) -> h5py.Dataset:
        """Return a dataset of it.

        Raises:
            DataError: If there is none.
        """
        file = self.file()
        with naming_damage(self._path, what=name):
            return self._datasets.get(name) or self._datasets.setdefault(name, file[name])

    def array(self, name: str, selection: object = slice(None)) -> npt.NDArray[Any]:
        """Read a dataset, or a part of it.

        Raises:
            DataError: If it cannot be read.
        """
        dataset = self.dataset(name)
        with naming_damage(self._path, what=name):
            return np.asarray(dataset[selection])

    def require_kind(self, kind: str, *, schema_version: int) -> dict[str, Any]:
        """Return the attributes of a whole file of a kind, texts decoded; those of no fixed length are passed over.

        Raises:
            DataError: If it is of another kind or schema, or its writer was stopped.
        """
        file = self.file()
        fixed = {name: np.asarray(file.attrs[name]).item() for name in file.attrs if is_fixed(file, name)}
        found = {name: value.decode() if isinstance(value, bytes) else value for name, value in fixed.items()}
        self.require("kind", found=found.get("kind"), expected=kind)
        self.require("schema_version", found=found.get("schema_version"), expected=schema_version)
        if not found.get("complete", False):
            raise DataError(f"{self._path} is incomplete: its writer was stopped, expected a whole {self._what} file")
        return found

    def require(self, name: str, *, found: object, expected: object) -> None:
        """Raise unless what the file says of something is what is expected.

        Raises:
            DataError: If it is not.
        """
        if found != expected:
            raise DataError(f"{self._path}: {name} is {found!r}, expected {expected!r}")

    def close(self) -> None:
        """Close the file, if this process has it open; the next read opens it again."""
        if self._file is not None and self._owner == os.getpid():
            self._file.close()
        self._file, self._datasets = None, {}

    def _open(self) -> h5py.File:
        if not self._path.is_file():
            raise DataError(f"{self._path} does not exist, expected a {self._what} file")
        try:
            return h5py.File(self._path, "r", locking=False)
        except DAMAGE as error:
            raise DataError(
                f"{self._path} is not a readable HDF5 file ({error}), expected a whole {self._what} file"
            ) from error


def is_fixed(file: h5py.File, attribute: str) -> bool:
    """Return whether an attribute has a fixed length, and so can be read from a damaged file."""
    return file.attrs.get_id(attribute).dtype.kind in "biufS"
