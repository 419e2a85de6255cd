"""Threads work ahead, and nobody can tell from the results."""

import threading
from collections.abc import Iterator

import pytest

from nerv_fl.parallel import map_ahead


def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    last = threading.Event()

    def wait_for_the_last(item: int) -> int:
        if item == 0:
            assert last.wait(timeout=10)
        if item == 2:
            last.set()
        return 10 * item

    assert list(map_ahead(wait_for_the_last, range(3), workers=2)) == [0, 10, 20]


@pytest.mark.parametrize(("workers", "most_taken"), [(1, 1), (2, 4), (3, 5)])
def test_little_is_taken_ahead(workers: int, most_taken: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = map_ahead(abs, items(), workers=workers)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(taken) == most_taken


def test_what_one_raises_comes_in_its_turn() -> None:
    results = map_ahead(lambda item: 1 // item, [2, 1, 0, 3], workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
