"""The Flower client: a SuperNode that hosts a block of nodes, one in deployment, many in simulation.

The server sends every SuperNode the whole cohort; each answers for its own block. Results do not depend on the blocks.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from nerv_fl.client.host import Answers, HostSettings, answer_with_host
from nerv_fl.client.train_request import read_cohort, read_constants, read_heard, read_order
from nerv_fl.errors import NodeError

log = logging.getLogger(__name__)


def build_client_app(load_settings: Callable[[Context], HostSettings]) -> ClientApp:
    """Return the ClientApp whose host settings come from `load_settings`, called once for each message.

    A message that is no request raises SealError or ConfigError, which Flower turns into an error reply: nothing is
    spent, and the next message is answered. Its words repeat what the server sent.

    Guarantees:
        Of a deployed node's own errors no word leaves it: they are in its log, and the reply is a refusal without a
        reason, or an error that points to the log.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Answer for the nodes of the cohort that this SuperNode hosts."""
        request, theta = _parts(message)
        order, constants = read_order(request, theta), str(request.get("constants"))
        read_constants(constants)
        with _reasons_withheld(unless=_is_virtual(context)):
            settings = load_settings(context)
        cohort = read_cohort(request, num_nodes=settings.num_nodes)
        order = replace(order, heard=read_heard(request, cohort))
        with _reasons_withheld(unless=settings.simulated):
            answers = answer_with_host(settings, order, hosted_nodes(cohort, context), constants=constants)
        reply = _reply(answers, with_reasons=settings.simulated)
        return Message(content=RecordDict({"answer": reply}), reply_to=message)

    return app


def _reply(answers: Answers, *, with_reasons: bool) -> ConfigRecord:
    """Return a reply's fields; why nodes refuse, and which of them have spent, is told in a simulation only."""
    envelopes, refusals = answers
    reply = ConfigRecord(
        {"nodes": list(envelopes), "envelopes": list(envelopes.values()), "refusing_nodes": list(refusals)}
    )
    if refusals and with_reasons:
        reply["reasons"] = [refusal.reason for refusal in refusals.values()]
        reply["charged_nodes"] = [node for node, refusal in refusals.items() if refusal.has_spent]
        reply["over_budget_nodes"] = [node for node, refusal in refusals.items() if refusal.is_over_budget]
    return reply


@contextmanager
def _reasons_withheld(*, unless: bool) -> Iterator[None]:
    """Log an error here and raise another in its place, unless in a simulation: Flower sends its words to the server.

    Raises:
        NodeError: In place of any error of a deployed node.
    """
    try:
        yield
    except Exception:
        if unless:
            raise
        log.exception("this node cannot answer")
        raise NodeError("this node cannot answer: its own log holds the reason, which does not leave it") from None


def _is_virtual(context: Context) -> bool:
    """Return whether Flower's simulation started this SuperNode; a deployed one names its node."""
    return "partition-id" in context.node_config and "node" not in context.node_config


def _parts(message: Message) -> tuple[ConfigRecord, bytes]:
    """Return a message's fields and its array, as bytes; empty ones for what is not there.

    Flower's own reader would believe the size that an array claims, and open archives.
    """
    arrays = list(message.content.array_records.get("theta", ArrayRecord()).values())
    return message.content.config_records.get("round", ConfigRecord()), arrays[0].data if len(arrays) == 1 else b""


def hosted_nodes(cohort: list[int], context: Context) -> list[int]:
    """Return the cohort's nodes that this SuperNode hosts: its own, or every k-th of k partitions in simulation."""
    own = context.node_config.get("node")
    if own is not None:
        return [node for node in cohort if node == int(own)]
    partition, num_partitions = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    return cohort[partition::num_partitions]
