"""Reasons why nodes fail: one printable line each, bounded, and counted together where only numbers differ.

A reason may come from a task's own code, from a library, or from another machine, so nothing in it is trusted.
"""

import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from nerv_fl.errors import NervError

MAX_REASON_LENGTH: Final = 500
"""Characters of a reason that are logged, sent and recorded."""

MAX_REASONS: Final = 10
"""Reasons of one round that are recorded by their words; the nodes of rarer ones are counted together."""

OTHER_REASONS: Final = "other reasons"

_NUMBERS: Final = re.compile(r"\b0x[0-9a-f]+|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b|\d+", re.IGNORECASE)
"""Numbers, addresses and hexadecimal identifiers: what differs between two nodes that fail for one reason."""

_FRAME: Final = re.compile(r'^\s+File ".*", line \d+')
_FLOWER_PREFIX: Final = re.compile(r"^.*?Exception ClientAppException occurred\. Message: ", re.DOTALL)
_FLOWER_SUFFIX: Final = "'>"
_OWN_CODE: Final = Path(__file__).parents[1]
_OWN_PACKAGES: Final = tuple(str(_OWN_CODE / name) for name in ("nerv_fl", "simulations", "datagen"))


def reason_of(error: BaseException) -> str:
    """Return why a node failed, on one line.

    Args:
        error: The exception that ended its work. A `NervError` speaks for itself; of any other the type, and the file
            and line of the code that raised it, are named too.

    >>> reason_of(ValueError("no chains"))
    'ValueError: no chains'
    """
    text = str(error)
    if not isinstance(error, NervError):
        place = _place_of(error)
        text = f"{type(error).__name__}: {text}" + (f" ({place})" if place else "")
    return on_one_line(text)


def on_one_line(text: str) -> str:
    r"""Return the beginning of a text, without anything that a log or a terminal would act upon.

    >>> on_one_line("out of\nmemory")
    'out of memory'
    """
    joined = " ".join(text[: 4 * MAX_REASON_LENGTH].split())
    return "".join(character if character.isprintable() else "?" for character in joined[:MAX_REASON_LENGTH])


def end_of_traceback(text: str) -> str:
    r"""Return the exception line of the last traceback in a text, without its frames; other text as `on_one_line`.

    >>> end_of_traceback('Traceback:\n  File "a.py", line 3, in f\n    g()\n    ^^^\nValueError: no chains\n')
    'ValueError: no chains'
    """
    lines = text.splitlines()
    last_frame = max((index for index, line in enumerate(lines) if _FRAME.match(line)), default=-1)
    after = last_frame + 1
    while 0 < after < len(lines) and lines[after].startswith("    "):
        after += 1
    ending = "\n".join(lines[after:]) or text
    return on_one_line(_FLOWER_PREFIX.sub("", ending).strip().removesuffix(_FLOWER_SUFFIX))


def kind_of(reason: str) -> str:
    """Return what two reasons share that differ in numbers alone, such as those of a node and of its neighbour.

    >>> kind_of("nodes/00003/spending.json is damaged") == kind_of("nodes/00012/spending.json is damaged")
    True
    """
    return _NUMBERS.sub("#", reason)


def count_reasons(reason_of_node: Mapping[int, str]) -> dict[str, int]:
    """Return the number of nodes by reason, the most frequent reason first.

    Args:
        reason_of_node: Reason of each failed node, by its number.

    Returns:
        A kind of reason in the words of its lowest-numbered node, and how many nodes share it. At most `MAX_REASONS`
        kinds; the nodes of the others are counted under `OTHER_REASONS`.
    """
    words: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for _, reason in sorted(reason_of_node.items()):
        kind = kind_of(reason)
        words.setdefault(kind, reason)
        counts[kind] += 1
    ranked = counts.most_common()
    found = {words[kind]: count for kind, count in ranked[:MAX_REASONS]}
    rest = sum(count for _, count in ranked[MAX_REASONS:])
    return found | ({OTHER_REASONS: rest} if rest else {})


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of several rounds' counts, reasons of one kind together, in the words that came first."""
    words: dict[str, str] = {}
    total: Counter[str] = Counter()
    for round_counts in counts:
        for reason, count in round_counts.items():
            total[words.setdefault(kind_of(reason), reason)] += count
    return dict(total.most_common())


def _place_of(error: BaseException) -> str:
    """Return the file and line that raised an error: those of the user's code if it took part, else the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    users = [frame for frame in frames if not frame.filename.startswith((*_OWN_PACKAGES, sys.prefix, sys.base_prefix))]
    frame = (users or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
