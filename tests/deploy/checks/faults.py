"""Comparing what `nerv-fl deploy check` finds with what was planted."""

import re
from collections.abc import Callable
from pathlib import Path

from nerv_fl.deploy.layout import Deployment
from tests.deploy.tiny import problems_of

Break = Callable[[Deployment], object]
"""Plants a fault."""


def require_found(folder: Path, *patterns: str) -> None:
    """Fail unless a folder's findings match the patterns, one each, in any order."""
    unmatched = problems_of(folder)
    for pattern in patterns:
        found = [line for line in unmatched if re.search(pattern, line)]
        assert found, (pattern, unmatched)
        unmatched.remove(found[0])
    assert unmatched == []
