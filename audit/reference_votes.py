"""The second implementation: who produces, who votes, and what their signatures prove.

Source: docs/protocol.md, "Slots", "The state of a block", "Votes, certificates, finality".
"""

from __future__ import annotations

from typing import Any, NamedTuple

from audit.reference_state import NODE, RETIRING, REVOKED, State, root_by_siblings
from audit.reference_types import EPOCH_ENTRY, PENDING_SET, STRUCK_ENTRY, TURN, TURNS_ENTRY, VOTING_ENTRY
from audit.reference_wire import Refused, is_signed, tagged_hash, vote_hash

VotingSet = tuple[int, list[Any]]
"""Number and producers of a set that must sign."""


class Point(NamedTuple):
    """A block by height and id."""

    height: int
    block_id: bytes


# -- certificates --------------------------------------------------------------------------------------------------


def quorum_of(producers: list[Any]) -> int:
    """Return how many must sign."""
    return 2 * len(producers) // 3 + 1


def sets_to_sign(voting: Any) -> list[VotingSet]:
    """Return the sets that must sign a child of the block after which the entry ``["voting"]`` is ``voting``."""
    sets: list[VotingSet] = [(voting.set_id, voting.producers)]
    return [*sets, (voting.set_id + 1, voting.pending.producers)] if voting.pending else sets


def check_certificate(certificate: Any, sets: list[VotingSet], chain_id: bytes) -> None:
    """Check the signatures of a certificate. Raises Refused."""
    if certificate.t_height <= certificate.s_height:
        raise Refused("t_height", "the target is not above the source")
    if [part.set_id for part in certificate.parts] != [set_id for set_id, _ in sets]:
        raise Refused("parts", "not signed by the sets that must sign")
    digest = vote_hash(chain_id, certificate)
    for part, (_, producers) in zip(certificate.parts, sets, strict=True):
        bits = int.from_bytes(part.signers, "little")
        if len(part.signers) != (len(producers) + 7) // 8 or bits >> len(producers):
            raise Refused("parts.signers", "not a bitmap of this set")
        signers = [producer for rank, producer in enumerate(producers) if bits >> rank & 1]
        if len(signers) != quorum_of(producers) or len(part.signatures) != len(signers):
            raise Refused("parts.signers", "not exactly a quorum, each with a signature")
        for producer, signature in zip(signers, part.signatures, strict=True):
            if not is_signed(producer.public_key, digest, signature):
                raise Refused("parts.signatures", f"not a signature by {producer.member_id}")


def check_voting_proof(proof: Any, trusted: VotingSet, chain_id: bytes) -> VotingSet | None:
    """Check a VotingProof by the set that is trusted; return the set to come, if there is one. Raises Refused."""
    header, voting, certificate = proof.header, proof.voting, proof.certificate
    if header.chain_id != chain_id:
        raise Refused("header.chain_id", "of another chain")
    if root_by_siblings(("voting",), voting, proof.siblings) != header.state_root:
        raise Refused("siblings", "do not lead from the entry to the state root")
    if (voting.set_id, voting.producers) != trusted:
        raise Refused("voting", "the current set is not the one trusted")
    link = certificate.s_height, certificate.s_id, certificate.t_height
    if link != (header.height, tagged_hash("header", header), header.height + 1):
        raise Refused("certificate", "does not make this block final")
    try:
        check_certificate(certificate, sets_to_sign(voting), chain_id)
    except Refused as error:
        raise error.within("certificate") from None
    return sets_to_sign(voting)[-1] if voting.pending else None


# -- elections -----------------------------------------------------------------------------------------------------


class Election(NamedTuple):
    """What the first block of an epoch brings: seats, voters wanted, and members struck now."""

    seats: list[Any]
    voters: list[Any]
    struck: list[str]


def ranking(state: State, idle: set[bytes], out: set[str]) -> list[Any]:
    """Return the producers that a state gives, by rank; ``idle`` keys are last, members that are ``out`` are not in."""
    weights = {
        key[1]: 0
        for key, candidate in state.of("candidate")
        if key[1] not in out and state.active(candidate.key_id, key[1], NODE)
    }
    for key, weight in state.of("delegation"):
        if key[2] in weights and state.get("member", key[1]):
            weights[key[2]] += weight
    order = sorted(weights, key=lambda name: (state.entries["candidate", name].key_id in idle, -weights[name], name))
    return [state.producer(name) for name in order[: state.parameters.producer_count]]


def found(state: State, chain_id: bytes) -> None:
    """Give the state of genesis its seats, turns and voting set."""
    seats = ranking(state, set(), set())
    state.put(("epoch",), EPOCH_ENTRY(0, chain_id, seats))
    state.put(("turns",), TURNS_ENTRY([TURN(0, 0)] * len(seats)))
    state.put(("voting",), VOTING_ENTRY(0, seats, None))


def hold_election(state: State, turns: list[Any]) -> Election:
    """Return the outcome of an election on the parent's state; ``turns``: of the whole epoch that ends."""
    voting, old = state.entries["voting",], state.entries["epoch",].seats
    struck = {key[1]: entry for key, entry in state.of("struck")}
    waiting = [name for _, name in sorted((entry.height, name) for name, entry in struck.items() if not entry.is_out)]
    producers = old + voting.producers + (voting.pending.producers if voting.pending else [])
    office = {producer.member_id for producer in producers}
    queue = [name for name in waiting if name in office][: (len(voting.producers) - 1) // 3]
    now = [name for name in waiting if name not in office or name in queue]
    out = {name for name, entry in struck.items() if entry.is_out or name in now}
    idle = {seat.key_id for seat, turn in zip(old, turns, strict=True) if turn.missed > turn.sealed}
    proven = {seat.key_id for seat, turn in zip(old, turns, strict=True) if turn.sealed}
    seats = ranking(state, idle, out) or old
    present = {producer.member_id: producer for producer in voting.producers}
    voters, free = [], 0
    for seat in seats:
        if seat in voting.producers or seat.key_id in proven:
            voters.append(seat)
        elif seat.member_id in present:
            voters.append(present[seat.member_id])
        else:
            free += 1
    elected = {seat.member_id for seat in seats}
    leaving = [p for p in voting.producers if p.member_id not in elected and p.member_id not in out]
    return Election(seats, voters + leaving[:free], now)


# -- slots ---------------------------------------------------------------------------------------------------------


class Schedule(NamedTuple):
    """The order of the producers in one epoch."""

    epoch: int
    seed: bytes
    first_slot: int
    order: list[Any]

    def owner(self, slot: int) -> Any:
        """Return the producer of a slot of this epoch."""
        return self.order[(slot - self.first_slot) % len(self.order)]

    def missed(self, seats: list[Any], turns: list[Any], first: int, end: int) -> list[Any]:
        """Return the turns of ``seats`` with the slots from ``first`` up to before ``end`` missed by their owners."""
        size, after = len(self.order), []
        for seat, turn in zip(seats, turns, strict=True):
            own = self.first_slot + self.order.index(seat)
            # Of the slots own, own + size, own + 2 size, ... those below ``end`` less those below ``first``.
            count = max(0, -((own - end) // size)) - max(0, -((own - first) // size))
            after.append(TURN(turn.sealed, turn.missed + count) if first < end else turn)
        return after


def schedule_of(seats: list[Any], epoch: int, seed: bytes, epoch_slots: int) -> Schedule:
    """Return the shuffle of the seats for one epoch."""
    order = list(seats)
    for i in range(len(order) - 1, 0, -1):
        j = int.from_bytes(tagged_hash("schedule", [seed, epoch, i])) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return Schedule(epoch, seed, epoch * epoch_slots, order)


def schedule_for(
    state: State, schedule: Schedule, slot: int, parent_slot: int, final: Point, is_owed: bool
) -> tuple[Schedule, Election | None]:
    """Return the schedule of a child in ``slot``, and the election that it begins with, if any.

    state, schedule, parent_slot, final: of the parent; is_owed: votes are owed at it.
    """
    epoch_slots = state.parameters.epoch_slots
    epoch = slot // epoch_slots
    if epoch == schedule.epoch:
        return schedule, None
    turns = state.entries["turns",].turns
    if is_owed:
        end = schedule.first_slot + epoch_slots
        turns = schedule.missed(state.entries["epoch",].seats, turns, parent_slot + 1, end)
    election = hold_election(state, turns)
    return schedule_of(election.seats, epoch, final.block_id, epoch_slots), election


def begin_block(
    state: State,
    schedule: Schedule,
    election: Election | None,
    slot: int,
    parent: tuple[int, int],
    final: Point,
    is_owed: bool,
) -> None:
    """Make of the parent's state that before the transactions of a child in ``slot``.

    schedule, election: those of ``slot``. parent: its height and slot. final: the last block final by the certificates
    up to the child's own header. is_owed: votes are owed at the parent.
    """
    parent_height, parent_slot = parent
    before = state.entries["voting",]
    voting = before
    # 1. Completion
    if before.pending and final.height >= before.pending.height:
        voting = VOTING_ENTRY(before.set_id + 1, before.pending.producers, None)
    turns, seats, first = state.entries["turns",].turns, state.entries["epoch",].seats, parent_slot + 1
    # 2. Election
    if election:
        seats, first = election.seats, schedule.first_slot
        turns = [TURN(0, 0)] * len(seats)
        state.put(("epoch",), EPOCH_ENTRY(schedule.epoch, schedule.seed, seats))
        for name in election.struck:
            state.put(("struck", name), STRUCK_ENTRY(state.entries["struck", name].height, 1))
            state.put(("candidate", name), None)
            for key, _ in state.of("delegation"):
                if key[2] == name:
                    state.put(key, None)
        wanted = {voter.key_id for voter in election.voters}
        if not before.pending and wanted and wanted != {producer.key_id for producer in before.producers}:
            pending = PENDING_SET(parent_height + 1, election.voters)
            voting = VOTING_ENTRY(before.set_id, before.producers, pending)
    if voting != before:
        state.put(("voting",), voting)
    # 3. Turns
    if is_owed:
        turns = schedule.missed(seats, turns, first, slot)
    owner = schedule.owner(slot)
    turns = [
        TURN(turn.sealed + 1, turn.missed) if seat == owner else turn for seat, turn in zip(seats, turns, strict=True)
    ]
    state.put(("turns",), TURNS_ENTRY(turns))
    # 4. Retirement
    if election or voting != before:
        office = state.in_office()
        for key, entry in state.of("key"):
            if entry.standing == RETIRING and key[1] not in office:
                state.put(key, entry._replace(standing=REVOKED))
