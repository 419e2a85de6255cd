"""The preflight refuses tasks that break what training relies on, names the fault, and lets sound tasks pass."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nerv_fl.client.preflight as client_preflight
from nerv_fl.client.local_training import Streams, Trainer, seeded_streams
from nerv_fl.client.preflight import check_task
from nerv_fl.config import PrivacyConfig, RunConfig, TrainingConfig
from nerv_fl.errors import ConfigError, NervError, TaskError
from nerv_fl.models.encoder import get_flat
from nerv_fl.privacy.grad_sample import ENGINES, opacus_engine
from nerv_fl.privacy.layers import Linear
from nerv_fl.rng import global_generators
from tests.client import faulty_layers, faulty_steps, faulty_tasks
from tests.client.sound_tasks import SOUND
from tests.client.toy_task import CHAINS, STEPS, WIDTH, Rows, Toy, make_arrays, preflight
from tests.client.training import NUM_SAMPLES, open_ledger, tiny_task

FAULTY = faulty_tasks.FAULTY | faulty_steps.FAULTY | faulty_layers.FAULTY


def refusal(name: str) -> str:
    kind, training, _ = FAULTY[name]
    with pytest.raises(NervError) as caught:
        preflight(kind, **training)
    assert isinstance(caught.value, TaskError | ConfigError)
    return str(caught.value)


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_task_is_refused_in_words(name: str) -> None:
    message = refusal(name)

    assert re.search(FAULTY[name].says, message), message
    assert "\n" not in message


def test_the_table_of_faulty_tasks_is_long_enough() -> None:
    assert len(FAULTY) >= 40
    assert len(SOUND) >= 15


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_task_passes(name: str) -> None:
    kind, training = SOUND[name]
    preflight(kind, **training)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("unit", ["record", "chain"])
def test_the_encoder_passes(tmp_path: Path, engine: str, unit: str) -> None:
    task = tiny_task(TrainingConfig(dp_engine=engine), PrivacyConfig(unit=unit))
    with open_ledger(tmp_path) as ledger:
        check_task(task, ledger, np.arange(NUM_SAMPLES))


def test_the_weights_of_a_run_are_checked() -> None:
    """Weights at which the loss overflows are refused, though freshly drawn ones pass."""
    task = Toy(RunConfig(), {})
    huge_P = torch.full_like(get_flat(task.build()), 3e38)
    with pytest.raises(TaskError, match=r"losses\(\) gives \[(inf|nan), .*expected finite numbers"):
        check_task(task, make_arrays(), np.arange(CHAINS * STEPS), theta_P=huge_P)


@pytest.mark.parametrize("name", ["features centred over the batch", "attention over the batch"])
@pytest.mark.parametrize("unit", ["record", "chain"])
def test_the_clipped_sum_shows_mixing_by_itself(monkeypatch: pytest.MonkeyPatch, name: str, unit: str) -> None:
    monkeypatch.setattr(client_preflight, "VALUE_TOLERANCE", np.inf)
    monkeypatch.setattr(client_preflight, "GRADIENT_TOLERANCE", np.inf)
    config = replace(RunConfig(), privacy=PrivacyConfig(unit=unit), training=TrainingConfig())
    expected = (
        rf"^task 'encoder': the sum of clipped gradients moves by [\d.]+ when one {unit} is removed, expected at most"
    )

    with pytest.raises(TaskError, match=expected):
        check_task(FAULTY[name].kind(config, {}), make_arrays(), np.arange(CHAINS * STEPS))


def test_the_clipped_sum_is_what_a_step_adds_noise_to() -> None:
    task = Toy(replace(RunConfig(), training=TrainingConfig(micro_batch=4)), {})
    trainer, rows = Trainer(task), task.read(make_arrays(), np.arange(10))
    theta_P = get_flat(task.build())
    model = nn.Sequential(Linear(WIDTH, 8), nn.Tanh(), Linear(8, 1))
    expected = torch.zeros_like(theta_P)
    for row in range(10):
        with torch.no_grad():
            for parameter, part in zip(model.parameters(), theta_P.split([32, 8, 8, 1]), strict=True):
                parameter.copy_(part.reshape(parameter.shape))
        gradients = torch.autograd.grad(task.losses(model, rows.part(row, row + 1)).sum(), list(model.parameters()))
        gradient = torch.cat([part.reshape(-1) for part in gradients])
        expected += gradient * min(1.0, 1.0 / float(gradient.norm()))

    assert float((trainer.clipped_sum(theta_P, rows) - expected).norm()) < 1e-4


def test_no_global_generator_is_drawn_from_by_a_sound_pass() -> None:
    task = Toy(RunConfig(), {})
    trainer, theta_P = Trainer(task), get_flat(task.build())
    before = global_generators()
    trainer.update(theta_P, make_arrays(), samples=np.arange(CHAINS * STEPS), streams=streams())
    assert global_generators() == before


# --- one node's failure stays its own ---------------------------------------------------------------------------------


def streams() -> Streams:
    return seeded_streams(7, 1, 0)


class Failing(Toy):
    """Raises in the forward pass of marked samples, or in the backward pass."""

    where = ""

    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        losses = super().losses(model, batch)
        if self.where == "forward":
            raise ArithmeticError("a sample is damaged")
        if self.where == "backward":
            losses.register_hook(_raise)
        if self.where == "no gradient":
            return losses.detach() + next(model.parameters()).sum() * 0
        return losses


def _raise(_gradient: Tensor) -> Tensor:
    raise ArithmeticError("a gradient is damaged")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("where", ["forward", "backward", "no gradient"])
def test_what_a_failed_batch_leaves_does_not_reach_the_next_node(engine: str, where: str) -> None:
    config = replace(RunConfig(), training=TrainingConfig(expected_batch=8, micro_batch=3, dp_engine=engine))
    task = Failing(config, {})
    theta_P, samples = get_flat(task.build()), np.arange(CHAINS * STEPS)
    expected = Trainer(task).update(theta_P, make_arrays(), samples=samples, streams=streams())
    trainer = Trainer(task)
    task.where = where
    with pytest.raises((ArithmeticError, ValueError, AttributeError, RuntimeError)):
        trainer.update(theta_P, make_arrays(), samples=samples, streams=streams())
    task.where = ""

    found = trainer.update(theta_P, make_arrays(), samples=samples, streams=streams())

    assert torch.equal(found, expected)


def test_hooks_that_could_not_be_attached_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opacus attaches hooks layer by layer; a layer that it refuses leaves those before it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    engine = opacus_engine(model)

    def refuse(self: nn.Module, *args: object, **kwargs: object) -> None:
        raise NotImplementedError("no hooks here")

    with monkeypatch.context() as patched:
        patched.setattr(model[1], "register_full_backward_hook", refuse.__get__(model[1]))
        with pytest.raises(NotImplementedError, match="no hooks here"), engine():
            """The context is not entered."""

    with engine():
        model(torch.ones(3, 2)).sum().backward()
    assert model[0].weight.grad_sample.shape == (3, 2, 2)  # type: ignore[union-attr]


def test_buffers_start_afresh_for_each_node() -> None:
    """A buffer that changes late, after any preflight, carries nothing from one node to the next."""

    class Late(Toy):
        def build(self) -> nn.Module:
            model = super().build()
            model.register_buffer("sum", torch.zeros(()))
            return model

        def losses(self, model: nn.Module, batch: Rows) -> Tensor:
            losses = super().losses(model, batch) + model.sum  # type: ignore[operator]
            with torch.no_grad():
                model.sum += losses.sum()  # type: ignore[operator]
            return losses

    trainer = Trainer(Late(replace(RunConfig(), training=TrainingConfig(expected_batch=8)), {}))
    theta_P, samples = get_flat(Toy(RunConfig(), {}).build()), np.arange(CHAINS * STEPS)
    first, second = (trainer.update(theta_P, make_arrays(), samples=samples, streams=streams()) for _ in range(2))
    assert torch.equal(first, second)


def test_the_page_lists_every_fault() -> None:
    page = (Path(__file__).parents[2] / "docs" / "preflight.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| ([^|]+?) \| (?!message)", page.partition("## What is refused")[2], flags=re.MULTILINE)[
        1:
    ] == (list(FAULTY))
    assert all(name in page for name in SOUND)
