"""A Flower `Grid` in this process: the real ClientApp answers every message at once, without Ray or a network."""

import itertools
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Meddle = Callable[[Message], Message | None]
"""What lies between a SuperNode and the server: returns the reply as it arrives, or None if it is lost."""

CLIENT_APP_RAISED = 2
"""Flower's error code of a reply whose ClientApp raised."""


class FakeGrid(Grid):
    """SuperNodes that answer in turn, in this process.

    Args:
        client_app: The app under test.
        num_supernodes: SuperNodes; each knows its partition, as in Flower's simulation.
        meddle: Applied to each reply.
    """

    def __init__(self, client_app: ClientApp, *, num_supernodes: int, meddle: Meddle = lambda reply: reply) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self.client_app = client_app
        self._meddle = meddle
        self._message_ids = itertools.count(1)
        self._contexts = {
            1000 + partition: Context(
                run_id=1,
                node_id=1000 + partition,
                node_config={"partition-id": partition, "num-partitions": num_supernodes},
                state=RecordDict(),
                run_config={},
            )
            for partition in range(num_supernodes)
        }
        self.sent: list[Message] = []
        self.replies: list[Message] = []

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=1)

    def create_message(self, *arguments: object, **keywords: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Sequence[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        arrived = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{next(self._message_ids)}"
            self.sent.append(message)
            reply = self._meddle(self._answer(message))
            if reply is not None:
                arrived.append(reply)
        self.replies += arrived
        return arrived

    def _answer(self, message: Message) -> Message:
        try:
            return self.client_app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # noqa: BLE001 (as Flower does: whatever a ClientApp raises becomes an error reply)
            return Message(Error(CLIENT_APP_RAISED, repr(error)), reply_to=message)
