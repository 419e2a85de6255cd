"""Findings of `nerv-fl deploy check`, and the loop that runs checks and collects what each of them finds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias, TypeVar

from nerv_fl.errors import ConfigError, NervError

M = TypeVar("M")

Check: TypeAlias = Callable[[M], "Iterator[Finding]"]
"""Yields what is wrong with one aspect of a machine; its name, without underscores, names the check."""

MADE_BY_INIT = "what `nerv-fl deploy init` made"
RESTORE = "restore it from a backup, or from the folder that `nerv-fl deploy init` made"


class Severity(StrEnum):
    """Whether a finding sets the exit status: an error stops the federation, a warning may."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        what: File, setting or variable that it is about.
        value: Its state, as the predicate of a sentence about `what`.
        expected: What it should be.
        remedy: What the operator can do.
        severity: Whether it is an error.
        check: Name of the check that found it.
    """

    what: str
    value: str
    expected: str
    remedy: str
    severity: Severity = Severity.ERROR
    check: str = ""

    @property
    def line(self) -> str:
        """The finding on one line of text."""
        text = f"{self.what} {self.value}, expected {self.expected}; {self.remedy}"
        return " ".join(f"{'warning: ' if self.severity == Severity.WARNING else ''}{text}".split())

    @property
    def fact(self) -> tuple[str, str, str]:
        """What two findings have in common if they are the same one, found by two checks."""
        return self.what, self.value, self.expected

    def to_fields(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return {name: str(value) for name, value in asdict(self).items()}


def finding_of(error: NervError | OSError, *, remedy: str | None = None) -> Finding:
    """Return the finding that an error stands for: its message says what, value and expected, its class the remedy."""
    remedy = remedy or ("correct it" if isinstance(error, ConfigError) else RESTORE)
    if isinstance(error, OSError):
        where, why = error.filename or "a file", error.strerror or type(error).__name__
        return Finding(what=str(where), value=f"cannot be used ({why})", expected=MADE_BY_INIT, remedy=remedy)
    text = " ".join(str(error).split())
    found, separator, expected = text.partition(", expected ")
    what, _, value = found.partition(" ")
    return Finding(what=what, value=value, expected=expected if separator else MADE_BY_INIT, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was looked at, and what was found.

    Attributes:
        findings: Each finding once, in the order of the checks.
        checks: Machine and name of each check that ran.
    """

    findings: tuple[Finding, ...] = field(default=())
    checks: tuple[tuple[str, str], ...] = field(default=())

    def __add__(self, other: "Results") -> "Results":
        """Return both, without findings that repeat."""
        known = {found.fact for found in self.findings}
        new = tuple(found for found in other.findings if found.fact not in known)
        return Results(findings=self.findings + new, checks=self.checks + other.checks)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are errors."""
        return tuple(found for found in self.findings if found.severity == Severity.ERROR)

    @property
    def lines(self) -> list[str]:
        """The findings as lines of text."""
        return [found.line for found in self.findings]


def run_checks(checks: Sequence[Check[M]], machine: M, *, name: str) -> Results:
    """Run checks on a machine; one that fails is a finding itself, and the others run all the same.

    Args:
        checks: The checks.
        machine: What they look at.
        name: The machine, for the list of checks that ran.
    """
    results = Results()
    for check in checks:
        label = check.__name__.replace("_", " ")
        findings = tuple(replace(found, check=label) for found in _findings(check, machine, label=label))
        results += Results(findings=findings, checks=((name, label),))
    return results


def _findings(check: Check[M], machine: M, *, label: str) -> Iterator[Finding]:
    try:
        yield from check(machine)
    except (NervError, OSError) as error:
        yield finding_of(error)
    except Exception as error:  # noqa: BLE001 (any other check may still find what is wrong)
        yield Finding(
            what=f"check {label!r}",
            value=f"failed ({type(error).__name__}: {error})",
            expected="a result",
            remedy="this is a defect of nerv_fl, or a file that it does not know how to read: please report it",
        )
