"""Every command of `nerv-fl`, found by walking the application."""

from collections.abc import Iterator

import click
from typer.main import get_command

from nerv_fl.cli.main import app


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each group and command with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))


COMMANDS = dict(walk(get_command(app)))
LEAVES = {path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)}
GROUPS = {path: command for path, command in COMMANDS.items() if isinstance(command, click.Group)}
