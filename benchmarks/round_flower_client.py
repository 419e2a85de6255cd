"""The client of `round_flower`, in a module that Ray's actors can import."""

import itertools
from functools import lru_cache
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from opacus import PrivacyEngine
from torch import optim
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.round_opacus import teach_opacus
from benchmarks.round_work import Shards
from nerv_fl.models.batch import StateBatch
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.threads import use_one_thread


@lru_cache(maxsize=1)
def shards_at(root: str) -> Shards:
    """Return the data, opened once a process: better than most clients do."""
    use_one_thread()
    teach_opacus()
    return Shards(RunFolder(Path(root)))


def train_client(shards: Shards, arrays: ArrayRecord, *, node: int) -> tuple[ArrayRecord, int]:
    """Return a node's weights after its steps, and its number of records."""
    model, config = shards.task.build(), shards.config
    model.load_state_dict(arrays.to_torch_state_dict())
    whole = shards.whole(node)
    data = TensorDataset(whole.tokens_B3T, whole.weights_B2A, whole.targets_BA, whole.masked_BA)
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=optim.SGD(model.parameters(), lr=config.training.learning_rate),
        data_loader=DataLoader(data, batch_size=config.training.expected_batch),
        noise_multiplier=config.privacy.sigma,
        max_grad_norm=config.privacy.clip,
        loss_reduction="mean",
    )
    private.train()
    for tensors in itertools.islice(loader, config.training.local_steps):
        optimizer.zero_grad()
        batch = StateBatch(**dict(zip(("tokens_B3T", "weights_B2A", "targets_BA", "masked_BA"), tensors, strict=True)))
        shards.task.objective(model)(batch).mean().backward()
        optimizer.step()
    return ArrayRecord(model.state_dict()), len(data)


def client_app(root: str) -> ClientApp:
    """Return the client of every node."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays, num_records = train_client(
            shards_at(root), message.content.array_records["arrays"], node=int(context.node_config["partition-id"])
        )
        metrics = MetricRecord({"num-examples": num_records})
        return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app
