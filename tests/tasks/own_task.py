"""The task of docs/bring-your-own-model.md, as a reader would have it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "bring-your-own-model.md"


def code_of(language: str) -> str:
    """Return the page's block of a language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert isinstance(block, str)
    return block


@contextmanager
def saved(folder: Path) -> Iterator[Path]:
    """Save both blocks, make the module importable while the context lasts, and give the recipe's path."""
    (folder / "fraud.py").write_text(code_of("python"), encoding="utf-8")
    (folder / "fraud.toml").write_text(code_of("toml"), encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield folder / "fraud.toml"
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("fraud", None)
