"""Forgetting among dead letters: what is of the subject or month goes, the rest stays as it was, and doubt is told."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.commitment import make_private_part
from ledger.errors import StoreFull
from telephony import dead_letters
from telephony.adapters.base import Kind
from telephony.adapters.registry import Adapters
from telephony.dead_erasure import (
    AS_PARTY,
    AS_TEXT,
    BY_ARRIVAL,
    BY_CALL,
    PERHAPS_BEFORE,
    PERHAPS_NO_TEXT,
    PERHAPS_SHORT,
    Found,
    Held,
    OfPeriod,
    OfRetention,
    OfSubject,
    Reader,
    forget_letters_over,
    settle_letters,
    shred_letters,
)
from telephony.dead_letters import DeadLetters, Letter, dead_letter
from telephony.vault import Vault, VaultEntry
from telephony.vault_holds import HeldNow
from telephony.vault_keys import DAY_MS, end_of_period_ms

ANNA, BEN, CLEO = "+442071838750", "sip:ben@host.test", "+12025550123"
ANNAS_DIGITS = b"2071838750"
NOVEMBER_MS = 1_795_231_128_494  # 2026-11-21
DECEMBER_MS = NOVEMBER_MS + 30 * DAY_MS
READER = Reader(Adapters().by_kind, "GB")
NOTHING = Held(HeldNow(frozenset(), frozenset(), frozenset()), str.encode, "GB")


def call(caller: str = CLEO, callee: str = BEN, time_ms: int = NOVEMBER_MS) -> bytes:
    """Return a CDR that Kamailio's adapter reads."""
    return json.dumps(
        {
            "start_time": f"{time_ms // 1000 - 30}.000",
            "end_time": f"{time_ms // 1000}.000",
            "call_id": "call-1@host.test",
            "from_tag": "a",
            "to_tag": "b",
            "from": caller,
            "to": callee,
            "sip_code": "200",
        }
    ).encode()


def letter(document: bytes, kind: int = Kind.KAMAILIO, time_ms: int = NOVEMBER_MS) -> Letter:
    """Return a dead letter."""
    return dead_letter(document, stage="intake", reason="because", time_ms=time_ms, kind=kind)


def found(document: bytes, party: str = ANNA, kind: int = Kind.KAMAILIO) -> Found | None:
    """Return whether a document is of a party, and why."""
    return OfSubject(party).find(READER.read(kind, document, NOVEMBER_MS))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (call(f"sip:{ANNA}@gw.test;user=phone"), (True, AS_PARTY)),
        (call(CLEO, "020 7183 8750"), (True, AS_PARTY)),
        (call("sip:020%371838750@gw.test"), (True, AS_PARTY)),
        # A party of neither side, as one who forwarded the call.
        (call().replace(b"call-1", b"call-442071838750-1"), (True, AS_TEXT)),
        (call().replace(CLEO.encode(), b"+12025550124"), None),
        (b'{"from": "+44 (0)20 7183-8750', (True, AS_TEXT)),
        (b"from=%2B44%32%30%37%31%38%33%38%37%35%30&x", (True, AS_TEXT)),
        (rb'{"x": "\u0032071838750"', (True, AS_TEXT)),
        (b"<x>&#50;071838750", (True, AS_TEXT)),
        ("sip:+442071838750@x".encode("utf-16-le"), (True, AS_TEXT)),
        (b"\xff 2071838750", (True, AS_TEXT)),
        (b"2071838751 not json", None),
        (b"\xff\xfe", (False, PERHAPS_NO_TEXT)),
    ],
)
def test_a_subject_is_found_as_a_party_or_in_the_text(document: bytes, expected: tuple[bool, str] | None) -> None:
    assert found(document) == (Found(*expected) if expected else None)


@pytest.mark.parametrize(
    ("party", "document", "expected"),
    [
        (BEN, call(), (True, AS_PARTY)),
        (BEN, b"<sip:ben@HOST.test;user", (True, AS_TEXT)),
        (BEN, b'{"user": "ben", "domain": "host.test', (False, PERHAPS_SHORT)),
        (BEN, call(CLEO, "sip:ben@other.test"), None),
        ("tel:999;phone-context=+44", call(CLEO, "999"), (True, AS_PARTY)),
        ("tel:999;phone-context=+44", b'{"to": "999', (False, PERHAPS_SHORT)),
        ("tel:999;phone-context=+44", call(CLEO, "sip:999@host.test:999"), (True, AS_PARTY)),
        ("tel:999;phone-context=+44", call(CLEO, "+12025550999"), None),
        (f"{ANNA};ext=12", b'{"from": "+442071838750', (False, PERHAPS_SHORT)),
        (f"{ANNA};ext=12", call(f"{ANNA};ext=12"), (True, AS_PARTY)),
        (f"{ANNA};ext=12", call(f"{ANNA};ext=13"), None),
        ("reception", b'{"from": "reception', (True, AS_TEXT)),
        ("desk", b'{"from": "desk', (False, PERHAPS_SHORT)),
        # In no numbering plan: nothing but its digits is known.
        ("+999123456789", b"x 999123456789", (True, AS_TEXT)),
    ],
)
def test_what_is_short_or_no_number_is_doubted_where_nobody_can_read(
    party: str, document: bytes, expected: tuple[bool, str] | None
) -> None:
    assert found(document, party) == (Found(*expected) if expected else None)


@pytest.mark.parametrize(
    ("document", "taken_ms", "expected"),
    [
        (call(), DECEMBER_MS, (True, BY_CALL)),
        (call(time_ms=DECEMBER_MS), DECEMBER_MS, None),
        (b"not json", NOVEMBER_MS, (True, BY_ARRIVAL)),
        (b"not json", NOVEMBER_MS - 30 * DAY_MS, None),
        (b"not json", DECEMBER_MS, (False, PERHAPS_BEFORE)),
        (b"not json", -1, (False, PERHAPS_BEFORE)),
    ],
)
def test_a_month_is_that_of_the_call_or_else_of_the_arrival(
    document: bytes, taken_ms: int, expected: tuple[bool, str] | None
) -> None:
    reading = READER.read(Kind.KAMAILIO, document, taken_ms)
    assert OfPeriod("2026-11").find(reading) == (Found(*expected) if expected else None)


def test_retention_goes_by_the_end_of_the_month() -> None:
    end_ms = end_of_period_ms("2026-11") + 30 * DAY_MS
    for document, taken_ms, why in ((call(), DECEMBER_MS, BY_CALL), (b"not json", NOVEMBER_MS, BY_ARRIVAL)):
        reading = READER.read(Kind.KAMAILIO, document, taken_ms)
        assert OfRetention(30, end_ms - 1).find(reading) is None
        assert OfRetention(30, end_ms).find(reading) == Found(is_sure=True, why=why)
    assert OfRetention(30, end_ms).find(READER.read(Kind.KAMAILIO, b"not json", 0)) is None


spellings = st.sampled_from(
    (
        ANNA,
        f"sip:{ANNA}@gw.test",
        "020 7183 8750",
        "(020) 7183-8750",
        "tel:+44-20-7183-8750",
        quote("+44 20 7183 8750"),
        "0044.20.7183.8750",
    )
)
noise = st.text(st.characters(codec="utf-8", exclude_characters="0123456789%&\\"), max_size=30)


@st.composite
def documents(draw: st.DrawFn, numbers: st.SearchStrategy[str]) -> tuple[int, bytes]:
    """Return a document with a number in it: whole, in a field where it does not belong, cut, or of any adapter."""
    number, kind = draw(numbers), draw(st.sampled_from([0, *map(int, Kind), 99]))
    text = call(number).decode() if draw(st.booleans()) else json.dumps({draw(noise): draw(noise), "from": number})
    begin, end = draw(noise), draw(noise)
    data = draw(st.sampled_from((text, begin + text + end, f"{begin},{number}\n{end}"))).encode()
    return kind, draw(st.sampled_from((b"", b"\xff"))) + data


@settings(max_examples=60, deadline=None)
@given(
    hers=st.lists(documents(spellings), max_size=6),
    others=st.lists(documents(st.sampled_from((CLEO, BEN, "0 20 71 83"))), max_size=6),
    data=st.data(),
)
def test_nothing_of_a_subject_is_left_and_all_else_is_as_it_was(tmp_path_factory, hers, others, data) -> None:
    folder = tmp_path_factory.mktemp("spool")
    letters = DeadLetters(folder)
    all_of_them = data.draw(st.permutations([*hers, *others]))
    letters.add([letter(document, kind) for kind, document in all_of_them])
    for id_ in data.draw(st.lists(st.sampled_from([one.id for one in letters] or [""]), unique=True)):
        events = {"mended": Letter("retry", id_, 2, document=f"now {ANNA}"), "settled": Letter("dropped", id_, 2)}
        letters.add([events[data.draw(st.sampled_from(sorted(events)))]] if id_ else [])
    mended = {id_ for id_, _, document in letters.retries() if ANNA.encode() in document}
    before = {one.id: one for one in letters}
    report = shred_letters(letters, READER, OfSubject(ANNA), NOTHING, now_ms=3)
    on_disk = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    lines = [json.loads(line) for line in on_disk.splitlines()]
    assert ANNAS_DIGITS not in on_disk + b"".join(b64decode(line.get("document_base64", "")) for line in lines)
    gone = {letter(document, kind).id for kind, document in hers} | mended
    assert set(report.shredded) == gone & set(before)
    kept = {id_: one for id_, one in before.items() if id_ not in gone}
    assert {one.id: one for one in DeadLetters(folder)} == kept
    assert set(report.undecided) <= set(kept)
    assert report.held == {}
    letters.close()


class Desk:
    """Dead letters and the vault beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = Vault(folder / "vault", bytes(32))
        self.letters = DeadLetters(folder)

    def held(self) -> Held:
        """Return what holds keep now."""
        return Held(self.vault.erasure.holds.in_force(), self.vault.erasure.subject_of, "GB")

    def hold(self, **targets: object) -> int:
        """Place a hold; return its number."""
        values = {"reason": "dispute", "who": "billing", "now_ms": NOVEMBER_MS, **targets}
        return self.vault.erasure.holds.place(**values).number

    def shred(self, party: str = ANNA) -> tuple[set[str], set[str]]:
        """Forget a subject; return which letters are gone, and which are held."""
        report = shred_letters(self.letters, READER, OfSubject(party), self.held(), now_ms=DECEMBER_MS)
        assert {one.id for one in self.letters}.isdisjoint(report.shredded)
        return set(report.shredded), set(report.held)


@pytest.fixture
def desk(tmp_path: Path):
    """Return a desk with nothing on it."""
    made = Desk(tmp_path)
    yield made
    made.letters.close()
    made.vault.close()


READ, UNREAD, OTHER = letter(call(ANNA)), letter(b'{"from": "020 7183 8750", "to": "+12025550123'), letter(call())
ANNA_TO_BEN = make_private_part({"caller": ANNA, "callee": BEN}, [bytes([i]) * 32 for i in range(7)])


@pytest.mark.parametrize(
    ("targets", "held"),
    [
        ({"subjects": [ANNA]}, {READ.id, UNREAD.id}),
        ({"subjects": [BEN]}, {READ.id}),
        ({"subjects": [CLEO]}, {UNREAD.id}),
        ({"periods": ["2026-11"]}, {READ.id, UNREAD.id}),
        ({"periods": ["2026-12"]}, set()),
        ({"records": [bytes(16)]}, {READ.id}),
    ],
)
def test_a_hold_keeps_letters_until_it_is_released(desk: Desk, targets: dict[str, object], held: set[str]) -> None:
    """Also over a compaction, and where the agent buries the same document once more meanwhile."""
    desk.vault.put_many([VaultEntry(bytes(16), NOVEMBER_MS, b"c" * 32, ANNA_TO_BEN)])
    desk.letters.add([READ, UNREAD, OTHER])
    number = desk.hold(**targets)
    assert desk.shred() == ({READ.id, UNREAD.id} - held, held)
    for id_ in held:
        desk.letters.add([Letter("retry", id_, NOVEMBER_MS)])
    desk.letters.add([one for one in (READ, UNREAD) if one.id in held])
    desk.letters.compact()
    assert settle_letters(desk.letters, READER, desk.held(), now_ms=DECEMBER_MS) == []
    desk.vault.erasure.holds.release(number, who="legal", now_ms=DECEMBER_MS)
    assert set(settle_letters(desk.letters, READER, desk.held(), now_ms=DECEMBER_MS)) == held
    assert [one.id for one in desk.letters] == [OTHER.id]


def test_a_letter_that_a_second_hold_keeps_stays(desk: Desk) -> None:
    desk.letters.add([READ])
    first, _ = desk.hold(subjects=[ANNA]), desk.hold(periods=["2026-11"])
    assert desk.shred() == (set(), {READ.id})
    desk.vault.erasure.holds.release(first, who="legal", now_ms=DECEMBER_MS)
    assert settle_letters(desk.letters, READER, desk.held(), now_ms=DECEMBER_MS) == []
    assert len(desk.letters) == 1


def test_one_that_could_name_anybody_is_kept_by_any_hold_on_a_subject(desk: Desk) -> None:
    many = b" ".join(b"%d" % number for number in range(442_071_838_750, 442_071_838_750 + 2_001))
    desk.letters.add([letter(many)])
    desk.hold(subjects=["sip:nobody@host.test"])
    assert desk.shred() == (set(), {letter(many).id})


def test_retention_forgets_letters_unless_there_is_no_policy_or_a_hold(desk: Desk) -> None:
    desk.letters.add([READ, letter(call(time_ms=DECEMBER_MS), time_ms=DECEMBER_MS)])
    now_ms = end_of_period_ms("2026-11") + 10 * DAY_MS
    erasure = desk.vault.erasure
    assert forget_letters_over(desk.folder, READER, erasure, now_ms) == 0
    erasure.set_retain_days(10)
    number = desk.hold(subjects=[ANNA])
    assert forget_letters_over(desk.folder, READER, erasure, now_ms) == 0
    erasure.holds.release(number, who="legal", now_ms=now_ms)
    assert forget_letters_over(desk.folder, READER, erasure, now_ms - 1) == 0
    assert forget_letters_over(desk.folder, READER, erasure, now_ms) == 1
    desk.letters.refresh()
    assert [one.time_ms for one in desk.letters] == [DECEMBER_MS]


def test_an_agent_takes_what_a_crash_behind_a_release_left(desk: Desk) -> None:
    desk.letters.add([READ, OTHER])
    number = desk.hold(subjects=[ANNA])
    assert desk.shred() == (set(), {READ.id})
    assert forget_letters_over(desk.folder, READER, desk.vault.erasure, DECEMBER_MS) == 0
    desk.vault.erasure.holds.release(number, who="legal", now_ms=DECEMBER_MS)
    assert forget_letters_over(desk.folder, READER, desk.vault.erasure, DECEMBER_MS) == 1
    desk.letters.refresh()
    assert [one.id for one in desk.letters] == [OTHER.id]


def test_a_disk_that_refuses_leaves_every_letter_where_it_was(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.letters.add([READ, OTHER])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "write_all", full)
        with pytest.raises(StoreFull):
            desk.shred()
    assert len(DeadLetters(desk.folder)) == 2
    assert desk.shred() == ({READ.id}, set())
