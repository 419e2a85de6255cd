"""Help of every command, every setting with its default, and the shipped recipes: they change with the product."""

import json
import re
import tomllib
from importlib.resources import files
from typing import Any, Final

from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.config import RunConfig, as_table, flatten
from simulations.recipes import recipe_names
from tests.cli.commands import COMMANDS

WIDE: Final = {"COLUMNS": "250", "TERMINAL_WIDTH": "250", "TERM": "dumb"}


def help_texts() -> dict[str, str]:
    """Return each command's help without frames, its whitespace reduced to single spaces."""
    texts = {}
    for path in COMMANDS:
        text = CliRunner().invoke(app, [*path, "--help"], prog_name="nerv-fl", env=WIDE).output
        texts[" ".join(("nerv-fl", *path))] = re.sub(r"[\s│╭╮╰╯─]+", " ", text).strip()
    return texts


def settings() -> dict[str, Any]:
    """Return every setting with its default, and what each recipe sets."""
    recipes = {
        name: flatten(tomllib.loads((files("simulations.recipes") / f"{name}.toml").read_text(encoding="utf-8")))
        for name in recipe_names()
    }
    defaults = json.loads(json.dumps(flatten(as_table(RunConfig()))))
    return {"defaults": defaults, "recipes": json.loads(json.dumps(recipes))}
