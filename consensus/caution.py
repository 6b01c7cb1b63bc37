"""May this node sign? After a start it first learns what its keys have signed before.

A vote record that is missing (lost disk) or older than what others saw (restored backup) would let an honest producer
contradict itself. So a key neither votes nor seals until a quorum has told what it saw of it, the chain up to what they
call final is here, and what may have been forgotten can do no harm any more. Pure: no clock, no disk, no network.

Source: docs/consensus.md, "After a start"; docs/adr/0008-silence-after-a-lost-vote-record.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from consensus.params import faults_tolerated
from consensus.votes import VotingSet

TICK_SLOTS_MAX = 2
"""A clock that jumps does not shorten a wait: from one look to the next, at most this much of it passes."""


class Standing(Enum):
    """Whether a key may sign, and where not, why."""

    CLEAR = "clear"
    ASKING = "asking"
    """It has its record, and has not heard yet whether others know of more."""
    NEW = "new"
    """It has no record, and nobody has told of anything it signed."""
    LOST = "lost"
    """It has no record, and has signed before."""
    OLD = "old"
    """It has a record, and has signed more than that says: a restored backup, or another node with the key."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a peer says of itself when it tells what it has seen of us.

    Attributes:
        final_height: of its final block.
        slot: by its clock.
    """

    final_height: int
    slot: int


@dataclass(frozen=True, slots=True)
class View:
    """What the engine sees at a moment.

    Attributes:
        slot: by this node's clock.
        sets: the voting sets that must sign now.
    """

    slot: int
    head_height: int
    final_height: int
    final_slot: int
    sets: Sequence[VotingSet]


@dataclass(frozen=True, slots=True)
class Wait:
    """What the key that has to wait longest waits for.

    Attributes:
        standing: CLEAR where nothing is waited for.
        words: how many more producers must tell what they saw; 0 once a quorum has.
        height: up to where the chain must be here, 0 where it is.
        final_slot: a block sealed after this slot must become final, None where that would not help.
        until_slot: when the wait is over at the latest, by this node's clock; None while that is not known.
    """

    standing: Standing
    words: int = 0
    height: int = 0
    final_slot: int | None = None
    until_slot: int | None = None


@dataclass(slots=True)
class _Key:
    """One key. left_slots: of the epoch it is silent for."""

    standing: Standing
    left_slots: int


class Caution:
    """Decides for each key of this node whether it may vote and seal.

    epoch_slots: how long a key with a lost or old record is silent.
    is_clock_off: set from outside; while it is, nothing is sealed. Votes carry no time.
    """

    def __init__(self, epoch_slots: int) -> None:
        self.is_clock_off = False
        self._epoch_slots = epoch_slots
        self._keys: dict[bytes, _Key] = {}
        self._words: dict[str | bytes, Word] = {}
        """By member or, where that is not known, by key."""
        self._slot: int | None = None
        self._start_slot: int | None = None
        self._safe_slot: int | None = None
        """Whatever this node signed before its start was for blocks up to this slot; known once a quorum has told."""

    # -- what it is told -------------------------------------------------------------------------------------------

    def begin(self, key_id: bytes, standing: Standing) -> None:
        """Take in a key as the store has it: ASKING with a record, NEW without, or what it waited as at the last stop.

        An unfinished wait begins anew.
        """
        self._keys[key_id] = _Key(standing, self._epoch_slots)

    def hear(self, key_id: bytes, word: Word, *, member_id: str = "") -> None:
        """Note the word of a peer; what it saw of our keys is told with ``has_signed``.

        member_id: whose node it is, where that is known. It speaks for its member, with whatever key that holds a seat:
        while keys rotate, the one it meets us with may not be the one that votes.
        """
        self._words[member_id or key_id] = word

    def has_signed(self, key_id: bytes, *, is_beyond_record: bool) -> bool:
        """Note that something signed by one of our keys was seen; tell whether its standing changed.

        is_beyond_record: this node has no record of it.
        """
        key = self._keys.get(key_id)
        if key is None:
            return False
        if key.standing is Standing.NEW:
            key.standing = Standing.LOST
            return True
        if is_beyond_record and key.standing in {Standing.ASKING, Standing.CLEAR}:
            key.standing, key.left_slots = Standing.OLD, self._epoch_slots
            return True
        return False

    def look(self, view: View) -> list[bytes]:
        """Take note of the time and the chain; return the keys that have just become clear."""
        if self._start_slot is None:
            self._start_slot = self._slot = view.slot
        passed = min(max(view.slot - (self._slot or 0), 0), TICK_SLOTS_MAX)
        self._slot = view.slot
        waiting = {key_id: key for key_id, key in self._keys.items() if key.standing is not Standing.CLEAR}
        for key in waiting.values():
            key.left_slots = max(key.left_slots - passed, 0)
        if not waiting or self._words_missing(view.sets) or self._height_missing(view):
            return []
        if self._safe_slot is None:
            # A clock that was wrong at the start must not make blocks of before look like ones of after it.
            told = [_ranked([w.slot for w in self._told(s)], s) for s in view.sets]
            self._safe_slot = max(self._start_slot, *told) + 1
        cleared = [key_id for key_id, key in waiting.items() if self._is_over(key, view)]
        for key_id in cleared:
            self._keys[key_id].standing = Standing.CLEAR
        return cleared

    # -- what it says ----------------------------------------------------------------------------------------------

    def standing(self, key_id: bytes) -> Standing:
        """Return how it is with a key of this node."""
        return self._keys[key_id].standing

    def may_vote(self, key_id: bytes) -> bool:
        """Tell whether a key of this node may vote."""
        return self._keys[key_id].standing is Standing.CLEAR

    def may_seal(self, key_id: bytes, slot: int) -> bool:
        """Tell whether a key of this node may seal in ``slot``.

        With its record it need not have heard its peers: in a slot after the start nobody has sealed with it yet.
        """
        if self.is_clock_off:
            return False
        standing = self._keys[key_id].standing
        is_new_slot = self._start_slot is not None and slot > self._start_slot
        return standing is Standing.CLEAR or (standing is Standing.ASKING and is_new_slot)

    def wait(self, view: View) -> Wait:
        """Return what is waited for: of the key that has to wait longest."""
        waiting = [key for key in self._keys.values() if key.standing is not Standing.CLEAR]
        if not waiting:
            return Wait(Standing.CLEAR)
        key = max(waiting, key=lambda key: (_ORDER.index(key.standing), key.left_slots))
        words, height = self._words_missing(view.sets), self._height_missing(view)
        if key.standing is Standing.ASKING:
            return Wait(key.standing, words, height)
        final_slot = self._safe_slot if key.standing is Standing.NEW else None
        until_slot = None if self._slot is None else self._slot + key.left_slots
        return Wait(key.standing, words, height, final_slot, until_slot)

    # -- how it decides --------------------------------------------------------------------------------------------

    def _told(self, voting_set: VotingSet) -> list[Word]:
        """Return the words of the producers of a set."""
        words = self._words
        told = (words.get(p.member_id) or words.get(p.key_id) for p in voting_set.producers)
        return [word for word in told if word is not None]

    def _words_missing(self, sets: Sequence[VotingSet]) -> int:
        """Return how many more producers must tell, this node included as one, to be a quorum of every set."""
        return max((max(s.quorum - len(self._told(s)) - self._own(s), 0) for s in sets), default=0)

    def _own(self, voting_set: VotingSet) -> int:
        return sum(p.key_id in self._keys for p in voting_set.producers)

    def _height_missing(self, view: View) -> int:
        """Return up to where the chain is to be fetched yet, as far as at least one honest producer calls it final."""
        final_height = max((_ranked([w.final_height for w in self._told(s)], s) for s in view.sets), default=0)
        return final_height if final_height > view.head_height else 0

    def _is_over(self, key: _Key, view: View) -> bool:
        """Tell whether what a key may have forgotten can do no harm, a quorum having told."""
        match key.standing:
            case Standing.ASKING:
                # A quorum knows of nothing beyond the record.
                return True
            case Standing.NEW if view.head_height < self._epoch_slots:
                # The chain is young, and a quorum that remembers has not seen it sign: it has not.
                return True
            case Standing.NEW if self._safe_slot is not None and view.final_slot > self._safe_slot:
                # Final without it, and later than all that it may have signed: none of that can count any more.
                return True
            case _:
                return key.left_slots == 0


_ORDER: tuple[Standing, ...] = (Standing.CLEAR, Standing.ASKING, Standing.NEW, Standing.OLD, Standing.LOST)


def _ranked(numbers: list[int], voting_set: VotingSet) -> int:
    """Return the highest number that is no higher than what some honest producer told; 0 where too few have."""
    faulty = faults_tolerated(len(voting_set.producers))
    return sorted(numbers, reverse=True)[faulty] if len(numbers) > faulty else 0
