"""The same seed gives the same bits, however the run is spread over SuperNodes and processes."""

import pytest

from nerv_fl.server.run_folder import RunFolder
from tests.federation.conftest import NewRun
from tests.federation.leavings import leavings
from tests.federation.tiny_run import NUM_SUPERNODES, Trace, run_rounds


@pytest.mark.parametrize("num_supernodes", [1, 4, 10, 100])
def test_results_do_not_depend_on_how_nodes_are_blocked(
    num_supernodes: int, new_run: NewRun, undisturbed: RunFolder
) -> None:
    folder = new_run()
    assert num_supernodes != NUM_SUPERNODES

    run_rounds(folder, num_supernodes=num_supernodes)

    assert leavings(folder) == leavings(undisturbed)


def test_results_do_not_depend_on_the_enclaves_processes(new_run: NewRun, undisturbed: RunFolder) -> None:
    folder = new_run(**{"enclave.workers": 2})

    run_rounds(folder)

    assert leavings(folder) == leavings(undisturbed)


def test_results_depend_on_the_seed(new_run: NewRun, undisturbed: RunFolder) -> None:
    folder = new_run(**{"seed": 8, "federation.num_rounds": 1})

    run_rounds(folder)

    before, after = Trace.of(undisturbed).rounds[:2], Trace.of(folder).rounds
    assert after[0] == before[0]
    assert after[1][4] != before[1][4]
