"""Comparison of results with golden ones: exact, or with tolerances where another processor computed them."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

HASH: Final = re.compile(r"[0-9a-f]{64}")
HEX_FLOAT: Final = re.compile(r"-?0x[01]\.[0-9a-f]+p[+-]\d+")

RELATIVE: Final = 0.5
"""Between an Intel and an AMD processor, the drift of the small encoder differs by up to 0.36 of itself: training
amplifies the last bit. Other figures differ by less than 0.03."""
ABSOLUTE: Final = 1e-3


def differences(found: Any, golden: Any, *, exact: bool, may_grow: bool = False, path: str = "") -> Iterator[str]:
    """Yield what differs, each with its place.

    Args:
        found: What was computed: JSON values.
        golden: What is frozen.
        exact: Whether numbers and hashes must be the same. Otherwise numbers may differ by the tolerances, a hash by
            anything; names, texts, lengths and types still must agree.
        may_grow: Whether objects may have fields that the golden lacks, as the files of a run folder may.
        path: Place of both in the document.
    """
    if isinstance(golden, Mapping) and isinstance(found, Mapping):
        yield from (f"{path}/{key}: missing" for key in sorted(set(golden) - set(found)))
        if not may_grow:
            yield from (f"{path}/{key}: new" for key in sorted(set(found) - set(golden)))
        for key in sorted(set(golden) & set(found)):
            yield from differences(found[key], golden[key], exact=exact, may_grow=may_grow, path=f"{path}/{key}")
    elif isinstance(golden, list) and isinstance(found, list):
        if len(golden) != len(found):
            yield f"{path}: {len(found)} items, expected {len(golden)}"
        for index, (new, old) in enumerate(zip(found, golden, strict=False)):
            yield from differences(new, old, exact=exact, may_grow=may_grow, path=f"{path}/{index}")
    elif not (_same(found, golden) if exact else _close(found, golden)):
        yield f"{path}: {found!r}, expected {golden!r}"


def _same(found: Any, golden: Any) -> bool:
    return type(found) is type(golden) and bool(found == golden)


def _close(found: Any, golden: Any) -> bool:
    if isinstance(found, str) and isinstance(golden, str):
        return found == golden or _close_texts(found, golden)
    if isinstance(found, bool) or isinstance(golden, bool) or found is None or golden is None:
        return _same(found, golden)
    if isinstance(found, int | float) and isinstance(golden, int | float):
        return math.isclose(found, golden, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return False


def _close_texts(found: str, golden: str) -> bool:
    """Return whether two texts are hashes, the same number, or rows of cells that are."""
    if HASH.fullmatch(found) and HASH.fullmatch(golden):
        return True
    if HEX_FLOAT.fullmatch(found) and HEX_FLOAT.fullmatch(golden):
        return _close(float.fromhex(found), float.fromhex(golden))
    return _close_cells(found.split(","), golden.split(","))


def _close_cells(found: Sequence[str], golden: Sequence[str]) -> bool:
    if len(found) != len(golden):
        return False
    return all(_close_cell(new, old) for new, old in zip(found, golden, strict=True))


def _close_cell(found: str, golden: str) -> bool:
    try:
        return _close(float(found), float(golden))
    except ValueError:
        return found == golden
