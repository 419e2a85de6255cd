"""Streams: equal addresses give equal bits in any process, different ones independent draws."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nerv_fl.rng import SystemSource, stream, system_stream, torch_stream

parts = st.one_of(st.integers(-(10**6), 10**6), st.text(max_size=6))
addresses = st.tuples(st.integers(0, 2**63 - 1), st.lists(parts, max_size=4).map(tuple))


@settings(max_examples=50)
@given(addresses, addresses)
def test_draws_are_equal_exactly_where_addresses_are(
    first: tuple[int, tuple[int | str, ...]], second: tuple[int, tuple[int | str, ...]]
) -> None:
    drawn = [stream(seed, *path).integers(2**63, size=2).tolist() for seed, path in (first, second)]
    assert (drawn[0] == drawn[1]) == (first == second)
    seeds = [torch_stream(seed, *path).initial_seed() for seed, path in (first, second)]
    assert (seeds[0] == seeds[1]) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, "noise"), ("noise", 1)),
        (("a", "bc"), ("ab", "c")),
        ((1,), ("1",)),
        ((1, 2), (12,)),
        ((), ("",)),
        ((0,), ()),
    ],
)
def test_addresses_that_look_alike_are_different(first: tuple[int | str, ...], second: tuple[int | str, ...]) -> None:
    assert stream(7, *first).random() != stream(7, *second).random()
    assert torch_stream(7, *first).initial_seed() != torch_stream(7, *second).initial_seed()


def test_known_bits() -> None:
    """A change of these changes every run that was ever recorded."""
    assert stream(7, "cohort", 1).integers(10**9, size=3).tolist() == [110376500, 192654326, 737025586]
    drawn = torch.randint(10**9, (3,), generator=torch_stream(7, "noise", 1, 0)).tolist()
    assert drawn == [261162406, 669499750, 850282258]


def test_another_process_draws_the_same() -> None:
    code = "from nerv_fl import rng; print(rng.stream(7, 'a', 1).random(), rng.torch_stream(7, 'a').initial_seed())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == [str(stream(7, "a", 1).random()), str(torch_stream(7, "a").initial_seed())]


def test_two_streams_are_uncorrelated() -> None:
    drawn = [stream(7, "noise", node).standard_normal(10_000) for node in (0, 1)]
    assert abs(float(np.dot(*drawn) / np.prod([np.linalg.norm(each) for each in drawn]))) < 4 / math.sqrt(10_000)


def test_streams_leave_the_global_generators_alone() -> None:
    state = torch.get_rng_state()
    stream(7, "a").random()
    torch.randn(3, generator=torch_stream(7, "a"))
    SystemSource().standard_normal((3,))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_operating_systems_numbers_are_never_the_same() -> None:
    assert len({float(system_stream().random()) for _ in range(50)}) == 50
    assert len(set(SystemSource().random(50).tolist())) == 50


def test_the_operating_systems_numbers_have_their_distribution() -> None:
    uniform, normal = SystemSource().random(200_000), SystemSource().standard_normal((400, 500))
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 * math.sqrt(1 / 12 / 200_000)
    assert normal.shape == (400, 500)
    assert abs(normal.mean()) < 4 / math.sqrt(200_000)
    assert abs(normal.var() - 1) < 4 * math.sqrt(2 / 200_000)
    assert 4 < np.abs(normal).max() < 7
