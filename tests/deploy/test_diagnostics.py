"""A check that fails is a finding, and the others run all the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nerv_fl.deploy.diagnostics import Finding, Severity, finding_of, run_checks
from nerv_fl.errors import ConfigError, DataError


def finding(what: str, severity: Severity = Severity.ERROR) -> Finding:
    return Finding(what=what, value="is 1", expected="2", remedy="set it", severity=severity)


def finds_one(machine: str) -> Iterator[Finding]:
    yield finding(machine)


def finds_one_and_breaks(machine: str) -> Iterator[Finding]:
    yield finding(f"{machine} b")
    raise ZeroDivisionError("by 0")


def raises_ours(machine: str) -> Iterator[Finding]:
    yield from ()
    raise DataError(f"{machine} holds 3, expected 4")


def raises_the_systems(machine: str) -> Iterator[Finding]:
    yield from ()
    Path("/dev/null/x").read_bytes()


def test_every_check_runs_whatever_another_does() -> None:
    results = run_checks([finds_one_and_breaks, raises_ours, raises_the_systems, finds_one], "m", name="node-1")

    assert results.lines == [
        "m b is 1, expected 2; set it",
        "check 'finds one and breaks' failed (ZeroDivisionError: by 0), expected a result; this is a defect of "
        "nerv_fl, or a file that it does not know how to read: please report it",
        "m holds 3, expected 4; restore it from a backup, or from the folder that `nerv-fl deploy init` made",
        "/dev/null/x cannot be used (Not a directory), expected what `nerv-fl deploy init` made; restore it from a "
        "backup, or from the folder that `nerv-fl deploy init` made",
        "m is 1, expected 2; set it",
    ]
    assert [name for _, name in results.checks] == [
        "finds one and breaks",
        "raises ours",
        "raises the systems",
        "finds one",
    ]


def test_what_two_checks_find_is_named_once() -> None:
    assert run_checks([finds_one, finds_one], "m", name="x").lines == ["m is 1, expected 2; set it"]
    assert len(run_checks([finds_one, finds_one], "m", name="x").checks) == 2


def test_a_warning_is_no_error() -> None:
    warning = finding("m", Severity.WARNING)
    assert warning.line == "warning: m is 1, expected 2; set it"
    assert warning.to_fields()["severity"] == "warning"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("x is 1, expected 2"), "x is 1, expected 2; correct it"),
        (DataError("x is\n gone"), "x is gone, expected what `nerv-fl deploy init` made; restore it"),
    ],
)
def test_an_error_says_what_its_message_says(error: ConfigError | DataError, line: str) -> None:
    assert finding_of(error).line.startswith(line)
