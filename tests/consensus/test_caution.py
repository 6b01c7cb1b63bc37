"""A key that may have forgotten what it signed is silent until that can do no harm, and no longer."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.caution import Caution, Standing, View, Wait, Word
from consensus.election import Producer
from consensus.votes import VotingSet
from node.sim.world import producer_key

EPOCH_SLOTS = 10
OWN = producer_key(0).key_id


def producers(*numbers: int) -> VotingSet:
    """Return a voting set of these producers."""
    keys = [(n, producer_key(n)) for n in numbers]
    return VotingSet(0, tuple(Producer(f"member-{n}", key.key_id, key.public_key) for n, key in keys))


FOUR = (producers(0, 1, 2, 3),)


def view(slot: int, head: int = 50, final_slot: int = 90, sets: tuple[VotingSet, ...] = FOUR) -> View:
    """Return what an engine sees in ``slot``, on a chain that is not young any more."""
    return View(slot, head, head - 2, final_slot, sets)


def begin(standing: Standing, slot: int = 100) -> Caution:
    """Return the caution of a node that has just started with its one key."""
    caution = Caution(EPOCH_SLOTS)
    caution.begin(OWN, standing)
    assert caution.look(view(slot)) == []
    return caution


def tell(caution: Caution, *numbers: int, final: int = 48, slot: int = 100) -> None:
    """Let peers tell that they have seen nothing unknown."""
    for n in numbers:
        caution.hear(producer_key(n).key_id, Word(final, slot))


def test_a_record_and_a_quorum_that_knows_of_no_more() -> None:
    caution = begin(Standing.ASKING)
    assert caution.wait(view(100)) == Wait(Standing.ASKING, words=2)
    tell(caution, 1)
    assert caution.look(view(100)) == []
    assert caution.wait(view(100)) == Wait(Standing.ASKING, words=1)
    tell(caution, 2)
    assert caution.look(view(100)) == [OWN]
    assert (caution.may_vote(OWN), caution.may_seal(OWN, 100)) == (True, True)
    assert caution.wait(view(100)) == Wait(Standing.CLEAR)


def test_the_word_of_somebody_without_a_seat_is_none() -> None:
    caution = begin(Standing.ASKING)
    tell(caution, 1, 7, 8, 9)
    assert caution.look(view(100)) == []


def test_a_peer_speaks_for_its_member_whatever_key_that_votes_with() -> None:
    """A restart while a voter's key rotates: the peer meets us with the old key, the set to come has the new one."""
    rotated = producer_key(9)
    coming = VotingSet(1, (*producers(0, 1).producers, Producer("member-2", rotated.key_id, rotated.public_key)))
    sets = (producers(0, 1, 2), coming)
    caution = begin(Standing.ASKING)
    tell(caution, 1, 2)
    assert caution.look(view(100, sets=sets)) == []
    caution.hear(producer_key(2).key_id, Word(48, 100), member_id="member-2")
    assert caution.look(view(100, sets=sets)) == [OWN]


def test_with_its_record_it_may_seal_in_a_later_slot_before_anybody_told() -> None:
    """So that records get into blocks where too few are up to vote."""
    caution = begin(Standing.ASKING)
    assert [caution.may_seal(OWN, slot) for slot in (99, 100, 101)] == [False, False, True]
    assert not caution.may_vote(OWN)


def test_before_the_first_look_nothing_is_signed() -> None:
    caution = Caution(EPOCH_SLOTS)
    caution.begin(OWN, Standing.ASKING)
    assert (caution.may_vote(OWN), caution.may_seal(OWN, 10**9)) == (False, False)


def test_a_whole_cluster_that_restarts_waits_for_words_only() -> None:
    cautions = []
    for own in range(4):
        caution = Caution(EPOCH_SLOTS)
        caution.begin(producer_key(own).key_id, Standing.ASKING)
        caution.look(view(100))
        tell(caution, *({1, 2, 3} - {own}))
        cautions.append((own, caution))
    assert [c.look(view(100)) for _, c in cautions] == [[producer_key(own).key_id] for own, _ in cautions]


def test_alone_in_the_set_there_is_nobody_to_ask() -> None:
    sets = (producers(0),)
    for standing in (Standing.ASKING, Standing.NEW):
        caution = Caution(EPOCH_SLOTS)
        caution.begin(OWN, standing)
        assert caution.look(View(0, 0, 0, -1, sets)) == [OWN]


def test_every_set_that_must_sign_is_asked() -> None:
    sets = (producers(0, 1, 2, 3), producers(0, 4, 5, 6))
    caution = begin(Standing.ASKING)
    tell(caution, 1, 2)
    assert caution.look(view(100, sets=sets)) == []
    assert caution.wait(view(100, sets=sets)).words == 2
    tell(caution, 4, 5)
    assert caution.look(view(100, sets=sets)) == [OWN]


def test_one_without_a_seat_needs_a_quorum_of_others() -> None:
    sets = (producers(1, 2, 3, 4),)
    caution = begin(Standing.ASKING)
    tell(caution, 1, 2)
    assert caution.look(view(100, sets=sets)) == []
    tell(caution, 3)
    assert caution.look(view(100, sets=sets)) == [OWN]


def test_it_catches_up_first() -> None:
    """What the chain has of its own signatures is seen on the way."""
    caution = begin(Standing.ASKING)
    tell(caution, 1, 2, final=60)
    assert caution.look(view(100, head=59)) == []
    assert caution.wait(view(100, head=59)) == Wait(Standing.ASKING, height=60)
    assert caution.look(view(100, head=60)) == [OWN]


def test_a_liar_cannot_make_it_wait_for_blocks_that_are_not_there() -> None:
    caution = begin(Standing.ASKING)
    tell(caution, 1, final=2**60)
    tell(caution, 2, final=50)
    assert caution.look(view(100)) == [OWN]


def test_a_restored_backup_is_silent_for_an_epoch() -> None:
    caution = begin(Standing.ASKING)
    assert caution.has_signed(OWN, is_beyond_record=True)
    tell(caution, 1, 2, 3)
    # Other blocks becoming final does not shorten it.
    assert [caution.look(view(slot, final_slot=slot - 1)) for slot in range(101, 110)] == [[]] * 9
    assert caution.wait(view(109)) == Wait(Standing.OLD, until_slot=110)
    assert (caution.may_vote(OWN), caution.may_seal(OWN, 109)) == (False, False)
    assert caution.look(view(110)) == [OWN]


def test_after_the_epoch_it_still_needs_the_words_of_a_quorum() -> None:
    caution = begin(Standing.LOST)
    tell(caution, 1)
    assert [caution.look(view(slot)) for slot in range(101, 130)] == [[]] * 29
    assert caution.wait(view(130)) == Wait(Standing.LOST, words=1, until_slot=129)
    tell(caution, 3)
    assert caution.look(view(130)) == [OWN]


def test_signed_elsewhere_while_running() -> None:
    caution = begin(Standing.ASKING)
    tell(caution, 1, 2)
    assert caution.look(view(100)) == [OWN]
    assert not caution.has_signed(OWN, is_beyond_record=False)
    assert caution.may_vote(OWN)
    assert caution.has_signed(OWN, is_beyond_record=True)
    assert caution.standing(OWN) is Standing.OLD
    assert not caution.may_seal(OWN, 105)


def test_what_others_sign_is_no_matter() -> None:
    caution = begin(Standing.ASKING)
    assert not caution.has_signed(producer_key(1).key_id, is_beyond_record=True)


def test_founding_waits_for_a_quorum_only() -> None:
    caution = Caution(EPOCH_SLOTS)
    caution.begin(OWN, Standing.NEW)
    start = View(3, 0, 0, -1, FOUR)
    assert caution.look(start) == []
    assert not caution.may_seal(OWN, 4)
    tell(caution, 1, 2, final=0, slot=3)
    assert caution.look(start) == [OWN]


def test_one_that_joins_a_young_chain_late_does_not_wait_either() -> None:
    caution = Caution(EPOCH_SLOTS)
    caution.begin(OWN, Standing.NEW)
    tell(caution, 1, 2, final=7, slot=3)
    assert caution.look(View(30, 0, 0, -1, FOUR)) == []
    assert caution.look(View(30, EPOCH_SLOTS - 1, 7, 20, FOUR)) == [OWN]


def test_a_new_key_waits_until_a_block_sealed_after_its_start_is_final() -> None:
    caution = begin(Standing.NEW)
    tell(caution, 1, 2)
    assert caution.look(view(102, final_slot=101)) == []
    assert caution.wait(view(102)) == Wait(Standing.NEW, final_slot=101, until_slot=110)
    assert caution.look(view(103, final_slot=102)) == [OWN]


def test_where_nothing_becomes_final_a_new_key_waits_an_epoch() -> None:
    caution = begin(Standing.NEW)
    tell(caution, 1, 2)
    assert [caution.look(view(slot)) for slot in range(101, 110)] == [[]] * 9
    assert caution.look(view(110)) == [OWN]


def test_a_slow_clock_does_not_take_old_blocks_for_new_ones() -> None:
    caution = begin(Standing.NEW, slot=100)
    tell(caution, 1, 2, slot=500)
    assert caution.look(view(102, final_slot=102)) == []
    assert caution.look(view(103, final_slot=501)) == []
    assert caution.look(view(103, final_slot=502)) == [OWN]


def test_a_clock_that_jumps_does_not_shorten_the_wait() -> None:
    caution = begin(Standing.LOST)
    tell(caution, 1, 2)
    assert caution.look(view(10_000)) == []
    assert caution.wait(view(10_000)).until_slot == 10_000 + EPOCH_SLOTS - 2
    assert caution.look(view(50)) == []
    assert caution.wait(view(50)).until_slot == 50 + EPOCH_SLOTS - 2


def test_a_new_key_that_was_seen_to_sign_has_lost_its_record() -> None:
    caution = begin(Standing.NEW)
    assert caution.has_signed(OWN, is_beyond_record=False)
    tell(caution, 1, 2)
    assert caution.standing(OWN) is Standing.LOST
    assert caution.look(view(104, final_slot=103)) == []


def test_keys_stand_for_themselves() -> None:
    """One that is rotated in waits; the one it replaces goes on."""
    second = producer_key(9).key_id
    caution = begin(Standing.ASKING)
    caution.begin(second, Standing.NEW)
    tell(caution, 1, 2)
    assert caution.look(view(101)) == [OWN]
    assert (caution.may_vote(OWN), caution.may_vote(second)) == (True, False)
    assert caution.wait(view(101)).standing is Standing.NEW


def test_a_clock_that_is_off_stops_sealing_but_no_votes() -> None:
    caution = begin(Standing.ASKING)
    tell(caution, 1, 2)
    caution.look(view(100))
    caution.is_clock_off = True
    assert (caution.may_vote(OWN), caution.may_seal(OWN, 101)) == (True, False)
    caution.is_clock_off = False
    assert caution.may_seal(OWN, 101)


class LostRecords(RuleBasedStateMachine):
    """One producer of four that loses its disk or is restored, over and over.

    Whatever it signs is seen by two others at least, as every vote is that may be in a certificate with an honest
    one's; peers that restart forget nothing here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slot = 100
        self.chain_height = 50
        self.height = 50
        self.signed = 0
        self.seen = {1: 0, 2: 0, 3: 0}
        self.record: int | None = None
        self.backups: list[tuple[int | None, int]] = [(None, 0)]
        self.waits: Standing | None = None
        self.start()

    def start(self) -> None:
        """Begin with what the disk holds."""
        self.caution = Caution(EPOCH_SLOTS)
        self.caution.begin(OWN, self.waits or (Standing.NEW if self.record is None else Standing.ASKING))
        self.record = self.record or 0
        self.look()

    def look(self) -> None:
        """Let time be noticed; keep on disk what is waited for."""
        was = self.caution.standing(OWN)
        if (
            self.caution.look(View(self.slot, self.height, self.height - 2, self.slot - 2, FOUR))
            and was is not Standing.ASKING
        ):
            self.record = max(self.record or 0, self.height)
        standing = self.caution.standing(OWN)
        self.waits = standing if standing not in {Standing.ASKING, Standing.CLEAR} else None

    @rule(slots=st.integers(1, 3), blocks=st.integers(0, 1), is_here=st.booleans())
    def pass_time(self, slots: int, blocks: int, is_here: bool) -> None:
        self.slot += slots
        self.chain_height += blocks
        self.height = self.chain_height if is_here else self.height
        self.look()

    @rule(number=st.integers(1, 3))
    def tell(self, number: int) -> None:
        if self.seen[number]:
            self.caution.has_signed(OWN, is_beyond_record=self.seen[number] > (self.record or 0))
            self.record = max(self.record or 0, self.seen[number])
        self.caution.hear(producer_key(number).key_id, Word(self.chain_height - 2, self.slot))
        self.look()

    @precondition(lambda self: self.caution.may_vote(OWN) and self.height > self.record)
    @rule(unaware=st.integers(1, 3))
    def vote(self, unaware: int) -> None:
        assert self.height > self.signed, "it contradicts itself"
        self.record = self.signed = self.height
        for number in self.seen:
            if number != unaware:
                self.seen[number] = self.height

    @rule()
    def back_up(self) -> None:
        self.backups.append((self.record, self.height))

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """From any backup, or none: what was waited for is not in it."""
        self.record, self.height = data.draw(st.sampled_from(self.backups))
        self.waits = None
        self.start()

    @invariant()
    def while_it_may_vote_its_record_has_all_that_it_signed(self) -> None:
        if self.caution.may_vote(OWN):
            assert (self.record or 0) >= self.signed


LostRecords.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
test_it_never_contradicts_what_it_forgot = LostRecords.TestCase
