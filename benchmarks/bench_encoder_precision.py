"""CPU time of a forward and backward pass of one state in bfloat16, and with blocks computed again, over float32.

python -m benchmarks.bench_encoder_precision [PRESET ...]      quickstart and small if none is named
"""

import sys
from collections.abc import Callable

import torch

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.rng import torch_stream

SEED = 7
REPEATS = 5
STATES = {"quickstart": 32, "small": 16}
"""States of a batch; 2 of the others."""
MODES = {
    "float32": ("float32", False),
    "float32, recomputed": ("float32", True),
    "bfloat16": ("bfloat16", False),
    "bfloat16, recomputed": ("bfloat16", True),
}


def main() -> None:
    """Measure the presets that are named and print their table."""
    rows = []
    for name in sys.argv[1:] or STATES:
        num_states = STATES.get(name, 2)
        passes = {mode: make_pass(name, *how, num_states=num_states) for mode, how in MODES.items()}
        times_ms = median_cpu_ms(passes, repeats=REPEATS, warm_up=1)
        for mode, time_ms in times_ms.items():
            rows.append([name, mode, f"{time_ms / num_states:.1f}", f"{time_ms / times_ms['float32']:.2f}"])
    print_setting(f"Forward and backward pass of one state, medians of {REPEATS}", packages=("torch",))
    print_table(["Preset", "Blocks", "CPU, ms", "over float32"], rows)


def make_pass(name: str, precision: str, recomputed: bool, *, num_states: int) -> Callable[[], None]:
    """Return what makes a forward and backward pass of some blank states."""
    encoder = Encoder(get_preset(name), checkpoint_activations=recomputed)
    encoder.reset_parameters(torch_stream(SEED, "weights"))
    tokens_B1T = encoder.blank_tokens().expand(num_states, 1, -1)

    def run() -> None:
        encoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            hidden_B1TD = encoder.hidden(tokens_B1T)
        hidden_B1TD.float().square().mean().backward()

    return run


if __name__ == "__main__":
    main()
