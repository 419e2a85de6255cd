from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from nerv_fl.errors import CheckpointError
from nerv_fl.models.tensor_files import read_facts, read_tensors, require_tensors, with_sorted_header

LIKE = {"a": torch.zeros(2), "b": torch.zeros(3, dtype=torch.int8)}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(LIKE, metadata={"x": "1"}))
    header, tensors = read_tensors(path)
    assert header == {"x": "1"}
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [0.0, 0.0], "b": [0, 0, 0]}
    require_tensors(path, tensors, LIKE, what="thing")


def test_the_same_tensors_and_header_are_the_same_bytes() -> None:
    metadata = {name: name for name in "zyxw"}
    found = {with_sorted_header(save(LIKE, metadata=metadata)) for _ in range(20)}
    assert len(found) == 1
    assert load(found.pop()).keys() == LIKE.keys()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.zeros(2)}, "f holds no tensor b, expected the 2 of the thing"),
        ({**LIKE, "c": torch.zeros(1)}, "f holds an unknown tensor c, expected the 2 of the thing"),
        ({**LIKE, "b": torch.zeros(3)}, r"f holds b as torch\.float32, expected torch\.int8"),
        ({**LIKE, "a": torch.zeros(1)}, r"f holds a of shape \(1,\), expected \(2,\)"),
        ({**LIKE, "a": torch.tensor([0.0, torch.inf])}, "f holds NaN or infinite numbers in a, expected finite ones"),
    ],
)
def test_other_tensors_are_refused(tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{message}$"):
        require_tensors("f", tensors, LIKE, what="thing")


@pytest.mark.parametrize(("text", "what"), [("{", r"no JSON \(.*\)"), ("[]", "a list")])
def test_facts_that_are_no_object_are_refused(text: str, what: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^f holds facts that are {what}, expected an object$"):
        read_facts(Path("f"), text)
