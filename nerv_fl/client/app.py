"""The Flower client: a SuperNode that hosts a block of nodes, one in deployment, many in simulation.

The server sends every SuperNode the whole cohort; each answers for its own block. Results do not depend on the blocks.
"""

from collections.abc import Callable
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from nerv_fl.client.host import HostSettings, resident_host
from nerv_fl.client.request import read_cohort, read_heard, read_order


def build_client_app(load_settings: Callable[[Context], HostSettings]) -> ClientApp:
    """Return the ClientApp whose host settings come from `load_settings`, called once for each message.

    A message that is no request raises SealError, which Flower turns into an error reply: nothing is spent, and the
    next message is answered.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Answer for the nodes of the cohort that this SuperNode hosts."""
        request, theta = _parts(message)
        order, settings = read_order(request, theta), load_settings(context)
        cohort = read_cohort(request, num_nodes=settings.num_nodes)
        order = replace(order, heard=read_heard(request, cohort))
        host = resident_host(settings, constants=str(request.get("constants")))
        envelopes, refusing = host.answer(order, hosted_nodes(cohort, context))
        reply = ConfigRecord(
            {
                "nodes": list(envelopes),
                "envelopes": list(envelopes.values()),
                "refusing_nodes": list(refusing),
            }
        )
        return Message(content=RecordDict({"answer": reply}), reply_to=message)

    return app


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
