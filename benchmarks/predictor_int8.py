"""The predictor in float32 and in int8, dynamic and static: size, time, and what is right at half of the votes.

Run: python -m benchmarks.predictor_int8 predictor.safetensors unseen.h5 encoder.safetensors [--shards 40]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import print_setting, print_table
from nerv_fl.bootstrap.consensus_scores import answers, score
from nerv_fl.bootstrap.predictor import of_onnx
from nerv_fl.data.consensus import RaceFile
from nerv_fl.models.consensus import as_feed, open_onnx
from nerv_fl.models.consensus_inputs import make_inputs
from nerv_fl.models.predictor_files import load_predictor, write_onnx
from nerv_fl.models.quantize import Feed, quantize_onnx
from nerv_fl.models.weights import read_table
from nerv_fl.quorum import votes_at

CUT = 0.5
EXAMPLES = 6
TRIALS = 100


def main() -> None:
    """Write each form, score it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictor", type=Path)
    parser.add_argument("races", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--shards", type=int, default=40)
    options = parser.parse_args()
    model, _ = load_predictor(options.predictor)
    with tempfile.TemporaryDirectory() as folder, RaceFile(options.races) as file:
        table_AD = read_table(options.encoder, num_accounts=file.info.accounts)
        plain = Path(folder) / "float32.onnx"
        write_onnx(model, plain)
        examples = [
            _example(file, shard, table_AD=table_AD) for shard in range(file.info.shards - EXAMPLES, file.info.shards)
        ]
        forms = {"float32": plain}
        for name, method, per_channel in (
            ("int8, dynamic", "dynamic", False),
            ("int8, dynamic, a scale an output", "dynamic", True),
            ("int8, static", "static", False),
        ):
            forms[name] = Path(folder) / f"{len(forms)}.onnx"
            calibration = examples if method == "static" else None
            quantize_onnx(plain, forms[name], method=method, calibration=calibration, per_channel=per_channel)
        rows = []
        for name, path in forms.items():
            found = answers(file, range(options.shards), cut=CUT, table_AD=table_AD, logits=of_onnx(path))
            right = score(CUT, found)
            rows.append(
                [
                    name,
                    f"{path.stat().st_size:,}",
                    f"{_median_ms(path, examples[0]):.1f}",
                    f"{100 * right.agreement:.2f}",
                    f"{100 * right.validity:.2f}",
                    f"{100 * right.balanced:.2f}",
                ]
            )
    print_setting("The predictor's forms at half of the votes", packages=["onnxruntime", "torch"])
    print_table(["form", "bytes", "ms, 64 races", "honest, %", "valid, %", "balanced, %"], rows)


def _example(file: RaceFile, shard: int, *, table_AD: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Feed:
    block = file.shard(shard)
    return as_feed(make_inputs(block, table_AD, votes=votes_at(block.num_votes, (CUT,))[:, 0])[0])


def _median_ms(path: Path, feed: Feed) -> float:
    run, times = open_onnx(path), []
    for _ in range(TRIALS):
        began = time.process_time()
        run(feed)
        times.append(1e3 * (time.process_time() - began))
    return float(np.median(times))


if __name__ == "__main__":
    main()
