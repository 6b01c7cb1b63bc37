"""The Asterisk adapters, on rows and objects laid out as its modules do and on ones that nobody should write."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import MosKind, Observer, QualityMethod, ReleasedBy
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.asterisk import COLUMNS, NEW_COLUMNS, columns_of, make_asterisk, make_asterisk_json
from telephony.adapters.base import DOCUMENTS_PER_BODY_MAX
from telephony.adapters.clocks import choose_reading, read_moment
from telephony.adapters.registry import Adapters
from telephony.adapters.rows import split_rows
from telephony.source import SourceCall, SourceReading
from tests.telephony.adapters.fuzzing import ALMOST, ENDINGS, JSON_VALUES, damaged, outcome, outcomes

FIXTURES = Path(__file__).parents[1] / "fixtures" / "asterisk"
MASTER = (FIXTURES / "Master.csv").read_bytes()
CUSTOM = (FIXTURES / "cdr_custom.csv").read_bytes()
LINES = (FIXTURES / "cdr.jsonl").read_bytes()
CUSTOM_COLUMNS = [
    *("clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer", "end"),
    *("duration", "billsec", "disposition", "amaflags", "accountcode", "uniqueid", "userfield", "sequence"),
    *("sip_call_id", "sip_from_tag", "sip_to_tag", "hangupcause", "codec", "quality"),
]
CSV = make_asterisk({})
CUSTOM_CSV = make_asterisk({"columns": CUSTOM_COLUMNS})
JSON = make_asterisk_json({})
EVERY_COLUMN = (*COLUMNS, "uniqueid", "userfield", *NEW_COLUMNS)


def calls(body: bytes, adapter=CSV) -> list[SourceCall]:
    """Return the calls in a file."""
    return [adapter.parse(document) for document in adapter.split(body, "")[0]]


def row(adapter=CSV, columns: int = 21, **changes: str) -> SourceCall:
    """Return the call of the first row of Master.csv, cut to so many columns and with some changed."""
    return adapter.parse(row_bytes(columns, **changes))


def row_bytes(columns: int = 21, **changes: str) -> bytes:
    (values,) = csv.reader(io.StringIO(split_rows(MASTER)[0].decode(), newline=""))
    merged = {**dict(zip(EVERY_COLUMN, values, strict=True)), **changes}
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(list(merged.values())[:columns])
    return text.getvalue().encode()


def test_master_csv():
    """Every column of an answered call lands where it belongs."""
    call = calls(MASTER)[0]
    assert (call.call_id, call.invite_cseq) == ("pbx1-1795264200.26", 41)
    assert call.from_tag == "PJSIP/carrier-a-0000001a>PJSIP/carrier-b-0000001b@2026-11-21 12:30:00"
    assert (call.caller, call.callee) == ("+442071838750", "+4930901820")
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795264200000, 1795264206000, 1795264271000)
    assert (call.sip_code, call.q850_cause, call.released_by) == (200, 16, ReleasedBy.UNKNOWN)
    assert (call.platform, call.time_step_ms, call.leg, call.qualities) == ("asterisk", 1000, None, ())
    assert call.raw.encode() == MASTER.splitlines()[0]


def test_rows_of_one_call_are_records_of_their_own():
    """Nobody answers and voicemail takes over: one unique id, two rows, two records."""
    rang, voicemail = calls(MASTER)[1:3]
    assert rang.call_id == voicemail.call_id
    assert (rang.from_tag, rang.invite_cseq) != (voicemail.from_tag, voicemail.invite_cseq)
    assert (rang.answer_ms, voicemail.answer_ms) == (0, voicemail.setup_ms)


@pytest.mark.parametrize(
    ("disposition", "code", "cause", "released_by"),
    [
        ("NO ANSWER", 480, 19, ReleasedBy.UNKNOWN),
        ("BUSY", 486, 17, ReleasedBy.CALLEE),
        ("FAILED", 0, 0, ReleasedBy.UNKNOWN),
        ("CONGESTION", 503, 34, ReleasedBy.NETWORK),
        ("CANCEL", 487, 0, ReleasedBy.CALLER),
    ],
)
def test_dispositions(disposition, code, cause, released_by):
    call = row(disposition=disposition, answer="", billsec="0")
    assert (call.sip_code, call.q850_cause, call.released_by) == (code, cause, released_by)
    assert (call.answer_ms, call.notes) == (0, ())


def test_row_over_several_lines_and_over_midnight():
    """A quoted value may have line ends and commas; the last call begins before midnight and ends after."""
    call = calls(MASTER)[5]
    assert "first line\nsecond line" in call.raw
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795305598000, 1795305601000, 1795305609000)
    assert call.end_ms - call.setup_ms == 11_000


def test_line_ends_and_mark_of_other_systems():
    """CRLF, a byte order mark and empty lines change nothing."""
    rows = split_rows(MASTER)
    assert len(rows) == 6
    assert split_rows(b"\xef\xbb\xbf\r\n" + MASTER.replace(b"\n", b"\r\n") + b"\r\n\r\n") == rows


def test_lost_quote_costs_its_own_row_only():
    """A row whose quotes never come out even is one bad row; the rows after it are as good as before."""
    broken = MASTER.replace(b'"carrier-a"', b'"carrier-a', 1)
    assert outcomes(CSV, broken * 20) == ["EncodingError", *["SourceCall"] * 5] * 20
    alone = outcomes(CSV, b'"cut off\n' + split_rows(MASTER)[0])
    assert alone == ["EncodingError", "SourceCall"]


@pytest.mark.parametrize(
    ("columns", "optional"),
    [
        (16, ()),
        (18, ("uniqueid", "userfield")),
        (21, ("uniqueid", "userfield", *NEW_COLUMNS)),
    ],
)
def test_columns_by_their_number(columns, optional):
    assert columns_of(["x"] * columns) == (*COLUMNS, *optional)


@pytest.mark.parametrize(
    ("value", "name"),
    [("1795264200.26", "uniqueid"), ("pbx-1-1795264200.26", "uniqueid"), ("gold", "userfield"), ("", "userfield")],
)
def test_one_optional_column(value, name):
    """With one of the two switched on, the value tells which it is."""
    assert columns_of([*COLUMNS, value]) == (*COLUMNS, name)
    assert columns_of([*COLUMNS, value, "", "x", "7"]) == (*COLUMNS, name, *NEW_COLUMNS)


@pytest.mark.parametrize("columns", [1, 15, 22])
def test_no_row_of_master_csv(columns):
    with pytest.raises(FieldError, match="16 to 21 columns"):
        columns_of(["x"] * columns)


def test_row_without_any_id():
    """Channel and start identify it: Asterisk gives no two channels one name in a second."""
    call = row(columns=16)
    assert call.call_id == "PJSIP/carrier-a-0000001a@2026-11-21 12:30:00"


def test_custom_columns_with_statistics():
    """The SIP identity, the cause, the codec and both directions' scores, from a row of cdr_custom."""
    (call,) = calls(CUSTOM, CUSTOM_CSV)
    assert (call.call_id, call.from_tag, call.to_tag) == ("a84b4c76e66710@192.0.2.17", "1928301774", "as4f2b6c11")
    assert (call.codec, call.q850_cause, call.caller_packets, call.callee_packets) == ("PCMA", 16, 3219, 3270)
    caller, callee = call.qualities
    assert (caller.observer, caller.method, caller.kind) == (Observer.CALLER, QualityMethod.MEASURED, MosKind.CQ)
    # What the far end reports of the 3270 packets sent to it: 12 lost, jitter 4.125 ms, mean score 86 of 100.
    assert caller.average == SourceReading(4300, 81_250, 4125, 3670, None)
    assert (caller.lowest, caller.highest) == (
        SourceReading(3100, None, None, None, None),
        SourceReading(4380, None, None, None, None),
    )
    # What Asterisk received from the caller: 31 lost of 3250, jitter 2.25 ms.
    assert callee.observer == Observer.CALLEE
    assert callee.average == SourceReading(4355, 81_250, 2250, 9538, None)
    assert call.notes == ()


def test_statistics_in_the_user_field():
    adapter = make_asterisk({"quality_column": "userfield"})
    call = row(adapter, userfield="ssrc=1;lp=0;rxcount=100;rxmes=80.0;txmes=0.000000")
    assert [(quality.observer, quality.average.mos_milli) for quality in call.qualities] == [(Observer.CALLER, 4000)]
    assert row(adapter, userfield="87.3").qualities[0].average.mos_milli == 4365
    assert row(adapter, userfield="gold customer").qualities == ()
    assert row(userfield="rxmes=80.0").qualities == ()


@pytest.mark.parametrize(
    ("statistics", "name"), [("rxmes=7.5", "rxmes"), ("rxmes=101", "rxmes"), ("rxmes=80;rxjitter=160.5", "rxjitter")]
)
def test_bad_statistics_cost_no_call(statistics, name):
    call = row(make_asterisk({"quality_column": "userfield"}), userfield=statistics)
    assert call.notes == (f"{name} is no number in its bounds and is left out",)


def test_json_of_cdr_custom_and_of_beanstalk():
    """Names in either fashion; times as seconds with decimals, or as text."""
    exact, rang = calls(LINES, JSON)
    assert (exact.setup_ms, exact.answer_ms, exact.end_ms) == (1795264200031, 1795264206487, 1795264271902)
    assert (exact.call_id, exact.invite_cseq, exact.time_step_ms) == ("1795264200.26", 41, 1)
    assert (rang.call_id, rang.caller, rang.callee) == ("1795264500.28", "1001", "1002")
    assert (rang.setup_ms, rang.answer_ms, rang.end_ms) == (1795264500000, 0, 1795264530000)
    assert (rang.sip_code, rang.platform, rang.time_step_ms) == (480, "asterisk-json", 1000)


def test_line_that_is_no_json_is_refused_alone():
    """A line cut off by a crash costs itself; the good ones before and after it stay."""
    first, second = LINES.splitlines()
    assert outcomes(JSON, first + b"\n" + second[:40] + b"\n\n" + second) == [
        "SourceCall",
        "EncodingError",
        "SourceCall",
    ]
    pretty = json.dumps(json.loads(first), indent=2).encode()
    assert JSON.split(pretty, "") == ([pretty], False)
    assert JSON.split(b"[" + first + b",\n" + second + b"]", "") == ([first, second], True)


def json_call(**changes: object) -> SourceCall:
    cdr = {**json.loads(LINES.splitlines()[1]), **changes}
    return JSON.parse(json.dumps(cdr).encode())


@pytest.mark.parametrize("answer", [None, "", 0, "0.000000", "0000-00-00 00:00:00"])
def test_answer_that_never_was(answer):
    """Null in every spelling."""
    assert json_call(AnswerTime=answer).answer_ms == 0


def test_answer_from_the_talk_time():
    """A row that lacks the answer is not lost: the talk time counts back from the end, and a note says so."""
    call = json_call(Disposition="ANSWERED", Billsec=8)
    assert (call.answer_ms, call.end_ms) == (1795264522000, 1795264530000)
    assert call.notes == ("answered without an answer time: the talk time counted back from the end",)


def test_answer_time_of_a_call_nobody_answered():
    call = json_call(AnswerTime="2026-11-21 12:35:10")
    assert (call.answer_ms, len(call.notes)) == (0, 1)


def test_text_that_is_not_utf8():
    """A caller's name in Latin-1 costs the name, not the call."""
    spoilt = MASTER.replace("Müller".encode(), b"M\xfcller").replace(b"+4930901820", b"\xfcber")
    call = calls(spoilt)[0]
    assert (call.caller, call.callee) == ("+442071838750", "")
    assert call.notes == ("dst was not UTF-8 and is left out",)
    assert "M\ufffdller" in call.raw
    assert calls(LINES.replace(b"Alice", b"Al\xefce"), JSON)[0].caller == "+442071838750"


VIENNA = {"timezone": "Europe/Vienna"}


def test_time_zone():
    """12:30 in Vienna in November is 11:30 UTC."""
    assert row(make_asterisk(VIENNA)).setup_ms == 1795264200000 - 3_600_000
    assert row(start="2026-11-21T13:30:00+01:00").setup_ms == 1795264200000
    assert row(start="2026-11-21 12:30:00Z").setup_ms == 1795264200000


# On 25 October 2026 clocks in Vienna went from 3:00 back to 2:00: 2:30 is 00:30 and 01:30 UTC.
FIRST_0230_MS = 1792888200000


@pytest.mark.parametrize(
    ("start", "answer", "end", "duration", "billsec", "setup_ms", "end_ms"),
    [
        ("01:59:50", "01:59:55", "02:10:00", 610, 605, FIRST_0230_MS - 1_810_000, FIRST_0230_MS - 1_200_000),
        ("01:59:50", "01:59:55", "02:10:00", 4210, 4205, FIRST_0230_MS - 1_810_000, FIRST_0230_MS + 2_400_000),
        ("02:50:00", "02:50:05", "03:10:00", 1200, 1195, FIRST_0230_MS + 4_800_000, FIRST_0230_MS + 6_000_000),
        ("02:50:00", "02:50:05", "03:10:00", 4800, 4795, FIRST_0230_MS + 1_200_000, FIRST_0230_MS + 6_000_000),
        ("02:50:00", "02:50:05", "02:10:00", 1200, 1195, FIRST_0230_MS + 1_200_000, FIRST_0230_MS + 2_400_000),
    ],
)
def test_hour_that_comes_twice(start, answer, end, duration, billsec, setup_ms, end_ms):
    """Whether a time is the first or the second of its name follows from the durations."""
    day = "2026-10-25 "
    call = row(
        make_asterisk(VIENNA),
        start=day + start,
        answer=day + answer,
        end=day + end,
        duration=str(duration),
        billsec=str(billsec),
    )
    assert (call.setup_ms, call.end_ms, call.end_ms - call.answer_ms) == (setup_ms, end_ms, billsec * 1000)
    assert call.notes == ()


def test_hour_that_comes_twice_where_nothing_tells():
    """A call wholly within it: the first is taken, and a note says so."""
    day = "2026-10-25 02:30:"
    call = row(make_asterisk(VIENNA), start=day + "00", answer=day + "05", end=day + "20", duration="20", billsec="15")
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (
        FIRST_0230_MS,
        FIRST_0230_MS + 5000,
        FIRST_0230_MS + 20_000,
    )
    assert call.notes == ("the hour came twice as summer time ended, and the durations do not tell: the first taken",)


def test_hour_that_is_skipped():
    """2:30 on 29 March is on no clock in Vienna: the zone is not the platform's, and no time is guessed."""
    with pytest.raises(FieldError, match="timezone is not the platform's") as caught:
        row(make_asterisk(VIENNA), start="2026-03-29 02:30:00")
    assert caught.value.where == "start"


def test_clock_that_shows_minutes():
    """The durations are better than the times, and the record says how exact it is."""
    call = row(start="2026-11-21 12:30", answer="2026-11-21 12:30", end="2026-11-21 12:31", duration="71", billsec="65")
    assert (call.setup_ms, call.answer_ms, call.end_ms) == (1795264200000, 1795264206000, 1795264271000)
    assert call.time_step_ms == 60_000
    short = row(start="2026-11-21 12:30", answer="", end="2026-11-21 12:30", duration="5", disposition="BUSY")
    assert (short.end_ms - short.setup_ms, short.answer_ms, short.time_step_ms) == (5000, 0, 60_000)


@given(st.integers(0, 4_102_444_799), st.sampled_from(["UTC", "Europe/Vienna", "America/St_Johns", "Asia/Kolkata"]))
def test_every_second_is_among_the_readings_of_its_clock(time_s, zone):
    """Whatever the zone, what its clock shows is read as that second, or as one of two."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    shown = datetime.fromtimestamp(time_s, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")
    if shown[:4] in ("1969", "2100"):
        return
    moment = read_moment(shown, ZoneInfo(zone), "start")
    assert time_s * 1000 in moment.times_ms
    assert (len(moment.times_ms), moment.step_ms) in {(1, 1000), (2, 1000)}


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01 00:00:00", "2026-02-30 00:00:00", "2026-11-21", "1969-12-31 23:59:59",
     "2100-01-01 00:00:00", "2026-11-21 24:00:00", "2026-11-21 12:30:60", "\u0662026-11-21 12:30:00", "12:30:00",
     "2026-11-21 12:30:00+99:99", "9999999999"],
)  # fmt: skip
def test_no_time(text):
    with pytest.raises(FieldError) as caught:
        read_moment(text, UTC, "answer")
    assert caught.value.where == "answer"


def test_times_out_of_order():
    one, two = [1000], [2000]
    assert choose_reading(one, [], two, (None, None), 1) == ((1000, 0, 2000), False)
    assert choose_reading(one, two, two, (99, 99), 1) == ((1000, 2000, 2000), False)
    for start, answer, end in ((two, [], one), (one, two, one), (two, one, two)):
        with pytest.raises(FieldError, match="out of order"):
            choose_reading(start, answer, end, (None, None), 1)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"start": ""}, "start"),
        ({"end": ""}, "end"),
        ({"end": "2026-11-21 12:29:59"}, "end"),
        ({"disposition": "MAYBE"}, "disposition"),
        ({"answer": "", "billsec": "999"}, "answer"),
        ({"duration": "-1"}, "duration"),
        ({"sequence": "x"}, "sequence"),
        ({"userfield": "x" * 65_600}, "cdr"),
    ],
)
def test_field_refused(changes, where):
    with pytest.raises(FieldError) as caught:
        row(**changes)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"zone": "UTC"}, "sources.asterisk.zone"),
        ({"timezone": "Mars/Base"}, "sources.asterisk.timezone"),
        ({"timezone": "../../etc/passwd"}, "sources.asterisk.timezone"),
        ({"timezone": 7}, "sources.asterisk.timezone"),
        ({"columns": "start,end"}, "sources.asterisk.columns"),
        ({"columns": ["start", "end", 3]}, "sources.asterisk.columns"),
        ({"columns": ["start", "end", "end"]}, "sources.asterisk.columns"),
        ({"columns": ["start"]}, "sources.asterisk.columns"),
        ({"columns": ["start", "end"], "quality_column": "mes"}, "sources.asterisk.quality_column"),
        ({"call_id_column": ""}, "sources.asterisk.call_id_column"),
    ],
)
def test_option_refused(options, where):
    with pytest.raises(ConfigError) as caught:
        Adapters({"asterisk": options})
    assert caught.value.where == where


def test_json_has_no_columns():
    with pytest.raises(ConfigError):
        make_asterisk_json({"columns": ["start", "end"]})


@pytest.mark.parametrize(
    "body", [b"", b"\n\n", b"[]", b"{", b'{"a":1}\n{' * (DOCUMENTS_PER_BODY_MAX + 1), b"\n".join([b"x"] * 1001)]
)
def test_body_refused(body):
    with pytest.raises(EncodingError):
        JSON.split(body, "")
    if not body.startswith((b"[", b"{")):
        with pytest.raises(EncodingError):
            CSV.split(body, "")


ROWS = split_rows(MASTER)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_crash(body):
    """No bytes are a CDR by chance, and none raise anything but an EncodingError."""
    found = {outcome(CSV, body), outcome(JSON, body), *outcomes(CSV, body), *outcomes(JSON, body)}
    assert found <= {"EncodingError", "FieldError"}


@given(damaged([MASTER, CUSTOM, LINES, *ROWS]))
def test_damaged_files_never_crash(body):
    adapters = (CSV, CUSTOM_CSV, JSON, make_asterisk(VIENNA))
    assert {ending for adapter in adapters for ending in outcomes(adapter, body)} <= ENDINGS


@given(st.dictionaries(st.sampled_from(EVERY_COLUMN), ALMOST, max_size=5))
def test_changed_columns_never_crash(changes):
    assert outcome(make_asterisk({"quality_column": "userfield"}), row_bytes(**changes)) in ENDINGS


@given(st.dictionaries(st.sampled_from(sorted(json.loads(LINES.splitlines()[1]))), JSON_VALUES, max_size=5))
def test_changed_members_never_crash(changes):
    cdr = {**json.loads(LINES.splitlines()[1]), **changes}
    assert outcome(JSON, json.dumps(cdr).encode()) in ENDINGS
