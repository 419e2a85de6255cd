"""Recipes that are shipped with the package."""

from importlib.resources import files


def recipe_names() -> list[str]:
    """Return the names of the recipes that are shipped."""
    return sorted(
        item.name.removesuffix(".toml")
        for item in files("simulations.recipes").iterdir()
        if item.name.endswith(".toml")
    )
