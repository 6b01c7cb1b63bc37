"""Were the right ones asked? Every final block once more, from its header and the state's entries alone.

Shares no code with the engine's rules on voting sets: who must sign is read off the entry ``["voting"]``, which the
state root holds, and everything else is counted here.
"""

from __future__ import annotations

from collections import Counter

from consensus.params import faults_tolerated, quorum_of
from ledger.block import Block, Certificate, bitmap_indexes, vote_digest
from ledger.entries import Producer, VotingEntry
from ledger.state import State
from node.sim.world import is_stand_in_signature, member_name


class Violation(AssertionError):
    """An invariant does not hold."""


class Judge:
    """Follows the final chain, each height once.

    Attributes:
        seen: what is counted for ``node.sim.coverage``.
    """

    def __init__(self, chain_id: bytes, founding: State, liars: list[int], seen: Counter[str]) -> None:
        self.seen = seen
        self._chain_id = chain_id
        self._liars = {member_name(number) for number in liars}
        self._voting = {0: founding.voting}
        self._ids = {0: chain_id}
        self._justified = {0}
        self._final = 0
        self._epoch = founding.epoch
        self._check_bearable(founding.voting.producers)

    def on_final(self, height: int, block_id: bytes, block: Block, state: State) -> None:
        """Judge the final block at ``height``, one above the last; ``state``: after it. Raises Violation."""
        self._ids[height] = block_id
        certificate = block.sealed.certificate
        if certificate is not None:
            self._check_certificate(height, certificate)
        self._check_voting(height, self._voting[height - 1], state.voting)
        self._voting[height] = state.voting
        self._check_state(height, state)

    def _check_certificate(self, height: int, certificate: Certificate) -> None:
        """Check that a quorum of every set that had to sign did, and draw what follows."""
        target, source = certificate.t_height, certificate.s_height
        if self._ids.get(target) != certificate.t_id or self._ids.get(source) != certificate.s_id:
            raise Violation(f"height {height} carries a certificate on blocks of another chain")
        voting = self._voting[target - 1]
        sets = [voting.producers] + ([voting.pending.producers] if voting.pending else [])
        if len(certificate.parts) != len(sets):
            raise Violation(f"height {height} carries a certificate of {len(certificate.parts)} sets, not {len(sets)}")
        digest = vote_digest(self._chain_id, source, certificate.s_id, target, certificate.t_id)
        for part, producers in zip(certificate.parts, sets, strict=True):
            signers = [producers[index].public_key for index in bitmap_indexes(part.signers)]
            good = sum(map(is_stand_in_signature, signers, [digest] * len(signers), part.signatures))
            if good < quorum_of(len(producers)):
                raise Violation(f"height {height} carries a certificate with {good} signatures of {len(producers)}")
        self.seen["certificate of two sets" if len(sets) > 1 else "certificate of one set"] += 1
        if source not in self._justified:
            raise Violation(f"height {height} carries a certificate from {source}, which nothing justifies")
        self._justified.add(target)
        if target == source + 1:
            self._final = max(self._final, source)

    def _check_voting(self, height: int, before: VotingEntry, after: VotingEntry) -> None:
        """Check that a change is scheduled once, completes when it is final on its own chain, and is then whole."""
        pending = before.pending
        is_completed = after.set_id != before.set_id
        if is_completed:
            if pending is None or after.set_id != before.set_id + 1 or after.producers != pending.producers:
                raise Violation(f"height {height} has a voting set that was not scheduled")
            if self._final < pending.height:
                raise Violation(f"height {height} completes a change that is not final yet: {pending.height}")
            self.seen["set change completed"] += 1
        elif after.producers != before.producers:
            raise Violation(f"height {height} has other voters in set {after.set_id}")
        if after.pending == pending:
            return
        if pending is not None and not is_completed:
            raise Violation(f"height {height} replaces a change under way")
        if after.pending is not None:
            if after.pending.height != height or is_completed:
                raise Violation(f"height {height} schedules a change out of turn")
            self._check_bearable(after.pending.producers)
            self._note_change(after.producers, after.pending.producers)

    def _check_bearable(self, producers: list[Producer]) -> None:
        """Check a set: one seat for each member, and no more liars than it bears, or the plan asks too much."""
        names = {producer.member_id for producer in producers}
        if len(names) != len(producers) or not producers:
            raise Violation("a voting set with two seats of one member, or with none")
        if len(names & self._liars) > faults_tolerated(len(names)):
            raise Violation(f"the plan is too hard: {len(names & self._liars)} liars in a set of {len(names)}")

    def _check_state(self, height: int, state: State) -> None:
        """Check what a state says of its members."""
        honest = state.struck.keys() - self._liars
        if honest:
            raise Violation(f"height {height} strikes {min(honest)}, which is honest")
        if state.epoch.epoch == self._epoch.epoch:
            return
        self.seen["election"] += 1
        if {p.member_id for p in state.epoch.seats} != {p.member_id for p in self._epoch.seats}:
            self.seen["election with other winners"] += 1
        self._epoch = state.epoch

    def _note_change(self, old: list[Producer], new: list[Producer]) -> None:
        self.seen["set change scheduled"] += 1
        before, after = {p.member_id: p.key_id for p in old}, {p.member_id: p.key_id for p in new}
        if len(after) > len(before):
            self.seen["voting set grows"] += 1
        elif len(after) < len(before):
            self.seen["voting set shrinks"] += 1
        if any(before.get(name, key) != key for name, key in after.items()):
            self.seen["key rotated in the voting set"] += 1
        if self._liars & (before.keys() - after.keys()):
            self.seen["liar leaves the voting set"] += 1
        if self._liars & (after.keys() - before.keys()):
            self.seen["liar joins the voting set"] += 1
