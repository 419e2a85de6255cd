"""Messages to a SuperNode, as a server would send them or as it should not."""

from dataclasses import dataclass, field

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from nerv_fl.client.app import build_client_app
from tests.client.conftest import Field
from tests.federation.fake_grid import FakeGrid

COHORT = [1, 3, 4, 5, 7]


@dataclass(frozen=True)
class Answer:
    """What a SuperNode answered."""

    nodes: list[int]
    envelopes: list[bytes]
    refusing_nodes: list[int]
    reasons: list[str] = field(default_factory=list)
    charged_nodes: list[int] = field(default_factory=list)
    over_budget_nodes: list[int] = field(default_factory=list)


def answer_of(reply: Message) -> Answer:
    """Return a reply's only record; any other key is an error."""
    return Answer(**reply.content.config_records["answer"])  # type: ignore[arg-type]


def ask(field: Field, *, theta: bytes | None = None, **changes: object) -> Message:
    """Send one message to a SuperNode that hosts half of the nodes.

    Args:
        field: The nodes.
        theta: Bytes in place of the model's.
        **changes: Fields of the request; None leaves one out.
    """
    order = field.order()
    request = {
        "run": order.run,
        "round": 1,
        "base_hash": order.base_hash,
        "evidence": order.evidence,
        "constants": '{"movement_floor": 0.01}',
        "cohort": COHORT,
        "heard": [0] * len(COHORT),
    }
    array = Array(order.theta_P.numpy())
    if theta is not None:
        array = Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=theta)
    fields = {name: value for name, value in (request | changes).items() if value is not None}
    content = RecordDict({"round": ConfigRecord(fields), "theta": ArrayRecord({"0": array})})  # type: ignore[arg-type]
    return send(field, content)


def send(field: Field, content: RecordDict) -> Message:
    """Send anything to that SuperNode."""
    settings = field.settings
    grid = FakeGrid(build_client_app(lambda _context: settings), num_supernodes=2)
    (reply,) = grid.send_and_receive([Message(content, dst_node_id=1001, message_type="train")])
    return reply
