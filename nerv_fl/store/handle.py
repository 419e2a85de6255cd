"""An HDF5 file that is open for reading in whichever process asks for it."""

import os
from pathlib import Path

import h5py

from nerv_fl.errors import DataError
from nerv_fl.store.damage import DAMAGE, naming_damage


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
