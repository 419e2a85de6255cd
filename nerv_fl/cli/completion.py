"""Shell completion of recipe names and settings.

A shell runs the program again for each press of the tab key, so nothing here imports more than the configuration.
"""

from nerv_fl.config import RunConfig, as_table, flatten
from simulations.recipes import recipe_names


def complete_recipe(incomplete: str) -> list[str]:
    """Return the shipped recipes whose names begin with the text; the shell itself adds paths."""
    return [name for name in recipe_names() if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Return `KEY=` and a description of its default for each setting whose key begins with the text.

    >>> complete_setting("privacy.sig")
    [('privacy.sigma=', 'default: 0.5')]
    """
    return [
        (f"{key}=", f"default: {value}")
        for key, value in flatten(as_table(RunConfig())).items()
        if key.startswith(incomplete)
    ]
