"""From the parts of a call to the call: what began it, what ended it, and the reports of its quality.

Parts come in any order, late, and twice. So everything here is order-independent and idempotent: the same parts
give the same call, however often and in whatever order they are added. Parts that contradict each other raise
FieldError; the caller decides what becomes of them.

A part tells its call from its own side: whoever sent it is its caller. Where its tags are the call's the other way
round, as those of a BYE that the callee sent, the part is turned before it is joined.

Pure. Quantities are integers with the unit last in the name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Final

import msgspec

from ledger.cdr import Levels, Observer, QualityMethod, ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import FieldError
from telephony.source import (
    PartRole,
    SourceCall,
    SourcePart,
    SourceQuality,
    SourceReading,
    join_of,
    qualities_for,
)

RAW_LEFT_OUT: Final = "not all documents of the call fit into its raw record: the longest reports were left out"

_METHOD_RANK: Final = {
    # Figures that can be recomputed from inputs of the network come before those that must be believed.
    QualityMethod.G107_2: 5,
    QualityMethod.G107_1: 5,
    QualityMethod.G107: 5,
    QualityMethod.RFC3611: 4,
    QualityMethod.RTPENGINE_13: 3,
    QualityMethod.RTPENGINE_10: 3,
    QualityMethod.FREESWITCH: 2,
    QualityMethod.MEASURED: 1,
}

_SIDES: Final = {Observer.CALLER: Observer.CALLEE, Observer.CALLEE: Observer.CALLER}
_RELEASES: Final = {ReleasedBy.CALLER: ReleasedBy.CALLEE, ReleasedBy.CALLEE: ReleasedBy.CALLER}

_UNKNOWN: Final = ("", 0, None, ())
"""What a field of a partial call has where its document does not say."""

_RULED_APART: Final = frozenset({"call_id", "qualities", "levels", "raw", "platform", "time_step_ms", "notes"})
"""Fields that are not merged by "known wins, two different ones contradict each other"."""


class _RawDocuments(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The raw record of a call of several documents: JSON as it came, other text as a JSON string."""

    call: list[msgspec.Raw]
    """Of the call itself: its one document, or those of its beginning and its end."""
    reports: list[msgspec.Raw] = []
    """The shortest first; of equally long ones, in the order of their bytes."""


def merge_call(begin: SourcePart, end: SourcePart) -> SourceCall:
    """Return the call that two parts describe, one its beginning and one its end, in either order.

    What only one of them knows is taken; what both know must agree. Quality and levels are those that
    ``add_quality`` would choose.
    Raises FieldError naming the field where the parts are not of one call, are not a beginning and an end, or
    contradict each other.
    """
    if begin.role is PartRole.END:
        begin, end = end, begin
    if begin.role is not PartRole.BEGIN or end.role is not PartRole.END:
        roles = f"{begin.role.name} and {end.role.name}"
        raise FieldError("not the two parts of a call", where="role", expected="BEGIN and END", actual=roles)
    _check_join(begin.join, end.join)
    if begin.call is None or end.call is None:
        raise FieldError("nothing of a call in it", where="call", expected="a call in both parts", actual="none")
    first, last = begin.call, _turned_to(begin.call, end.call)
    merged: dict[str, object] = {
        field.name: _merge_field(field.name, getattr(first, field.name), getattr(last, field.name))
        for field in fields(SourceCall)
        if field.name not in _RULED_APART
    }
    raw, left_out = _raw_of_call(begin.raw, end.raw)
    call = replace(
        first,
        **merged,  # type: ignore[arg-type]
        qualities=best_qualities((*first.qualities, *last.qualities, *begin.qualities, *_turned_like(last, end))),
        levels=best_levels((first.levels, last.levels, begin.levels, end.levels)),
        raw=raw,
        time_step_ms=max(first.time_step_ms, last.time_step_ms),
        notes=_union(first.notes, last.notes, (RAW_LEFT_OUT,) if left_out else ()),
    )
    return _checked_times(call)


def is_of_dialog(call: SourceCall, part: SourcePart) -> bool:
    """Tell whether ``part`` can be of ``call``: its key, its tags where both have them, and its leg where it has one.

    One Call-ID may have several dialogs: those of a forked or forwarded call, or the legs of a transfer.
    """
    if join_of(call) != part.join or (part.of_leg and part.of_leg not in call.legs):
        return False
    if part.call is None:
        return True
    straight = _alike((call.from_tag, part.call.from_tag), (call.to_tag, part.call.to_tag))
    crossed = _alike((call.from_tag, part.call.to_tag), (call.to_tag, part.call.from_tag))
    return straight is not None or crossed is not None


def add_quality(call: SourceCall, parts: Sequence[SourcePart]) -> SourceCall:
    """Return ``call`` with what reports of its quality add.

    Of each observer the best-founded figures stand (``best_qualities``), of the levels the fullest
    (``best_levels``), of codec and counters those of most packets: they only grow during a call. The reports'
    documents go into ``raw``, as many as there is room for, the shortest first.
    Raises FieldError for a part that is no report, or of another call, dialog or leg (``is_of_dialog``).
    """
    if not parts:
        return call
    qualities = list(call.qualities)
    media = [_media(call)]
    for part in parts:
        if part.role is not PartRole.QUALITY:
            raise FieldError("not a report", where="role", expected="QUALITY", actual=part.role.name)
        _check_join(join_of(call), part.join)
        if part.of_leg and part.of_leg not in call.legs:
            raise FieldError("of another leg", where="of_leg", expected="a leg of the call")
        turned = part.call and _turned_to(call, part.call)
        qualities += qualities_for(call, part) if turned is None else _turned_like(turned, part)
        if turned is not None:
            media.append(_media(turned))
    codec, caller_packets, caller_octets, callee_packets, callee_octets = max(media, key=_media_rank)
    raw, left_out = _raw_with_reports(call.raw, [part.raw for part in parts])
    return replace(
        call,
        codec=codec,
        caller_packets=caller_packets,
        caller_octets=caller_octets,
        callee_packets=callee_packets,
        callee_octets=callee_octets,
        qualities=best_qualities(qualities),
        levels=best_levels([call.levels, *(part.levels for part in parts)]),
        raw=raw,
        notes=_union(call.notes, (RAW_LEFT_OUT,)) if left_out else call.notes,
    )


def best_qualities(found: Iterable[SourceQuality]) -> tuple[SourceQuality, ...]:
    """Return the best-founded figures of each observer, in the observers' order.

    Better are, in this order: a known number of reports, without which figures may be of a stretch of the call; a mean
    whose MOS, round trip, jitter and loss are all known; counts of the receiver; a method that rests on more inputs
    (G.107, the endpoint's own RFC 3611, rtpengine, FreeSWITCH, an outside tool); more reports; known extremes. Beyond
    that the larger figures win, which is no judgement, only an order that does not depend on who came first.
    """
    best: dict[Observer, SourceQuality] = {}
    for quality in found:
        known = best.get(quality.observer)
        if known is None or _quality_rank(quality) > _quality_rank(known):
            best[quality.observer] = quality
    return tuple(best[observer] for observer in sorted(best))


def best_levels(found: Iterable[Levels | None]) -> Levels | None:
    """Return the levels with most values known; of equally full ones, those that sort last. None if there are none."""
    levels = [each for each in found if each is not None]
    return max(levels, key=_levels_rank) if levels else None


def _quality_rank(quality: SourceQuality) -> tuple[object, ...]:
    mean = quality.average
    return (
        quality.samples is not None,
        None not in (mean.rtt_us, mean.jitter_us, mean.loss_ppm),
        quality.packets_expected > 0,
        _METHOD_RANK[quality.method],
        quality.samples or 0,
        (quality.lowest is not None) + (quality.highest is not None),
        # All that is left, so that two different figures never rank the same.
        *(_sortable(value) for value in _flat(quality)),
    )


def _levels_rank(levels: Levels) -> tuple[object, ...]:
    values = [getattr(levels, name) for name in levels.__struct_fields__]
    return (sum(value is not None for value in values), *(_sortable(value) for value in values))


def _flat(quality: SourceQuality) -> list[int | None]:
    """Return every figure of ``quality`` in the order of its fields."""
    figures: list[int | None] = []
    for field in fields(SourceQuality):
        value = getattr(quality, field.name)
        if field.name in {"average", "lowest", "highest"}:
            figures += [getattr(value, each.name, None) for each in fields(SourceReading)]
        else:
            figures.append(value)
    return figures


def _sortable(value: int | None) -> tuple[bool, int]:
    return (value is not None, value or 0)


Media = tuple[str, int | None, int | None, int | None, int | None]
"""Codec, packets and octets from the caller, packets and octets from the callee."""


def _media(call: SourceCall) -> Media:
    return (call.codec, call.caller_packets, call.caller_octets, call.callee_packets, call.callee_octets)


def _media_rank(media: Media) -> tuple[object, ...]:
    """Order by packets of both sides; a codec and counters belong together, so they are never taken apart."""
    codec, *counters = media
    return ((counters[0] or 0) + (counters[2] or 0), codec != "", *(_sortable(each) for each in counters), codec)


def _turned_to(call: SourceCall, part: SourceCall) -> SourceCall:
    """Return ``part`` with its caller being the caller of ``call``.

    A tag that is not known fits any, but one that is the same says more. Raises FieldError where the tags are of
    another dialog.
    """
    straight = _alike((call.from_tag, part.from_tag), (call.to_tag, part.to_tag))
    crossed = _alike((call.from_tag, part.to_tag), (call.to_tag, part.from_tag))
    if straight is None and crossed is None:
        raise FieldError("another dialog of this Call-ID", where="from_tag, to_tag", expected="the tags of the call")
    if crossed is not None and (straight is None or crossed > straight):
        return replace(
            part,
            from_tag=part.to_tag,
            to_tag=part.from_tag,
            caller=part.callee,
            callee=part.caller,
            released_by=_RELEASES.get(part.released_by, part.released_by),
            caller_packets=part.callee_packets,
            caller_octets=part.callee_octets,
            callee_packets=part.caller_packets,
            callee_octets=part.caller_octets,
            qualities=tuple(_turned(quality) for quality in part.qualities),
        )
    return part


def _alike(*pairs: tuple[str, str]) -> int | None:
    """Return how many pairs of tags are the same, None where two known ones differ."""
    if any(one and other and one != other for one, other in pairs):
        return None
    return sum(one != "" and one == other for one, other in pairs)


def _turned(quality: SourceQuality) -> SourceQuality:
    return replace(quality, observer=_SIDES.get(quality.observer, quality.observer))


def _turned_like(turned: SourceCall, part: SourcePart) -> list[SourceQuality]:
    """Return the qualities of ``part``, turned if ``turned`` is its call turned."""
    if turned is part.call:
        return list(part.qualities)
    return [_turned(quality) for quality in part.qualities]


def _merge_field(name: str, first: object, last: object) -> object:
    if last in _UNKNOWN or first == last:
        return first
    if first in _UNKNOWN:
        return last
    # No values: they may be private, and errors are logged.
    raise FieldError("the parts of the call contradict each other", where=name, expected="the same in both")


def _checked_times(call: SourceCall) -> SourceCall:
    """Return ``call`` if its times are in order. Raises FieldError: a part is of another call, or a clock was set."""
    since_ms = call.answer_ms or call.setup_ms
    if call.answer_ms and call.answer_ms < call.setup_ms:
        raise FieldError(
            "before the call began", where="answer_ms", expected=f"at least {call.setup_ms}", actual=call.answer_ms
        )
    if call.end_ms < since_ms:
        raise FieldError("before the call began", where="end_ms", expected=f"at least {since_ms}", actual=call.end_ms)
    return call


def _check_join(expected: tuple[str, ...], actual: tuple[str, ...]) -> None:
    """Raise FieldError where two keys differ; a Call-ID is private, so neither is named."""
    if expected != actual:
        raise FieldError("of another call", where="join", expected="the key of the call")


def _union(*notes: tuple[str, ...]) -> tuple[str, ...]:
    """Return all notes in the order of their first occurrence."""
    return tuple(dict.fromkeys(note for some in notes for note in some))


def _as_json(text: str) -> msgspec.Raw:
    """Return a document for embedding: itself if it is JSON, else as a JSON string."""
    try:
        return msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(text))


def _documents_of(raw: str) -> _RawDocuments:
    """Return what is in a raw record: documents that were joined before, or the one it is."""
    try:
        return msgspec.json.decode(raw, type=_RawDocuments)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _RawDocuments(call=[_as_json(raw)])


def _raw_of_call(begin: str, end: str) -> tuple[str, bool]:
    """Return both documents as one, and whether the end's had to be left out."""
    text = msgspec.json.encode(_RawDocuments(call=[_as_json(begin), _as_json(end)]))
    return (begin, True) if len(text) > PRIVATE_TEXT_MAX else (text.decode(), False)


def _raw_with_reports(raw: str, added: list[str]) -> tuple[str, bool]:
    """Return a raw record with the reports added that there is room for, and whether some were left out.

    The shortest come first, up to the first that does not fit: what a second round would choose is then what one
    round with all of them chooses.
    """
    documents = _documents_of(raw)
    reports = {bytes(report) for report in documents.reports} | {bytes(_as_json(text)) for text in added}
    size = len(msgspec.json.encode(_RawDocuments(call=documents.call))) + len(',"reports":[]')
    kept: list[msgspec.Raw] = []
    for report in sorted(reports, key=lambda report: (len(report), report)):
        size += len(report) + 1
        if size > PRIVATE_TEXT_MAX:
            break
        kept.append(msgspec.Raw(report))
    if not kept:
        return raw, bool(reports)
    return msgspec.json.encode(_RawDocuments(call=documents.call, reports=kept)).decode(), len(kept) < len(reports)
