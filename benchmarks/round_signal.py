"""What a round's mean update holds of signal and of noise, in each part of the encoder.

    signal^2    <mean of half the clipped gradients, mean of the other half>      unbiased; at the start, on the nodes
    noise^2     P (sigma C / batch)^2 / cohort       of DP-SGD, in the cohort's mean
    per record  median length of one record's gradient in that part

Run: python -m benchmarks.round_signal DIR [--samples N]     DIR: a prepared run folder
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from nerv_fl.config import RunConfig
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.models.trainable import train_only
from nerv_fl.privacy.layers import clear_grad_samples, per_sample_gradients
from nerv_fl.rng import stream
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.encoder import EncoderTask
from nerv_fl.threads import use_one_thread
from nerv_fl.types import FloatArray

CHUNK = 64


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Signal and noise of a round, by part of the encoder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=2048)
    options = parser.parse_args()
    use_one_thread()
    folder = RunFolder(options.folder)
    config = folder.config
    theta_P, constants = EncoderTask.read_start(folder.bootstrap_path, config)
    task = EncoderTask(config, constants)
    encoder = task.build()
    set_flat(encoder, torch.from_numpy(theta_P))
    train_only(encoder, config.training.trainable)
    halves_2P, lengths = measure(task, encoder, folder, num_samples=options.samples)
    show(encoder, halves_2P, lengths=lengths, config=config)


def measure(
    task: EncoderTask, encoder: Encoder, folder: RunFolder, *, num_samples: int
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the mean clipped gradient of each half of the samples, and each part's lengths by record."""
    scale, clip = task.config.training.loss_scale, task.config.privacy.clip
    trained = [(name, item) for name, item in encoder.named_parameters() if item.requires_grad]
    halves_2P = np.zeros((2, sum(item.numel() for _, item in trained)))
    lengths: dict[str, list[FloatArray]] = {name: [] for name, _ in trained}
    data = task.open(folder.data("nodes"))
    chosen = stream(1, "signal").integers(data.info.chains * data.info.steps, size=num_samples)
    for number, start in enumerate(range(0, num_samples, CHUNK)):
        batch = task.draw(data, chosen[start : start + CHUNK], stream(1, "signal", start))
        clear_grad_samples(encoder)
        with per_sample_gradients(encoder):
            (scale * task.losses(encoder, batch).sum()).backward()
        parts = [item.grad_sample.flatten(start_dim=1).double().numpy() for _, item in trained]  # type: ignore[attr-defined]
        whole_B = np.linalg.norm(np.concatenate(parts, axis=1), axis=1)
        for (name, _), part in zip(trained, parts, strict=True):
            lengths[name].append(np.linalg.norm(part, axis=1))
        factor_B = np.minimum(1.0, clip / whole_B)
        halves_2P[number % 2] += factor_B @ np.concatenate(parts, axis=1) / (num_samples / 2)
    return halves_2P, {name: np.concatenate(column) for name, column in lengths.items()}


def show(encoder: Encoder, halves_2P: FloatArray, *, lengths: dict[str, FloatArray], config: RunConfig) -> None:
    """Print a line for each part, and their sum."""
    std = config.privacy.sigma * config.privacy.clip / config.training.expected_batch
    print(f"{'part':<32} {'P':>6} {'per record':>10} {'signal^2':>10} {'noise^2':>10} {'ratio':>7}")
    start, signals, noises = 0, 0.0, 0.0
    for name, column in lengths.items():
        size = encoder.get_parameter(name).numel()
        part_2p = halves_2P[:, start : start + size]
        signal, noise = float(part_2p[0] @ part_2p[1]), size * std**2 / config.federation.cohort_size
        print(f"{name:<32} {size:>6} {np.median(column):>10.3f} {signal:>10.5f} {noise:>10.5f} {signal / noise:>7.2f}")
        start, signals, noises = start + size, signals + signal, noises + noise
    print(f"{'all':<32} {start:>6} {'':>10} {signals:>10.5f} {noises:>10.5f} {signals / noises:>7.2f}")


if __name__ == "__main__":
    main()
