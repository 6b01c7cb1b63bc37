"""Adapter for Kamailio's accounting by transaction: ``acc_json`` lines of an INVITE or a BYE, one each.

A proxy without dialogs has no CDR. It has a line when an INVITE is answered, one when it fails, one for each BYE:

- an INVITE with 2xx begins a call (SourcePart BEGIN), answered at ``time``;
- a BYE ends it (SourcePart END), at ``time``, when it was answered;
- an INVITE that failed is a whole call.

Fields by acc: ``time`` (a number, ``acc_time_mode`` 0, 1 or 2), ``method, from_tag, to_tag, callid, sip_code,
sip_reason``. Fields by ``acc_extra``, all of them optional: ``from, to, src_ip, cseq, reason, setup_time``, named and
meant as those of the CDR. ``""`` is null, and so is ``NON-UTF8``. docs/kamailio.md has the configuration.

Pure: no I/O. Bad input raises EncodingError or FieldError, never anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ledger.cdr import ReleasedBy
from ledger.errors import FieldError
from telephony.adapters.base import U32_MAX, Kind, decimal_seconds_to_ms, split_json
from telephony.adapters.causes import q850_cause, released_by_code
from telephony.adapters.fields import Fields, check_options, decode_fields
from telephony.source import PartRole, Source, SourcePart, partial_call

NAME: Final = "kamailio-acc"
NOT_TEXT: Final = "NON-UTF8"

CHALLENGES: Final = frozenset({401, 407})
"""A BYE answered so comes again with credentials: it ended nothing."""


class KamailioAccAdapter:
    """Reads ``acc_json`` lines, one a transaction."""

    name: Final = NAME
    kind: Final = Kind.KAMAILIO_ACC
    media_types: Final = frozenset({"application/json"})

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the lines in a post: one object, or an array of them."""
        return split_json(body)

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> Source:
        """Return the part of a call, or the failed call, that one line tells of."""
        fields, raw = decode_fields(document)
        return parse_line(fields, raw)


def make_kamailio_acc(options: Mapping[str, Any]) -> KamailioAccAdapter:
    """Return the adapter, which has no options. Raises ConfigError for one."""
    check_options(NAME, options)
    return KamailioAccAdapter()


def parse_line(fields: Fields, raw: str) -> Source:
    """Return what one line says.

    Required are ``time``, ``method``, ``callid``, ``from_tag`` and ``sip_code``. Raises FieldError naming the field.
    """
    method, code = _known(fields.required("method")), fields.integer("sip_code", 100, 699)
    if code is None:
        raise FieldError("missing", where="sip_code", expected="100 to 699", actual="none")
    if method == "INVITE":
        return _invite(fields, code, raw)
    if method == "BYE":
        return _bye(fields, code, raw)
    raise FieldError("neither begins nor ends a call", where="method", expected="INVITE or BYE", actual=method)


def _invite(fields: Fields, code: int, raw: str) -> Source:
    if code < 200:
        raise FieldError("not final", where="sip_code", expected="200 to 699", actual=code, hint="set early_media to 0")
    answered = code < 300
    time_ms, step_ms = _time(fields)
    setup = _known(fields.text("setup_time"))
    # Its clock is the same, but it was read earlier; a proxy whose time was set back meanwhile must not lose the call.
    setup_ms = min(decimal_seconds_to_ms(setup, "setup_time"), time_ms) if setup else time_ms
    call = partial_call(
        NAME,
        fields.required("callid"),
        raw,
        from_tag=fields.required("from_tag"),
        to_tag=_known(fields.text("to_tag")),
        invite_cseq=fields.integer("cseq", 0, U32_MAX) or 0,
        caller=_known(fields.text("from")),
        callee=_known(fields.text("to")),
        source_address=_known(fields.text("src_ip")),
        setup_ms=setup_ms,
        answer_ms=time_ms if answered else 0,
        end_ms=0 if answered else time_ms,
        sip_code=code,
        q850_cause=0 if answered else q850_cause(fields.text("reason")),
        released_by=ReleasedBy.UNKNOWN if answered else released_by_code(code),
        time_step_ms=step_ms,
    )
    if not answered:
        return call
    return SourcePart(NAME, ("call-id", call.call_id), PartRole.BEGIN, call, (), None, raw)


def _bye(fields: Fields, code: int, raw: str) -> SourcePart:
    """Return the end: tags as in the BYE, whose sender is its caller here; joining turns it where it was the callee.

    Its URIs, address and CSeq are the BYE's, not the call's: they stay in ``raw``.
    """
    if code in CHALLENGES:
        raise FieldError(
            "a challenge ends no call",
            where="sip_code",
            expected="no 401 or 407",
            actual=code,
            hint="see failed_filter",
        )
    end_ms, step_ms = _time(fields)
    call = partial_call(
        NAME,
        fields.required("callid"),
        raw,
        from_tag=fields.required("from_tag"),
        to_tag=_known(fields.text("to_tag")),
        end_ms=end_ms,
        q850_cause=q850_cause(fields.text("reason")),
        released_by=ReleasedBy.CALLER,
        time_step_ms=step_ms,
    )
    return SourcePart(NAME, ("call-id", call.call_id), PartRole.END, call, (), None, raw)


def _time(fields: Fields) -> tuple[int, int]:
    """Return when the line was written in milliseconds, and how exact that is: whole numbers are whole seconds."""
    value = fields.value("time")
    # repr gives the shortest digits that stand for the same float: microseconds of this century survive.
    text = repr(value) if isinstance(value, float) else str(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        found = "none" if value in (None, "") else type(value).__name__
        raise FieldError("missing", where="time", expected="seconds since 1970; acc_time_mode 0, 1 or 2", actual=found)
    return decimal_seconds_to_ms(text, "time"), 1 if "." in text else 1000


def _known(text: str) -> str:
    return "" if text == NOT_TEXT else text
