"""What the server gets to hear of an enclave in another process."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.enclave import process as enclave_process
from nerv_fl.enclave.build import EnclaveSettings
from nerv_fl.enclave.create_identity import prepare_identity
from nerv_fl.enclave.evaluation import PoolSettings
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.enclave.process import EnclaveProcess
from nerv_fl.errors import CheckpointError, SealError
from nerv_fl.server.run_folder import POOLS
from tests.enclave.test_wire import GIVEN
from tests.federation.pretrained import pretrained_run


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnclaveSettings:
    """Return what the enclave of a run in two processes starts with."""
    monkeypatch.setenv("NERV_FL_MACHINE", str(tmp_path / "machine.secret"))
    prepare_identity(tmp_path / "enclave", run="demo", place="process")
    pretrained = pretrained_run()
    config = replace(pretrained.config, enclave=replace(pretrained.config.enclave, place="process", workers=1))
    pools = PoolSettings(
        config=config,
        paths={name: pretrained.folder.data(name) for name in POOLS},
        constants=pretrained.constants,
    )
    return EnclaveSettings(pools=pools, roster={}, run="demo", folder=tmp_path / "enclave")


def test_what_keeps_it_from_starting(settings: EnclaveSettings) -> None:
    with pytest.raises(SealError) as caught:
        EnclaveProcess(replace(settings, run="other"))

    assert str(caught.value) == (
        f"{settings.folder / 'identity.sealed'}: sealed storage is for the run 'demo', expected 'other'"
    )


def test_a_failure_that_nobody_foresaw_reaches_the_server_by_name(settings: EnclaveSettings) -> None:
    with closing(EnclaveProcess(settings)) as enclave:
        assert enclave.evidence == (settings.folder / "evidence.json").read_text()

        with pytest.raises(RuntimeError) as caught:
            enclave.process(replace(GIVEN, cohort=(1, "x")))  # type: ignore[arg-type]

    assert str(caught.value) == "the enclave failed: ValueError: invalid literal for int() with base 10: 'x'"


# --- Deaths -----------------------------------------------------------------------------------------------------------


class Mortal:
    """A child that dies or answers, as the script says, without a process.

    Attributes:
        script: What each child in turn does in a round: die (an error of its pipe) or return an outcome.
        evidence: Of each child in turn.
    """

    def __init__(self, script: Sequence[Exception | str], evidence: Sequence[str]) -> None:
        self._script = iter(script)
        self._evidence = iter(evidence)
        self.ended = 0

    def __call__(self, _: EnclaveSettings) -> "Mortal":
        self.evidence = next(self._evidence)
        return self

    def ask(self, _: RoundInput) -> str:
        answer = next(self._script)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def enclave(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mortal], EnclaveProcess]:
    """Return a function that makes the server's stand-in with scripted children."""

    def make(children: Mortal) -> EnclaveProcess:
        monkeypatch.setattr(enclave_process, "_Child", children)
        return EnclaveProcess(None)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("death", [EOFError(), BrokenPipeError(), ConnectionResetError()])
def test_a_round_whose_process_died_is_repeated(
    death: Exception, enclave: Callable[[Mortal], EnclaveProcess], *, caplog: pytest.LogCaptureFixture
) -> None:
    children = Mortal([death, "the outcome"], ["same", "same"])

    with closing(enclave(children)) as process:
        assert str(process.process(GIVEN)) == "the outcome"

    assert children.ended == 2
    assert caplog.messages == ["the enclave's process died in round 3; a new one repeats it"]


def test_a_round_in_which_it_dies_twice_stops_the_run(enclave: Callable[[Mortal], EnclaveProcess]) -> None:
    children = Mortal([EOFError(), EOFError()], ["same", "same"])

    with closing(enclave(children)) as process, pytest.raises(CheckpointError) as caught:
        process.process(GIVEN)

    assert str(caught.value) == "the enclave's process died twice in round 3; --resume repeats the round"


def test_each_round_may_lose_a_process(enclave: Callable[[Mortal], EnclaveProcess]) -> None:
    children = Mortal([EOFError(), "one", EOFError(), "other"], ["same"] * 3)

    with closing(enclave(children)) as process:
        assert [str(process.process(GIVEN)) for _ in range(2)] == ["one", "other"]


def test_a_new_process_must_have_the_same_keys(enclave: Callable[[Mortal], EnclaveProcess]) -> None:
    children = Mortal([EOFError()], ["these keys", "others"])

    with closing(enclave(children)) as process, pytest.raises(SealError) as caught:
        process.process(GIVEN)

    assert str(caught.value) == "the enclave's evidence changed with its process, expected the same keys"


def test_what_stops_the_enclave_is_no_death(enclave: Callable[[Mortal], EnclaveProcess]) -> None:
    children = Mortal([CheckpointError("admitted.json is not an admission log")], ["same"])

    with closing(enclave(children)) as process, pytest.raises(CheckpointError, match=r"^admitted.json is not an "):
        process.process(GIVEN)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_before_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclave_process, "_live", die)

    with pytest.raises(CheckpointError) as caught:
        EnclaveProcess(None)  # type: ignore[arg-type]

    assert str(caught.value) == "the enclave's process died before it was ready; --resume starts it again"
    assert multiprocessing.active_children() == []
