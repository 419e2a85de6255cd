"""Proof that a consensus file is what it says: its content, the rule that its outcomes follow, and its simulation."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from datagen.consensus.generate import RaceShape, mempools, race_split
from datagen.consensus.simulate import simulate
from nerv_fl.data.consensus import RaceFile
from nerv_fl.data.consensus_schema import TAMPERS, RaceBlock
from nerv_fl.errors import DataError
from nerv_fl.quorum import MIN_VALIDATORS, NO_OUTCOME, PROPOSE, TIMEOUT, VOTE, bucket_of, standing, unpack
from nerv_fl.tokens import BURN, MINT, TRANSFER
from nerv_fl.validation import in_range

NONE: Final = 0


@dataclass(frozen=True, kw_only=True)
class RaceReport:
    """What a verified consensus file holds.

    Attributes:
        shards: Number of shards.
        races: Races of all shards.
        events: Events of all races.
        longest: Most events of a race.
        candidates: Candidates of all races.
        transactions: Transactions of all candidates.
        undecided: Part of the races that end without a block.
        honest: Part of the races whose candidates are all valid.
        several_rounds: Part of the races with a timeout.
        invalid: Part of the candidates that are invalid.
        tampers: Candidates by what was done to them, in the order of `TAMPERS`.
        replayed: Shards simulated again.
        content_sha256: Hash of every value, as recomputed.
    """

    shards: int
    races: int
    events: int
    longest: int
    candidates: int
    transactions: int
    undecided: float
    honest: float
    several_rounds: float
    invalid: float
    tampers: tuple[int, ...]
    replayed: int
    content_sha256: str


def verify_races(path: str | Path, *, replay: int = 3) -> RaceReport:
    """Prove that a file is a sound consensus file, or say where it is not.

    Args:
        path: The file.
        replay: Shards to simulate again, spread over the file; 0 for none.

    Returns:
        Counts and rates of the file.

    Raises:
        ConfigError: If replay is negative.
        DataError: If the file is not a consensus file, or breaks an invariant; the message names the shard and race.

    Guarantees:
        On return the hash covers the content, every outcome is the one that the rule gives for the race's events, a
        candidate is valid exactly if nothing was done to it, a header that was not forged is true, and the replayed
        shards are equal to their simulation.
    """
    in_range("replay", replay, low=0, high=np.inf)
    with RaceFile(path) as file:
        digests, counts = [], np.zeros(8, dtype=np.int64)
        tampers, longest = np.zeros(len(TAMPERS), dtype=np.int64), 0
        for shard in range(file.info.shards):
            block = file.shard(shard)
            rounds = _check_shard(block, where=f"{file.path}: shard {shard}")
            digests.append(np.frombuffer(block.digest(), dtype=np.uint8))
            counts += _counts(block, rounds=rounds)
            tampers += np.bincount(block.tamper, minlength=len(TAMPERS))
            longest = max(longest, int(block.num_events.max()))
        _check_whole(file, np.stack(digests))
        chosen = np.unique(np.linspace(0, file.info.shards - 1, min(replay, file.info.shards)).astype(np.int64))
        for shard, pool in mempools(RaceShape.of(file.info), chosen.tolist()):
            _check_replay(
                file.shard(shard), simulate(file.info.seed, shard, pool=pool), where=f"{file.path}: shard {shard}"
            )
        return _report(file, counts, tampers=tampers, longest=longest, replayed=len(chosen))


def _report(
    file: RaceFile, counts: npt.NDArray[np.int64], *, tampers: npt.NDArray[np.int64], longest: int, replayed: int
) -> RaceReport:
    races, events, candidates, transactions, undecided, honest, several, invalid = counts.tolist()
    return RaceReport(
        shards=file.info.shards,
        races=races,
        events=events,
        longest=longest,
        candidates=candidates,
        transactions=transactions,
        undecided=undecided / races,
        honest=honest / races,
        several_rounds=several / races,
        invalid=invalid / candidates,
        tampers=tuple(tampers.tolist()),
        replayed=replayed,
        content_sha256=file.info.content_sha256,
    )


def _counts(block: RaceBlock, *, rounds: npt.NDArray[np.int64]) -> list[int]:
    valid = np.add.reduceat(block.valid, block.candidate_offset()[:-1])
    return [
        block.num_races,
        len(block.token),
        len(block.valid),
        len(block.kind),
        int((block.outcome == NO_OUTCOME).sum()),
        int((valid == block.num_candidates).sum()),
        int((rounds > 0).sum()),
        int((block.valid == 0).sum()),
    ]


def _check_shard(block: RaceBlock, *, where: str) -> npt.NDArray[np.int64]:
    """Check a shard; return the rounds that timed out in each race."""
    _check_candidates(block, where=where)
    offset, rounds = block.event_offset(), np.zeros(block.num_races, dtype=np.int64)
    for race in range(block.num_races):
        place, token, weight = f"{where}, race {race}", block.token[offset[race] : offset[race + 1]], block.weight[race]
        present = int(block.num_validators[race])
        if not (present >= MIN_VALIDATORS and weight[:present].all() and not weight[present:].any()):
            raise DataError(f"{place}: {np.count_nonzero(weight)} validators have reputation, expected {present}")
        try:
            found = standing(token, weight)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        kind, _, bucket, validator = unpack(token)
        votes = int((kind == VOTE).sum())
        expected = (block.outcome[race], block.num_votes[race])
        if (found.outcome, votes) != expected:
            raise DataError(
                f"{place}: its events lead to outcome {found.outcome} with {votes} votes, "
                f"expected {expected[0]} with {expected[1]}"
            )
        _check_proposals(block, race, token=token, where=place)
        told = kind < TIMEOUT
        if (bucket != bucket_of(weight)[validator])[told].any():
            raise DataError(f"{place}: a token tells another reputation than its validator's")
        rounds[race] = found.rounds
    return rounds


def _check_proposals(block: RaceBlock, race: int, *, token: npt.NDArray[np.uint16], where: str) -> None:
    """Check that candidates are proposed in their order, each once and by its proposer."""
    kind, candidate, _, validator = unpack(token)
    said, first = kind == PROPOSE, int(block.candidate_offset()[race])
    count = int(block.num_candidates[race])
    proposers = block.proposer[first : first + count].astype(np.int64)
    found = list(zip(candidate[said].tolist(), validator[said].tolist(), strict=True))
    expected = list(enumerate(proposers.tolist()))[: len(found)]
    if found != expected:
        raise DataError(f"{where}: (candidate, proposer) are {found} in its events, expected {expected}")


def _check_candidates(block: RaceBlock, *, where: str) -> None:
    for row in np.flatnonzero((block.tamper >= len(TAMPERS)) | (block.valid != (block.tamper == NONE)))[:1]:
        raise DataError(
            f"{where}, candidate {row}: valid is {block.valid[row]} and tamper {block.tamper[row]}, "
            f"expected 1 and 0, or 0 and 1 to {len(TAMPERS) - 1}"
        )
    energy, minted = true_headers(block)
    honest = (block.tamper == NONE) | (block.careful == 1)
    wrong = ~np.isclose(block.announced_energy, energy, rtol=1e-9, atol=0.0)
    wrong |= ~np.isclose(block.announced_minted, minted, rtol=1e-9, atol=1e-18)
    wrong |= block.announced_transactions != block.num_transactions
    for row in np.flatnonzero(honest & wrong)[:1]:
        raise DataError(
            f"{where}, candidate {row}: its header announces energy {block.announced_energy[row]:.6e}, "
            f"expected {energy[row]:.6e} (of its transactions)"
        )


def true_headers(block: RaceBlock) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return energy and net mint of each candidate's batch, as a true header announces them, float64 [N] each."""
    share = block.amount_nano / float(block.supply_nano)
    begin = block.tx_offset()[:-1]
    squares = np.add.reduceat(np.where(block.kind == TRANSFER, 2.0, 1.0) * share**2, begin)
    sign = np.where(block.kind == MINT, 1.0, np.where(block.kind == BURN, -1.0, 0.0))
    return np.sqrt(squares), np.add.reduceat(sign * share, begin)


def _check_whole(file: RaceFile, digests: npt.NDArray[np.uint8]) -> None:
    for shard in np.flatnonzero((file.array("shard/sha256") != digests).any(axis=1))[:1]:
        raise DataError(f"{file.path}: shard {shard}: shard/sha256 differs from that of its values")
    found = hashlib.sha256(digests.tobytes()).hexdigest()
    if found != file.info.content_sha256:
        raise DataError(f"{file.path}: its content hashes to {found}, expected {file.info.content_sha256}")
    split, drawn = file.array("shard/split"), race_split(RaceShape.of(file.info))
    for shard in np.flatnonzero(split != drawn)[:1]:
        raise DataError(f"{file.path}: shard {shard} is in split {split[shard]}, expected {drawn[shard]}")


def _check_replay(block: RaceBlock, again: RaceBlock, *, where: str) -> None:
    for field in fields(block):
        if not np.array_equal(getattr(block, field.name), getattr(again, field.name)):
            raise DataError(f"{where}: {field.name} differs from the simulation of its seed")
