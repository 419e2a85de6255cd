"""Names of the arrays that every part exchanges; a tensor's shape stands in its suffix, and here its type."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
"""Balances and amounts in NANO, indices, counts."""

FloatArray: TypeAlias = npt.NDArray[np.float64]
"""Measures, values and weights."""

BoolArray: TypeAlias = npt.NDArray[np.bool_]
"""Masks."""

Vector: TypeAlias = npt.NDArray[np.float32]
"""Parameters and updates; a cohort's, one a row."""
