"""Adapters for Asterisk: a row of ``Master.csv``, or a CDR as a JSON object, becomes a SourceCall.

Which columns a row has follows from their number, or is given with the option ``columns``; the meaning of each is in
docs/asterisk.md. Times are those of a wall clock, in the option ``timezone``. Asterisk knows no SIP response, only a
disposition, and no Call-ID unless the dialplan puts it into a column.

Quality comes where the dialplan puts Asterisk's own statistics into a column: ``key=value`` pairs between semicolons.
Asterisk's rx figures are what the far end reports of the stream sent to it, tx figures its own of the stream received;
in the summary of MES it is the other way round. docs/asterisk.md says where that is from.

Pure: no I/O, but for the time zone when made. Bad input raises EncodingError or FieldError, never anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final, NamedTuple

from ledger.cdr import Observer, QualityMethod, ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, FieldError
from telephony.adapters.base import COUNTER_MAX, U32_MAX, Kind
from telephony.adapters.causes import released_by_code
from telephony.adapters.clocks import choose_reading, read_moment, zone_of
from telephony.adapters.fields import Values, check_options, decode_object, scaled_of, text_of
from telephony.adapters.rows import read_row, split_json_lines, split_rows
from telephony.source import SourceCall, SourceQuality, SourceReading

COLUMNS: Final = (
    "accountcode",
    "src",
    "dst",
    "dcontext",
    "clid",
    "channel",
    "dstchannel",
    "lastapp",
    "lastdata",
    "start",
    "answer",
    "end",
    "duration",
    "billsec",
    "disposition",
    "amaflags",
)
"""What every row of Master.csv has; ``uniqueid``, ``userfield`` and NEW_COLUMNS follow where cdr.conf says so."""

NEW_COLUMNS: Final = ("peeraccount", "linkedid", "sequence")
COLUMNS_MAX: Final = 64

_CSV_OPTIONS: Final = frozenset({"timezone", "columns", "call_id_column", "quality_column"})
_JSON_OPTIONS: Final = _CSV_OPTIONS - {"columns"}

_OTHER_NAMES: Final[Mapping[str, str]] = {
    "source": "src",
    "destination": "dst",
    "destinationcontext": "dcontext",
    "callerid": "clid",
    "destinationchannel": "dstchannel",
    "lastapplication": "lastapp",
    "starttime": "start",
    "answertime": "answer",
    "endtime": "end",
    "billableseconds": "billsec",
}
"""Names that cdr_beanstalkd and the manager's event have for the same things."""

_SIP_AND_CAUSE: Final[Mapping[str, tuple[int, int]]] = {
    "ANSWERED": (200, 16),
    "NO ANSWER": (480, 19),
    "BUSY": (486, 17),
    "CONGESTION": (503, 34),
    "CANCEL": (487, 0),
    "FAILED": (0, 0),
    "UNKNOWN": (0, 0),
}
"""SIP response and Q.850 cause of a disposition; 0 where many would fit."""

_CODECS: Final[Mapping[str, str]] = {
    "ulaw": "PCMU",
    "alaw": "PCMA",
    "ilbc": "iLBC",
    "g726": "G726-32",
    "speex16": "speex",
}
"""RTP encoding names of Asterisk's formats, where they differ by more than capitals."""

MES_MIN_MILLI: Final = 20_000
MES_MAX_MILLI: Final = 100_000
JITTER_US_MAX: Final = 10_000_000
"""Older Asterisk gives jitter in samples, not seconds: beyond ten seconds it can be nothing else."""


class Settings(NamedTuple):
    """How an Asterisk writes its CDRs, from the agent's configuration."""

    zone: tzinfo
    """Of its clock."""
    columns: tuple[str, ...]
    """Empty: by their number."""
    call_id_column: str
    """Where the dialplan puts the SIP Call-ID."""
    quality_column: str
    """Where it puts the statistics."""


class AsteriskCsv:
    """Reads rows of Master.csv, or of cdr_custom."""

    name: Final = "asterisk"
    kind: Final = Kind.ASTERISK_CSV
    media_types: Final = frozenset({"text/csv", "text/plain"})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the rows in a post or a file; they always count as several."""
        return split_rows(body), True

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one row."""
        row, text = read_row(document)
        columns = self._settings.columns or columns_of(row)
        if len(row) != len(columns):
            expected = f"{len(columns)} columns, as configured"
            raise FieldError("another number of columns", where="cdr", expected=expected, actual=len(row))
        return _call(dict(zip(columns, row, strict=True)), text, self.name, self._settings)


class AsteriskJson:
    """Reads CDRs as JSON objects: of cdr_custom with ``format = json``, cdr_beanstalkd, or the manager's event."""

    name: Final = "asterisk-json"
    kind: Final = Kind.ASTERISK_JSON
    media_types: Final = frozenset({"application/json"})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the objects in a post or a file: one, an array of them, or one on each line."""
        return split_json_lines(body)

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises."""
        self.parse(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one object."""
        found = {_plain_name(name): value for name, value in decode_object(document).items()}
        return _call(found, text_of(document), self.name, self._settings)


def _plain_name(name: str) -> str:
    lower = name.lower()
    return _OTHER_NAMES.get(lower, lower)


def make_asterisk(options: Mapping[str, Any]) -> AsteriskCsv:
    """Return the adapter of Master.csv. Raises ConfigError naming the option."""
    return AsteriskCsv(_settings(options, AsteriskCsv.name, _CSV_OPTIONS))


def make_asterisk_json(options: Mapping[str, Any]) -> AsteriskJson:
    """Return the adapter of CDRs as JSON. Raises ConfigError naming the option."""
    return AsteriskJson(_settings(options, AsteriskJson.name, _JSON_OPTIONS))


def _settings(options: Mapping[str, Any], source: str, known: frozenset[str]) -> Settings:
    check_options(source, options, known)
    where = f"sources.{source}"
    columns = options.get("columns", [])
    is_list = isinstance(columns, Sequence) and not isinstance(columns, str)
    if not is_list or not all(isinstance(name, str) and name for name in columns) or len(columns) > COLUMNS_MAX:
        expected = f"up to {COLUMNS_MAX} names of columns"
        raise ConfigError("not names of columns", where=f"{where}.columns", expected=expected, actual=columns)
    names = tuple(_plain_name(name) for name in columns)
    if names and ("start" not in names or "end" not in names or len(set(names)) != len(names)):
        expected = "start, end and others, each once"
        raise ConfigError("columns lack something", where=f"{where}.columns", expected=expected, actual=columns)
    chosen = {}
    for option, default in (("call_id_column", "sip_call_id"), ("quality_column", "quality")):
        name = options.get(option, default)
        if not isinstance(name, str) or not name or (names and option in options and _plain_name(name) not in names):
            expected = "the name of a column"
            raise ConfigError("no such column", where=f"{where}.{option}", expected=expected, actual=name)
        chosen[option] = _plain_name(name)
    return Settings(zone_of(options.get("timezone", "UTC"), f"{where}.timezone"), names, **chosen)


def columns_of(row: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a row's columns, from their number: 16 to 21, as cdr.conf's switches give.

    17 or 20 may have ``uniqueid`` or ``userfield``: a unique id is digits and one point, perhaps after a system's name.
    """
    more = len(row) - len(COLUMNS)
    if not 0 <= more <= 5:
        raise FieldError("no row of Master.csv", where="cdr", expected="16 to 21 columns", actual=len(row))
    new = NEW_COLUMNS if more >= 3 else ()
    optional = more - len(new)
    if optional == 2:
        between: tuple[str, ...] = ("uniqueid", "userfield")
    elif optional == 1:
        last = row[len(COLUMNS)].rpartition("-")[2].partition(".")
        is_unique = last[0].isdigit() and last[2].isdigit()
        between = ("uniqueid",) if is_unique else ("userfield",)
    else:
        between = ()
    return COLUMNS + between + new


def _call(fields: Mapping[str, Any], raw: str, platform: str, settings: Settings) -> SourceCall:
    size = len(raw.encode("utf-8", "replace"))
    if size > PRIVATE_TEXT_MAX:
        expected = f"at most {PRIVATE_TEXT_MAX} bytes"
        raise FieldError("the CDR is too long", where="cdr", expected=expected, actual=size)
    notes: list[str] = []
    values = Values(fields, notes)
    disposition = values.text("disposition").upper()
    if disposition not in _SIP_AND_CAUSE:
        raise FieldError(
            "no such disposition", where="disposition", expected=", ".join(_SIP_AND_CAUSE), actual=disposition
        )
    setup_ms, answer_ms, end_ms, step_ms = _times(values, settings, disposition == "ANSWERED")
    sip_code, q850_cause = _SIP_AND_CAUSE[disposition]
    cause = values.integer("hangupcause", U32_MAX)
    statistics = _Statistics(values.text(settings.quality_column), notes)
    return SourceCall(
        call_id=values.text(settings.call_id_column) or _own_id(values),
        from_tag=values.text("sip_from_tag") or _row_id(values),
        to_tag=values.text("sip_to_tag"),
        invite_cseq=values.integer("sequence", U32_MAX) or 0,
        caller=values.text("src"),
        callee=values.text("dst"),
        source_address=values.text("src_ip"),
        setup_ms=setup_ms,
        answer_ms=answer_ms,
        end_ms=end_ms,
        sip_code=sip_code,
        q850_cause=cause if cause is not None and 0 < cause <= 127 else q850_cause,
        released_by=ReleasedBy.UNKNOWN if disposition == "NO ANSWER" or answer_ms else released_by_code(sip_code),
        codec=_CODECS.get(values.text("codec"), values.text("codec")),
        caller_packets=statistics.count("rxcount"),
        caller_octets=None,
        callee_packets=statistics.count("txcount"),
        callee_octets=None,
        qualities=statistics.qualities(),
        raw=raw,
        platform=platform,
        time_step_ms=step_ms,
        notes=tuple(notes),
    )


def _own_id(values: Values) -> str:
    """Return what Asterisk itself knows the call by: unique to the system, or at least to its channel and start."""
    unique = values.plain("uniqueid") or values.plain("linkedid")
    return unique or f"{values.required('channel')}@{values.required('start')}"


def _row_id(values: Values) -> str:
    """Return what tells the rows of one call apart: a call that is transferred, or dialled twice, has several."""
    return f"{values.plain('channel')}>{values.plain('dstchannel')}@{values.plain('start')}"


def _times(values: Values, settings: Settings, is_answered: bool) -> tuple[int, int, int, int]:
    """Return start, answer (0: none) and end in milliseconds, and how exact they are.

    Where the clock shows minutes only, duration and talk time in seconds are better: they are counted from the start.
    """
    duration_ms = values.scaled("duration", 3, U32_MAX * 1000)
    talk_ms = values.scaled("billsec", 3, U32_MAX * 1000)
    start = read_moment(values.required("start"), settings.zone, "start")
    end = read_moment(values.required("end"), settings.zone, "end")
    answer_text = values.text("answer")
    if not answer_text.strip("0.:- "):
        # As seconds since 1970, or from a database, the time that never was is all zeros.
        answer_text = ""
    answer = read_moment(answer_text, settings.zone, "answer") if answer_text and is_answered else None
    if answer_text and not is_answered:
        values.notes.append("an answer time, but the disposition says that nobody answered: left out")
    spans = duration_ms, talk_ms if answer else None
    (start_ms, answer_ms, end_ms), is_guess = choose_reading(
        start.times_ms, answer.times_ms if answer else (), end.times_ms, spans, 1, "end"
    )
    if is_guess:
        values.notes.append("the hour came twice as summer time ended, and the durations do not tell: the first taken")
    step_ms = max(start.step_ms, end.step_ms, answer.step_ms if answer else 1)
    if is_answered and not answer:
        if talk_ms is None or talk_ms > end_ms - start_ms:
            raise FieldError("missing", where="answer", expected="a time, or billsec within the call", actual="none")
        answer_ms = end_ms - talk_ms
        values.notes.append("answered without an answer time: the talk time counted back from the end")
    if step_ms > 1000 and duration_ms is not None and abs(end_ms - start_ms - duration_ms) <= step_ms:
        end_ms = start_ms + duration_ms
        if answer_ms:
            answer_ms = end_ms - talk_ms if talk_ms is not None and talk_ms <= duration_ms else start_ms
    return start_ms, answer_ms, end_ms, step_ms


class _Statistics:
    """Asterisk's statistics of one channel's media; unknown keys are ignored, figures that are none left out."""

    def __init__(self, text: str, notes: list[str]) -> None:
        pairs = (pair.partition("=") for pair in text.split(";"))
        self._figures = {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
        self._notes = notes
        if scaled_of(text.strip(), 3) is not None:
            self._figures["rxmes"] = text.strip()

    def figure(self, name: str, places: int, most: int) -> int | None:
        """Return a figure, scaled; None where it is missing, or left out with a note."""
        text = self._figures.get(name, "")
        found = scaled_of(text, places)
        if text and (found is None or not 0 <= found <= most):
            self._notes.append(f"{name} is no number in its bounds and is left out")
            return None
        return found

    def count(self, name: str) -> int | None:
        """Return a number of packets."""
        return self.figure(name, 0, COUNTER_MAX)

    def mos_milli(self, name: str) -> int | None:
        """Return a Media Experience Score, 20 times a MOS, as MOS x 1000; None where it is 0: not computed."""
        mes_milli = self.figure(name, 3, MES_MAX_MILLI)
        if mes_milli is not None and 0 < mes_milli < MES_MIN_MILLI:
            self._notes.append(f"{name} is no number in its bounds and is left out")
            return None
        return (mes_milli + 10) // 20 if mes_milli else None

    def qualities(self) -> tuple[SourceQuality, ...]:
        """Return what the caller heard, which the far end reports, and what came from the caller for the callee."""
        heard = (
            (Observer.CALLER, "rxmes", "tx", "rxjitter", "rlp", "txcount"),
            (Observer.CALLEE, "txmes", "rx", "txjitter", "lp", "rxcount"),
        )
        found = (self._quality(*names) for names in heard)
        return tuple(quality for quality in found if quality is not None)

    def _quality(
        self, observer: Observer, last: str, way: str, jitter: str, lost: str, count: str
    ) -> SourceQuality | None:
        """Return one direction; ``last`` is the score as it stood at the end, ``avg{way}mes`` the mean."""
        mean = self.mos_milli(f"avg{way}mes") or self.mos_milli(last)
        if mean is None:
            return None
        least, most = self.mos_milli(f"min{way}mes"), self.mos_milli(f"max{way}mes")
        is_ordered = least is not None and most is not None and least <= mean <= most
        return SourceQuality(
            observer=observer,
            samples=1,
            average=SourceReading(
                mos_milli=mean,
                rtt_us=self.figure("rtt", 6, U32_MAX),
                jitter_us=self.figure(jitter, 6, JITTER_US_MAX),
                loss_ppm=self._loss_ppm(lost, count, is_received=way == "rx"),
                at_ms=None,
            ),
            lowest=SourceReading(least, None, None, None, None) if least is not None and is_ordered else None,
            highest=SourceReading(most, None, None, None, None) if most is not None and is_ordered else None,
            method=QualityMethod.MEASURED,
        )

    def _loss_ppm(self, lost_name: str, count_name: str, *, is_received: bool) -> int | None:
        """Return packets lost of those expected: those received and lost, or, of the far end, those sent."""
        lost, count = self.figure(lost_name, 0, U32_MAX), self.count(count_name)
        if lost is None or count is None:
            return None
        expected = count + lost if is_received else count
        return min(1_000_000, (lost * 1_000_000 + expected // 2) // expected) if expected else None
