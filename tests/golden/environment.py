"""Environment in which the golden results are computed, and a fingerprint of what their bits depend on.

Libraries choose their kernels by the processor's instruction set, and kernels differ in the order in which they add.
The variables of `PINNED` make each library use its plainest kernels, so that processors with AVX2 and AVX-512 give the
same bits. What they cannot rule out is part of the fingerprint: where it differs from the golden's, numbers are
compared with a tolerance.

Measured on one machine with AVX-512: with the C library also kept from AVX2 and FMA, every model, payout and Shapley
value keeps its bits; epsilons differ by 1e-12 of themselves, and one of 19 data sets has another hash. Processors of
Intel and of AMD differ even so, so the vendor is part of the fingerprint.
"""

import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Final

PINNED: Final = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # matrix products of torch
    "ONEDNN_MAX_CPU_ISA": "SSE41",  # fused layers of torch
    "OPENBLAS_CORETYPE": "Nehalem",  # matrix products of NumPy and SciPy
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",  # loops of NumPy
    "NUMBA_CPU_NAME": "generic",  # compiled generators of data
    "NUMBA_CPU_FEATURES": "",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",  # NumPy warns about features that the processor lacks anyway
}

LIBRARIES: Final = ("torch", "opacus", "numpy", "scipy", "numba", "llvmlite", "shap", "scikit-learn")


def pinned_environment() -> dict[str, str]:
    """Return this process's environment with the pinned variables."""
    return os.environ | PINNED


def fingerprint() -> dict[str, str]:
    """Return what the bits of the results depend on, in the environment of this process."""
    import numpy as np
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "machine": platform.machine(),
        "vendor": _vendor(),
        "libc": " ".join(platform.libc_ver()),
        "torch kernels": torch.backends.cpu.get_cpu_capability(),
        "numpy kernels": " ".join(simd.get("found", [])),
        **{name: version(name) for name in LIBRARIES},
    }


def _vendor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "unknown")
