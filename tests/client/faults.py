"""Table of faulty tasks, filled with a decorator."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.client.toy_task import Toy


class Fault(NamedTuple):
    """A faulty task, settings of its training, and a pattern of the refusal."""

    kind: type[Toy]
    training: Mapping[str, Any]
    says: str


class Faults(dict[str, Fault]):
    """Faulty tasks by name."""

    def add(self, name: str, *, says: str, **training: object) -> Callable[[type[Toy]], type[Toy]]:
        """Return a decorator that adds a task."""

        def register(kind: type[Toy]) -> type[Toy]:
            self[name] = Fault(kind, training, says)
            return kind

        return register
