"""Which note a node shows: never a smaller tree than before, whatever is cosigned when, and across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from audit.final import FinalView
from audit.lognote import finality_line, finality_of, origin_of
from audit.notes import COSIGNATURE, LogKey, Note, parse_note, parse_tree_head
from consensus.setchange import VotingProof
from ledger.block import Header
from ledger.codec import decode, encode
from ledger.errors import BadSignature, EncodingError, LedgerError, StoreFull
from ledger.store import Space
from node.api.notes import COSIGNED_SHOWN_MS, NOTES_ROW, KeptNotes, LogNotes
from tests.audit.chains import FIVE, Cluster, govern, make_genesis
from tests.audit.light_kit import PeerSource

T = TypeVar("T")
KEY, *WITNESSES = [LogKey.generate() for _ in range(3)]
NAMES = ["witness.example/w1", "witness.example/w2"]
NOW_MS = 1_795_250_000_000


def make_proof() -> VotingProof:
    cluster = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    govern(cluster, slots=4)
    proof = PeerSource(cluster.peers[0], cluster.genesis).final()
    assert proof is not None
    return proof


PROOF = make_proof()
CHAIN_ID = PROOF.header.chain_id


@dataclass(frozen=True)
class View:
    """A final block at a height, with a proof that nobody looks into here."""

    header: Header

    @classmethod
    def at(cls, height: int) -> FinalView:
        return cast("FinalView", cls(msgspec.structs.replace(PROOF.header, height=height)))

    def voting_proof(self) -> VotingProof:
        return msgspec.structs.replace(PROOF, header=self.header)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    raise AssertionError("it waits")


class Crashed(Exception):
    """The process ended here."""


class Home:
    """A log whose node may be started again, with what it keeps."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.now_ms = NOW_MS
        self.key = KEY
        self.witnesses = [key.note_key(name, COSIGNATURE) for key, name in zip(WITNESSES, NAMES, strict=True)]
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.start()

    def start(self) -> None:
        self.log = LogNotes(CHAIN_ID, self.key, self.witnesses, lambda: self.now_ms, self._keep)
        if NOTES_ROW in self.rows:
            self.log.restore(self.rows[NOTES_ROW], self.key)

    async def _keep(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self.before()
        self.rows.update(rows)
        self.after()

    def cosigned(self, note: Note, *, witness: int = 0) -> bytes:
        signature = WITNESSES[witness].cosign(note.text, NAMES[witness], self.now_ms // 1000)
        return note.signed(signature).to_bytes()

    def cosign(self, height: int, *, witness: int = 0, final: int | None = None) -> tuple[int, int]:
        data = self.cosigned(self.log.newest(View.at(height), KEY), witness=witness)
        return run(self.log.cosign(data, View.at(final or height), KEY))

    def show(self, height: int) -> Note:
        return parse_note(self.log.published(View.at(height), KEY).to_bytes())


def size_of(note: Note) -> int:
    return parse_tree_head(note.text).size


@pytest.fixture
def home() -> Home:
    return Home()


def test_cosignatures_outlast_a_restart(home: Home) -> None:
    assert home.cosign(20) == (20, 1)
    assert home.cosign(20, witness=1) == (20, 2)
    before = home.show(24)
    home.start()
    assert home.show(24) == before
    assert len(before.verify(home.witnesses)) == 2
    assert finality_of(before, CHAIN_ID) is not None
    # They are forgotten when their time is up, as without a restart.
    home.now_ms += COSIGNED_SHOWN_MS + 1
    home.start()
    assert size_of(home.show(24)) == 24


def test_one_row_is_kept_however_many_notes_are_cosigned(home: Home) -> None:
    for height in range(20, 40):
        home.cosign(height)
    assert list(home.rows) == [NOTES_ROW]
    assert NOTES_ROW[:1] == Space.META.value
    kept = decode(home.rows[NOTES_ROW], KeptNotes)
    assert [size_of(parse_note(data)) for data in (kept.cosigned, kept.shown)] == [39, 38]


def test_what_is_kept_is_verified_again(home: Home) -> None:
    home.cosign(20)
    home.cosign(20, witness=1)
    # A witness that is no longer known: its line is not shown.
    home.witnesses = home.witnesses[1:]
    home.start()
    assert [one.name for one in home.show(24).signatures] == [origin_of(CHAIN_ID), origin_of(CHAIN_ID), NAMES[1]]
    home.witnesses = []
    home.start()
    assert size_of(home.show(24)) == 24
    home.key = LogKey.generate()
    with pytest.raises(BadSignature, match="not a note that this node signed"):
        home.start()


@pytest.mark.parametrize(("old", "new"), [(b"\n20\n", b"\n21\n"), (b"ledgerd/", b"ledgerd-")])
def test_a_row_that_was_changed_is_taken_for_nothing(old: bytes, new: bytes, home: Home) -> None:
    home.cosign(20)
    kept = decode(home.rows[NOTES_ROW], KeptNotes)
    assert old in kept.cosigned
    home.rows[NOTES_ROW] = encode(msgspec.structs.replace(kept, cosigned=kept.cosigned.replace(old, new)))
    with pytest.raises(BadSignature):
        home.start()


def test_a_row_that_cannot_be_read(home: Home) -> None:
    home.cosign(20)
    good = home.rows[NOTES_ROW]
    other = Note(home.show(20).text, (finality_line(View.at(21).voting_proof()),))
    for bad in (b"", good[:-1], good + b"\0", encode(KeptNotes(1, 0, b"x", b"x")), b"\xc0"):
        home.rows[NOTES_ROW] = bad
        with pytest.raises(EncodingError):
            home.start()
    own = KEY.sign(other.text, origin_of(CHAIN_ID))
    data = other.signed(own).to_bytes()
    home.rows[NOTES_ROW] = encode(KeptNotes(1, 0, data, data))
    with pytest.raises(EncodingError, match="of another tree head"):
        home.start()


def test_what_could_not_be_kept_is_not_shown(home: Home) -> None:
    def fail() -> None:
        raise StoreFull("no room", where="disk")

    home.before = fail
    with pytest.raises(LedgerError, match="no room"):
        home.cosign(20)
    assert (size_of(home.show(20)), home.show(20).verify(home.witnesses), home.rows) == (20, [], {})
    assert size_of(home.show(21)) == 21


def test_a_newer_note_that_was_shown_stays_until_one_as_large_is_cosigned(home: Home) -> None:
    home.show(22)
    home.cosign(20, final=22)
    assert [size_of(home.show(height)) for height in (22, 25, 30)] == [22, 22, 22]
    home.start()
    assert size_of(home.show(31)) == 22
    home.cosign(30, final=31)
    shown = home.show(33)
    assert (size_of(shown), len(shown.verify(home.witnesses))) == (30, 1)


def test_a_chain_at_rest_goes_on_showing_who_cosigned(home: Home) -> None:
    home.cosign(20)
    home.now_ms += COSIGNED_SHOWN_MS + 1
    assert len(home.show(20).verify(home.witnesses)) == 1
    assert home.show(21).verify(home.witnesses) == []


async def test_two_cosignatures_at_once_are_both_kept(home: Home) -> None:
    note = home.log.newest(View.at(20), KEY)
    bodies = [home.cosigned(note, witness=number) for number in range(2)]
    await asyncio.gather(*(home.log.cosign(body, View.at(20), KEY) for body in bodies))
    assert len(home.show(20).verify(home.witnesses)) == 2


class Showing(RuleBasedStateMachine):
    """The chain grows, notes are shown, witnesses answer late, time passes, and the node crashes anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Home()
        self.height = 1
        self.oldest = 1
        """Of the views that this process may still have: what was final before its start it sees at once."""
        self.shown = 0

    @rule(blocks=st.integers(1, 5))
    def grow(self, blocks: int) -> None:
        self.height += blocks

    @rule(behind=st.integers(0, 2))
    def show(self, behind: int) -> None:
        """Answers overtake each other: a view of the chain may be older than the one before."""
        note = self.home.show(max(self.oldest, self.height - behind))
        assert size_of(note) >= self.shown
        self.shown = size_of(note)
        note.verify([KEY.note_key(origin_of(CHAIN_ID)), *self.home.witnesses])

    @rule(milliseconds=st.sampled_from([0, 60_000, COSIGNED_SHOWN_MS, COSIGNED_SHOWN_MS + 1]))
    def wait(self, milliseconds: int) -> None:
        self.home.now_ms += milliseconds

    @rule(
        behind=st.integers(0, 8),
        witness=st.integers(0, 1),
        crash=st.sampled_from(["never", "before", "after"]),
        shows=st.booleans(),
    )
    def cosign(self, behind: int, witness: int, crash: str, shows: bool) -> None:
        def meanwhile(place: str) -> None:
            if shows:
                self.height += 1
                self.show(0)
            if crash == place:
                raise Crashed

        self.home.before, self.home.after = (lambda: meanwhile("before")), (lambda: meanwhile("after"))
        try:
            self.home.cosign(max(1, self.height - behind), witness=witness, final=self.height)
        except Crashed:
            self.restart()

    @rule()
    def restart(self) -> None:
        self.home.start()
        self.oldest = self.height


TestShowing = Showing.TestCase
TestShowing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
