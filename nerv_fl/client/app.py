"""The Flower client: a SuperNode that hosts a block of nodes, one in deployment, many in simulation.

The server sends every SuperNode the whole cohort; each answers for its own block. Results do not depend on the blocks.
"""

from collections.abc import Callable

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from nerv_fl.client.host import HostSettings, resident_host
from nerv_fl.client.node import RoundOrder


def build_client_app(load_settings: Callable[[Context], HostSettings]) -> ClientApp:
    """Return the ClientApp whose host settings come from `load_settings`, called once for each message."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Answer for the nodes of the cohort that this SuperNode hosts."""
        request = message.content.config_records["round"]
        order = RoundOrder(
            run=str(request["run"]),
            round_number=int(request["round"]),  # type: ignore[arg-type]
            theta_P=torch.from_numpy(message.content.array_records["theta"].to_numpy_ndarrays()[0].copy()),
            base_hash=str(request["base_hash"]),
            evidence=str(request["evidence"]),
        )
        host = resident_host(load_settings(context), constants=str(request["constants"]))
        envelopes, refusing = host.answer(order, hosted_nodes(list(request["cohort"]), context))  # type: ignore[arg-type]
        reply = ConfigRecord(
            {
                "nodes": list(envelopes),
                "envelopes": list(envelopes.values()),
                "refusing_nodes": list(refusing),
            }
        )
        return Message(content=RecordDict({"answer": reply}), reply_to=message)

    return app


def hosted_nodes(cohort: list[int], context: Context) -> list[int]:
    """Return the cohort's nodes that this SuperNode hosts: its own, or every k-th of k partitions in simulation."""
    own = context.node_config.get("node")
    if own is not None:
        return [node for node in cohort if node == int(own)]
    partition, num_partitions = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    return cohort[partition::num_partitions]
