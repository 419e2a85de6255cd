"""Help, version and completion: each command explains itself, and answers at once."""

import os
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.config import RunConfig, as_table, flatten
from simulations.recipes import recipe_names
from tests.cli.commands import COMMANDS, GROUPS, LEAVES

ROOT = Path(__file__).parents[2]
RUNNER = CliRunner()
WIDE = {"COLUMNS": "250", "TERM": "dumb", "TERMINAL_WIDTH": "250"}

HEAVY = ("torch", "scipy", "flwr", "ray", "opacus", "h5py", "matplotlib", "sklearn", "numba", "onnx", "onnxruntime")
"""Packages that take seconds to import; `--help`, `--version` and completion load none of them."""

HELP_CPU_S = 0.8


def plain(text: str) -> str:
    """Return help without frames, its whitespace reduced to single spaces."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `nerv-fl` in a separate process."""
    code = "import sys; sys.argv[0] = 'nerv-fl'; from nerv_fl.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_the_name_and_help_of_every_parameter(path: tuple[str, ...]) -> None:
    text = plain(RUNNER.invoke(app, [*path, "--help"], env=WIDE).output)

    for parameter in COMMANDS[path].params:
        names = [parameter.name or ""] if isinstance(parameter, click.Argument) else parameter.opts
        explained = getattr(parameter, "help", None)
        assert any(name in text for name in names), parameter.name
        assert explained, f"{parameter.name} has no help"
        assert plain(explained) in text, parameter.name


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "nerv-fl")
def test_a_misspelled_command_gets_one_suggestion(path: tuple[str, ...]) -> None:
    name = next(iter(GROUPS[path].commands))

    text = plain(RUNNER.invoke(app, [*path, f"{name}x"], env=WIDE).output)

    assert text.lower().count("did you mean") == 1
    assert f"'{name}'" in text


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_a_misspelled_option_gets_one_suggestion(path: tuple[str, ...]) -> None:
    option = next((item for item in LEAVES[path].params if isinstance(item, click.Option)), None)
    name = option.opts[0] if option else "--help"

    text = plain(RUNNER.invoke(app, [*path, f"{name}x"], env=WIDE).output)

    assert text.lower().count("did you mean") + text.lower().count("possible options") == 1
    assert name in text


# --- Version and completion -------------------------------------------------------------------------------------------


def test_version_is_the_installed_one() -> None:
    result = RUNNER.invoke(app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"nerv-fl {version('nerv-fl')}\n")


def complete(words: str) -> list[str]:
    """Return what bash would offer for the last word of a command line."""
    position = str(len(words.split(" ")) - 1)
    environment = {"_NERV_FL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    return RUNNER.invoke(app, [], prog_name="nerv-fl", env=environment).stdout.split()


@pytest.mark.parametrize("command", ["simulate", "sweep", "deploy init x --recipe"])
def test_a_recipe_is_completed(command: str) -> None:
    assert complete(f"nerv-fl {command} scale") == [name for name in recipe_names() if name.startswith("scale")]


@pytest.mark.parametrize(
    "command", ["simulate --set", "sweep --over", "sweep --set", "bootstrap encoder --set", "deploy init x --set"]
)
def test_a_setting_is_completed(command: str) -> None:
    known = flatten(as_table(RunConfig()))

    assert complete(f"nerv-fl {command} privacy.") == [f"{key}=" for key in known if key.startswith("privacy.")]


def test_completion_can_be_shown() -> None:
    # Typer would ask which shell started this process, which depends on how the tests were started.
    found = call("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_NERV_FL_COMPLETE" in found.stdout


# --- Import time ------------------------------------------------------------------------------------------------------

ASK_EVERY_COMMAND = """
import sys
from typer.testing import CliRunner
from nerv_fl.cli.completion import complete_recipe, complete_setting
from nerv_fl.cli.main import app
for path in {paths!r}:
    assert CliRunner().invoke(app, [*path, "--help"]).exit_code == 0
assert CliRunner().invoke(app, ["--version"]).exit_code == 0
assert complete_recipe("") and complete_setting("")
print(*sorted(set(sys.modules) & set({heavy!r})))
"""


def test_help_version_and_completion_import_nothing_heavy() -> None:
    code = ASK_EVERY_COMMAND.format(paths=list(COMMANDS), heavy=HEAVY)

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", [])


def test_help_answers_at_once() -> None:
    """Measured in processor time, the best of three: other programs on the machine do not count."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert call("simulate", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert min(seconds) < HELP_CPU_S
