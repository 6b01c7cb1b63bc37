"""Forgetting among the dead letters: those of a subject, of a month, or of months whose time is over.

The vault finds a record by the keyed hash of its subject. A dead letter is in the clear, and often it is dead because
nobody could read it. So it is of a subject where its adapter reads the subject as caller or callee, and also where the
subject's digits, or user and host, occur anywhere in it. It is of a month by the begin of its call, or where that
cannot be read by the day on which it came in. What neither tells is left for a person to decide, by its id.

What a dispute hold keeps is marked in the file and goes when the hold is released.

Source: docs/privacy.md, "To forget".
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from ledger.errors import EncodingError
from telephony.adapters.base import TIME_MS_MAX, Adapter
from telephony.dead_letters import DeadLetters, Letter
from telephony.numbers import party_of
from telephony.source import SourceCall
from telephony.vault_erasure import Erasure
from telephony.vault_holds import HeldNow
from telephony.vault_keys import DAY_MS, end_of_period_ms, period_of

DIGITS_MIN: Final = 6
"""Fewer occur in times and counters by chance."""
CANDIDATES_MAX: Final = 2_000
"""Possible parties looked for in one document that nobody can read; with more than these a hold keeps it."""

AS_PARTY: Final = "it is caller or callee"
AS_TEXT: Final = "its digits or its name occur in it"
BY_CALL: Final = "its call was then"
BY_ARRIVAL: Final = "it came in then; the time of its call cannot be read"
PERHAPS_SHORT: Final = "something occurs in it that is too short to tell"
PERHAPS_NO_TEXT: Final = "it is no text and cannot be read"
PERHAPS_BEFORE: Final = "it came in later; the time of its call cannot be read"

_ESCAPED: Final = re.compile(rb"\\u00([0-9a-fA-F]{2})")
_BETWEEN_DIGITS: Final = re.compile(rb"(?<=[0-9])[ .()/-]+(?=[0-9])")
_NUMBER: Final = re.compile(r"\+?[0-9]{6,15}", re.ASCII)
_URI: Final = re.compile(r"(?:sips?|tel):[^\s\"'<>,;\\]{1,256}", re.ASCII)
_SIP: Final = re.compile(r"sip:([^@]+)@(.+)", re.ASCII | re.DOTALL)

SubjectOf = Callable[[str], bytes]
"""``Erasure.subject_of``: the keyed hash of a party."""


class Reading(NamedTuple):
    """What is known of a document."""

    document: bytes
    taken_ms: int
    """When it came in, UTC."""
    parties: frozenset[str] | None
    """Caller and callee in the vault's spelling; None where no adapter can read it."""
    pair: tuple[str, str]
    """Both, empty where unknown."""
    month: str | None
    """Of its call; None where nobody can tell."""

    @property
    def arrival(self) -> str | None:
        """Return the month in which it came in; None for a time that is none."""
        return _month_of(self.taken_ms)


class Reader:
    """Reads documents as the agent does that left them."""

    def __init__(self, adapters: Mapping[int, Adapter], region: str = "") -> None:
        """``adapters`` are by kind; ``region`` is the country of national numbers."""
        self.region = region
        self._adapters = adapters

    def read(self, kind: int, document: bytes, taken_ms: int) -> Reading:
        """Return what is known of a document, whatever its bytes."""
        unknown = Reading(document, taken_ms, None, ("", ""), None)
        adapter = self._adapters.get(kind)
        if adapter is None:
            return unknown
        try:
            source = adapter.parse(document)
        except (EncodingError, ArithmeticError, LookupError, TypeError, ValueError):
            # Also a fault of the adapter: that may be why the letter is here.
            return unknown
        call = source if isinstance(source, SourceCall) else source.call
        if call is None:
            return unknown
        caller, callee = (party_of(text, self.region) if text else "" for text in (call.caller, call.callee))
        parties = frozenset({caller, callee} - {""})
        return Reading(document, taken_ms, parties or None, (caller, callee), _month_of(call.setup_ms or call.end_ms))


class Found(NamedTuple):
    """Why a document is meant, or may be."""

    is_sure: bool
    why: str


class Target(Protocol):
    """What is to be forgotten."""

    def find(self, reading: Reading) -> Found | None:
        """Tell whether a document is of it; None: it is not."""


class OfSubject:
    """A caller or callee."""

    def __init__(self, party: str) -> None:
        """``party`` is in the spelling of ``telephony.numbers``."""
        self._party = party
        strong, weak = _needles(party)
        self._strong = [needle.lower().encode("utf-8", "surrogateescape") for needle in strong]
        self._weak = [needle.lower().encode("utf-8", "surrogateescape") for needle in weak]

    def find(self, reading: Reading) -> Found | None:
        """Tell whether the subject is a party of a document, or occurs in it."""
        if reading.parties is not None and self._party in reading.parties:
            return Found(is_sure=True, why=AS_PARTY)
        text = plain(reading.document).lower()
        if any(needle in text for needle in self._strong):
            return Found(is_sure=True, why=AS_TEXT)
        if reading.parties is not None:
            return None
        if any(needle in text for needle in self._weak):
            return Found(is_sure=False, why=PERHAPS_SHORT)
        return None if _is_text(reading.document) else Found(is_sure=False, why=PERHAPS_NO_TEXT)


@dataclass(frozen=True, slots=True)
class OfPeriod:
    """A month, ``2026-11``."""

    period: str

    def find(self, reading: Reading) -> Found | None:
        """Tell whether the call of a document was then, as far as anything tells."""
        if reading.month is not None:
            return Found(is_sure=True, why=BY_CALL) if reading.month == self.period else None
        if reading.arrival == self.period:
            return Found(is_sure=True, why=BY_ARRIVAL)
        is_later = reading.arrival is None or reading.arrival > self.period
        return Found(is_sure=False, why=PERHAPS_BEFORE) if is_later else None


@dataclass(frozen=True, slots=True)
class OfRetention:
    """Months that have been kept long enough at ``now_ms``."""

    days: int
    """Kept after the end of the month."""
    now_ms: int

    def find(self, reading: Reading) -> Found | None:
        """Tell whether the time of a document is over; where its call cannot be read, from the day it came in."""
        month = reading.month or reading.arrival
        if month is None or end_of_period_ms(month) + self.days * DAY_MS > self.now_ms:
            return None
        return Found(is_sure=True, why=BY_CALL if reading.month else BY_ARRIVAL)


class Held:
    """What dispute holds keep among documents in the clear."""

    def __init__(self, now: HeldNow, subject_of: SubjectOf, region: str = "") -> None:
        self._now = now
        self._subject_of = subject_of
        self._region = region

    def keeps(self, reading: Reading) -> bool:
        """Tell whether a hold keeps a document: by its month, a party, or a record of the same two parties.

        Of one that nobody can read everything counts that could be a party.
        """
        now = self._now
        if (reading.month or reading.arrival) in now.periods:
            return True
        if not (now.subjects or now.calls):
            return False
        if reading.parties is not None:
            # A party that the document does not tell may be anybody.
            caller, callee = (self._subject_of(party) if party else None for party in reading.pair)
            return bool({caller, callee} & now.subjects) or any(
                caller in {None, held[0]} and callee in {None, held[1]} for held in now.calls
            )
        candidates = _candidates(reading.document, self._region)
        if len(candidates) > CANDIDATES_MAX:
            return True
        found = {self._subject_of(party) for party in candidates}
        return bool(found & now.subjects) or any(caller in found and callee in found for caller, callee in now.calls)


@dataclass(slots=True)
class Report:
    """What became of the dead letters that are meant, by id.

    Attributes:
        shredded: gone, each with the reason for which it was meant.
        held: kept by a hold; they go when it is released.
        undecided: a person has to look at them, each with the reason.
    """

    shredded: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)


def find_letters(letters: DeadLetters, reader: Reader, target: Target, held: Held) -> Report:
    """Return which open letters are meant, and would be shredded. Raises StoreError."""
    report = Report()
    for letter in letters:
        readings = _readings(letters, letter, reader)
        found = [one for one in map(target.find, readings) if one is not None]
        if not found:
            continue
        best = max(found, key=lambda one: one.is_sure)
        if not best.is_sure:
            report.undecided[letter.id] = best.why
        elif any(map(held.keeps, readings)):
            report.held[letter.id] = best.why
        else:
            report.shredded[letter.id] = best.why
    return report


def shred_letters(letters: DeadLetters, reader: Reader, target: Target, held: Held, *, now_ms: int) -> Report:
    """Forget the open letters that are meant and mark those that a hold keeps; return what was done.

    Durable on return, and nothing of a letter settled before is left either. Raises StoreError.
    """
    report = find_letters(letters, reader, target, held)
    letters.add([Letter("due", id_, now_ms) for id_ in report.held if not letters.is_due(id_)])
    letters.erase(list(report.shredded), now_ms)
    return report


def settle_letters(letters: DeadLetters, reader: Reader, held: Held, *, now_ms: int) -> list[str]:
    """Forget the letters that only a hold kept, now that one was released; return their ids. Raises StoreError."""
    gone = [
        letter.id
        for letter in letters
        if letters.is_due(letter.id) and not any(map(held.keeps, _readings(letters, letter, reader)))
    ]
    if gone:
        letters.erase(gone, now_ms)
    return gone


def forget_letters_over(spool: Path, reader: Reader, erasure: Erasure, now_ms: int) -> int:
    """Forget the dead letters in ``spool`` whose time is over by the vault's retention policy; return how many.

    Also those that only a hold kept and none keeps now, as a crash behind a release leaves them. What a hold keeps
    stays for the next time. Raises StoreError.
    """
    letters = DeadLetters(spool)
    try:
        held = Held(erasure.holds.in_force(), erasure.subject_of, reader.region)
        count = len(settle_letters(letters, reader, held, now_ms=now_ms))
        days = erasure.retain_days
        if days is None:
            return count
        over = list(find_letters(letters, reader, OfRetention(days, now_ms), held).shredded)
        if over:
            letters.erase(over, now_ms)
        return count + len(over)
    finally:
        letters.close()


def plain(document: bytes) -> bytes:
    """Return a document as it is, and once more without escapes and with each number written in one."""
    bare = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), unquote_to_bytes(document.replace(b"\0", b"")))
    if b"&#" in bare:
        bare = html.unescape(bare.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return b"\n".join((document, bare, _BETWEEN_DIGITS.sub(b"", bare)))


def _readings(letters: DeadLetters, letter: Letter, reader: Reader) -> list[Reading]:
    return [reader.read(letter.kind, document, letter.time_ms) for document in letters.documents_of(letter.id)]


def _needles(party: str) -> tuple[list[str], list[str]]:
    """Return what tells a party by occurring somewhere, and what only may."""
    address = _SIP.fullmatch(party)
    if address:
        return [f"{address[1]}@{address[2]}"], [address[1]]
    number, has_extension, _ = party.partition(";ext=")
    if party.startswith("tel:"):
        number = party[len("tel:") :].partition(";")[0]
    digits = "".join(character for character in number if character in "0123456789")
    if len(digits) < DIGITS_MIN or len(digits) < len(number.lstrip("+")):
        # A short number, or no number at all.
        return ([], [number]) if len(number) < DIGITS_MIN else ([number], [])
    national = _national(number) or digits
    # Many have the number of the house in front of their extension.
    return ([], [national]) if has_extension else ([national], [])


def _national(number: str) -> str:
    """Return the digits of an E.164 number that every way of writing it has in common; empty where nobody knows."""
    import phonenumbers as library

    try:
        found = str(library.parse(number).national_number)
    except library.NumberParseException:
        return ""
    return found if len(found) >= DIGITS_MIN else ""


def _candidates(document: bytes, region: str) -> set[str]:
    """Return what in a document could be a party, in the vault's spelling; stops soon beyond CANDIDATES_MAX."""
    text = plain(document).decode("utf-8", "surrogateescape")
    found: set[str] = set()
    for written in dict.fromkeys([*_NUMBER.findall(text), *_URI.findall(text)]):
        found.add(party_of(written, region))
        if written.isdecimal():
            found.add(party_of("+" + written, region))
        if len(found) > CANDIDATES_MAX:
            break
    return found


def _is_text(document: bytes) -> bool:
    try:
        document.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _month_of(time_ms: int) -> str | None:
    return period_of(time_ms) if 0 < time_ms < TIME_MS_MAX else None
