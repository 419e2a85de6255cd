"""A few simulated races, and a table of random unit vectors."""

import numpy as np

from datagen.consensus.generate import RaceShape, mempools
from datagen.consensus.simulate import simulate
from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.models.consensus_inputs import RaceInputs, make_inputs
from nerv_fl.quorum import votes_at
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray, IntArray

SHAPE = RaceShape(shards=1, races=24, accounts=32, max_transactions=8, seed=2)


def draw_block() -> RaceBlock:
    ((_, pool),) = mempools(SHAPE, [0])
    return simulate(SHAPE.seed, 0, pool=pool)


def draw_table(*, width: int = 12) -> FloatArray:
    table_AD = stream(1, "table").standard_normal((SHAPE.accounts, width))
    return np.asarray(table_AD / np.linalg.norm(table_AD, axis=1, keepdims=True))


def half_of_the_votes(block: RaceBlock) -> IntArray:
    return votes_at(block.num_votes, (0.5,))[:, 0]


def draw_inputs() -> RaceInputs:
    block = draw_block()
    return make_inputs(block, draw_table(), votes=half_of_the_votes(block))[0]
