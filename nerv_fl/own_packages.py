"""Import of our top-level packages from beside this one, whatever the user's folders hold.

A user's `datagen.py` or `simulations.py` beside his model comes first on `sys.path` where that folder is the current
one (Ray puts it there in its workers) or is in `PYTHONPATH`, and would be imported in place of our package.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
"""The folder that holds our packages."""

OWN_PACKAGES: Final = ("datagen", "simulations")


class _OwnPackagesFinder(MetaPathFinder):
    """Finds our packages in `ROOT` alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of our packages, None for any other module."""
        return (
            PathFinder.find_spec(fullname, [str(ROOT)], target) if path is None and fullname in OWN_PACKAGES else None
        )


def install() -> None:
    """Import our packages from beside this one from now on; warn of a foreign module that has the name of one."""
    if not any(isinstance(finder, _OwnPackagesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OwnPackagesFinder())
    for name in OWN_PACKAGES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and not Path(file).resolve().is_relative_to(ROOT):
            warnings.warn(f"{file} has the name of a package of nerv_fl, which cannot be used: rename it", stacklevel=3)


def namesakes(folders: Sequence[str]) -> Iterator[Path]:
    """Yield the modules in folders that have the name of one of our packages; other copies of ours are passed over."""
    for folder in map(Path, folders):
        if (folder / "nerv_fl" / Path(__file__).name).is_file():
            continue
        for name in ("nerv_fl", *OWN_PACKAGES):
            for path in (folder / f"{name}.py", folder / name / "__init__.py"):
                if path.is_file() and not path.resolve().is_relative_to(ROOT):
                    yield path
