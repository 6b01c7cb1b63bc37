"""Mapped CDRs: mappings that ship and mappings somebody wrote, on rows as PBXes write them and on damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Band, Leg, MosKind, Observer, QualityMethod, ReleasedBy, Service
from ledger.errors import ConfigError, EncodingError, FieldError, LedgerError
from telephony.adapters.base import Kind
from telephony.adapters.cucm import CucmCdrAdapter
from telephony.adapters.mapped import SKIPPED, MappedAdapter, MappedSources, make_mapped, read_mapping
from telephony.adapters.mapping import parse_mapping, preset_names
from telephony.adapters.registry import Adapters
from telephony.source import SourceQuality, SourceReading
from tests.telephony.adapters.fuzzing import outcomes

FIXTURES = Path(__file__).parents[1] / "fixtures"
ASTERISK_FILE = (FIXTURES / "mapped" / "Master.csv").read_bytes()
THREE_CX_FILE = (FIXTURES / "mapped" / "3cx-cdr.log").read_bytes()
CUCM_FILE = (FIXTURES / "cucm" / "cdr_StandAloneCluster_01_202611211506_17").read_bytes()

SMALL = """
[call]
call_id = "id"
setup = { column = "start", time = "epoch" }
duration = "secs"
"""


def preset(name: str, timezone: str | None = None) -> MappedAdapter:
    return MappedAdapter(read_mapping("pbx", None, name, timezone))


def mapped(text: str) -> MappedAdapter:
    return MappedAdapter(parse_mapping("pbx", text, "pbx.toml"))


def calls(adapter: MappedAdapter, body: bytes):
    return [adapter.parse(row) for row in adapter.split(body, "text/csv")[0]]


def small(**row: object):
    """Return the call of one row under SMALL and what ``more`` adds to it."""
    more = row.pop("more", "")
    adapter = mapped(f'format = "json"\n{SMALL}{more}')
    return adapter.parse(json.dumps(["pbx", {"id": "c", "start": "10", "secs": "5", **row}]).encode())


def test_presets_are_the_ones_documented():
    assert preset_names() == ["3cx", "asterisk", "cucm"]


def test_asterisk():
    """Master.csv in Vienna: answered, unanswered, and a row without the optional columns, over midnight."""
    answered, silent, busy = calls(preset("asterisk", "Europe/Vienna"), ASTERISK_FILE)
    assert (answered.call_id, answered.from_tag) == ("1795251911.5212", "2026-11-21 09:05:11/3101")
    assert (answered.caller, answered.callee) == ("+442071838750", "+12025550123")
    assert (answered.setup_ms, answered.answer_ms, answered.end_ms) == (1795248311000, 1795248319000, 1795248460000)
    assert (answered.sip_code, answered.q850_cause, answered.platform) == (200, 16, "pbx")
    assert (silent.answer_ms, silent.sip_code, silent.q850_cause) == (0, 480, 19)
    assert (busy.call_id, busy.sip_code, busy.end_ms - busy.setup_ms) == ("PJSIP/1002-00000a22", 486, 12_000)
    assert json.loads(answered.raw)["clid"] == '"Alice" <+442071838750>'


def test_3cx():
    """A transferred call, one with a quote in a name, which 3CX does not escape, and one nobody answered."""
    transferred, quoted, silent = calls(preset("3cx"), THREE_CX_FILE)
    assert (transferred.call_id, transferred.from_tag) == ("00000C21DE5C2470_6531", "Call 612504")
    assert (transferred.caller, transferred.callee) == ("+353861777149", "Ext.504")
    assert (transferred.sip_code, transferred.released_by) == (200, ReleasedBy.CALLER)
    assert transferred.end_ms - transferred.answer_ms == 337_000
    assert (quoted.answer_ms - quoted.setup_ms, quoted.released_by) == (3000, ReleasedBy.CALLEE)
    assert json.loads(quoted.raw)["from-dispname"] == '"Marcel" Cruz'
    assert (silent.answer_ms, silent.sip_code, silent.released_by) == (0, 487, ReleasedBy.CALLER)


def test_cucm_agrees_with_the_adapter_on_what_identifies_and_times():
    """Whoever changes over from the preset to the adapter reports no call a second time."""
    ours, theirs = (
        calls(preset("cucm"), CUCM_FILE),
        [CucmCdrAdapter().parse(row) for row in CucmCdrAdapter().split(CUCM_FILE, "text/csv")[0]],
    )
    facts = [
        [(c.call_id, c.from_tag, c.to_tag, c.caller, c.callee, c.setup_ms, c.answer_ms, c.end_ms) for c in found]
        for found in (ours, theirs)
    ]
    assert facts[0] == facts[1]


def test_texts_numbers_choices():
    """Paths, joined and alternative columns, constants, maps with defaults and words kept."""
    more = """
    from_tag = { column = ["a.0", "a.1"], join = "/" }
    caller = { column = ["from.uri", "from.number"] }
    callee = { column = "to", null = ["anonymous"], default = "unknown" }
    codec = { column = "codec", map = { "8" = "PCMA" }, keep = true }
    leg = { constant = "terminating" }
    service = { column = "kind", map = { "conf" = "conference" }, default = "voice" }
    released_by = { column = "by" }
    sip_code = { column = "code" }
    caller_octets = "bytes"
    """
    row = {"a": ["x", 7], "from": {"uri": "", "number": 17}, "to": "anonymous", "codec": 8, "kind": "CONF"}
    call = small(**row, by="Callee", code=486, bytes=1000, more=more)
    assert (call.from_tag, call.caller, call.callee, call.codec) == ("x/7", "17", "unknown", "PCMA")
    assert (call.leg, call.service, call.released_by) == (Leg.TERMINATING, Service.CONFERENCE, ReleasedBy.CALLEE)
    assert (call.sip_code, call.caller_octets, call.caller_packets) == (486, 1000, None)
    assert small(codec="opus", kind=True, more=more).service is Service.VOICE
    assert small(codec="opus", more=more).codec == "opus"


def test_times_of_every_form():
    forms = {
        "epoch": "1795231128.494",
        "epoch-ms": 1795231128494,
        "epoch-us": "1795231128494999",
        "iso": "2026-11-21T03:18:48.494Z",
        "%d.%m.%y %H:%M:%S,%f %z": "21.11.26 06:18:48,494 +0300",
    }
    for form, value in forms.items():
        text = f'format = "json"\n[call]\ncall_id = "i"\nsetup = {{ column = "s", time = "{form}" }}\nduration = "d"'
        row = {"i": "1", "s": value, "d": 1}
        assert mapped(text).parse(json.dumps(["pbx", row]).encode()).setup_ms == 1795231128494, form


@pytest.mark.parametrize(
    ("unit", "value", "span_ms"),
    [
        ("s", "2.5", 2500),
        ("ms", "250", 250),
        ("us", "2999", 2),
        ("min", "1.5", 90_000),
        ("h:m:s", "1:02:03", 3_723_000),
        ("h:m:s", "2:03", 123_000),
    ],
)
def test_spans_of_every_unit(unit, value, span_ms):
    text = 'format = "json"\n[call]\ncall_id = "i"\nsetup = { column = "s", time = "epoch" }\n'
    adapter = mapped(text + f'duration = {{ column = "d", unit = "{unit}" }}')
    call = adapter.parse(json.dumps(["pbx", {"i": "1", "s": 10, "d": value}]).encode())
    assert call.end_ms - call.setup_ms == span_ms


def test_date_and_time_of_day_apart_in_minutes():
    """A PBX with one date, times of day in minutes, over midnight and the hour that comes twice."""
    adapter = mapped("""
    delimiter = ";"
    timezone = "Europe/Vienna"
    time_step_ms = 60000
    [call]
    call_id = { column = ["Date", "Begin", "Line"], join = " " }
    setup = { column = ["Date", "Begin"], join = " ", time = "%d.%m.%Y %H:%M" }
    end = { column = ["Date", "End"], join = " ", time = "%d.%m.%Y %H:%M", next_day = true }
    """)
    body = (
        b"Date;Begin;End;Line\r\n24.10.2026;23:58;00:03;1\r\n25.10.2026;02:55;02:05;1\r\n29.03.2026;02:30;03:45;2\r\n"
    )
    midnight, fold, gap = calls(adapter, body)
    assert [c.end_ms - c.setup_ms for c in (midnight, fold, gap)] == [300_000, 600_000, 900_000]
    assert (midnight.time_step_ms, fold.notes, gap.notes) == (60_000, (), (SKIPPED,))


def test_quality():
    """Scores of another scale, delays and loss in their units, a null word of its own, a decimal comma."""
    more = """
    [[quality]]
    observer = "callee"
    kind = "lq"
    band = "wideband"
    mos = { column = "mes", scale = 20, null = ["0"] }
    mos_min = "low"
    rtt = { column = "rtt", unit = "s" }
    jitter = "jit"
    loss = { column = "loss", unit = "n/256" }
    r = "r"
    packets_lost = "lost"
    """
    row = {"mes": "87,5", "low": "3,2", "rtt": "0,12", "jit": 7, "loss": 64, "r": "88,1", "lost": 3}
    adapter = mapped(f'format = "json"\ndecimal_comma = true\n{SMALL}{more}')
    call = adapter.parse(json.dumps(["pbx", {"id": "c", "start": "10", "secs": "5", **row}]).encode())
    assert call.qualities == (
        SourceQuality(
            Observer.CALLEE,
            1,
            SourceReading(4375, 120_000, 7000, 250_000, None),
            SourceReading(3200, None, None, None, None),
            None,
            method=QualityMethod.MEASURED,
            band=Band.WIDEBAND,
            kind=MosKind.LQ,
            r_milli=88_100,
            packets_lost=3,
        ),
    )
    assert small(mes=0, more=more).qualities == ()


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"id": ""}, "call_id (id)"),
        ({"start": "x"}, "setup (start)"),
        ({"start": None}, "setup, end"),
        ({"secs": "-1"}, "duration (secs)"),
        ({"secs": "1e3"}, "duration (secs)"),
        ({"secs": [1]}, "duration (secs)"),
        ({"code": "OK"}, "sip_code (code)"),
        ({"code": "99"}, "sip_code (code)"),
        ({"code": "486.5"}, "sip_code (code)"),
        ({"by": "him"}, "released_by (by)"),
        ({"word": "z"}, "codec (word)"),
        ({"mos": "0.9"}, "mos (mos)"),
        ({"mos": "5.1"}, "mos (mos)"),
    ],
)
def test_row_refused_by_field_and_column(row, where):
    more = 'sip_code = "code"\nreleased_by = "by"\ncodec = { column = "word", map = { a = "PCMA" } }\n'
    more += '[[quality]]\nmos = "mos"'
    with pytest.raises(FieldError) as caught:
        small(**row, more=more)
    assert caught.value.where == where


def test_errors_do_not_repeat_what_may_be_private():
    """A mapping of the wrong column must not write numbers and names into logs."""
    more = 'codec = { column = "word", map = { a = "PCMA" } }'
    with pytest.raises(FieldError) as caught:
        small(word="Alice +442071838750", more=more)
    assert caught.value.actual == "xxxxx +000000000000"


def test_answered_by_its_own_column():
    """Without a time of answer ``talk`` gives it, one of no length is at the end; not knowing is an error."""
    more = 'talk = "talk"\nanswered = { column = "state", map = { up = true, no = false } }'
    assert small(state="up", talk=3, more=more).answer_ms == 12_000
    assert small(state="no", talk=3, more=more).answer_ms == 0
    assert small(state="up", talk=0, more=more).answer_ms == 15_000
    with pytest.raises(FieldError, match="an answered call"):
        small(state="up", more=more)


def test_rows_of_json():
    """An array, one object, an object a line; the row stays as it came."""
    adapter = mapped(f'format = "json"\n{SMALL}')
    rows = [b'{"id": "a", "start": 1.50, "secs": 2}', b'{"id":"b","start":3,"secs":4}']
    documents = [b'["pbx",' + row + b"]" for row in rows]
    assert adapter.split(b"[" + b",".join(rows) + b"]", "application/json") == (documents, True)
    assert adapter.split(rows[0], "application/json") == (documents[:1], False)
    assert adapter.split(b"\r\n".join(rows) + b"\r\n\r\n", "application/json") == (documents, True)
    assert adapter.parse(documents[0]).raw == rows[0].decode()


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b'{"a":1}\n{"a"', b"\xff", b"[1,\n2"])
def test_no_rows_of_json(body):
    with pytest.raises(EncodingError):
        mapped(f'format = "json"\n{SMALL}').split(body, "application/json")


def test_rows_of_csv():
    """Order mark, Windows' line ends, a line break in quotes, an odd byte, an empty line, a duplicate."""
    adapter = mapped(f'{SMALL}caller = "who"')
    body = b'\xef\xbb\xbfid,start,secs,who\r\na,1,2,"M\xfcller\r\nWien"\r\n\r\na,1,2,"M\xc3\xbcller"\r\n'
    first, second = calls(adapter, body)
    assert (first.caller, second.caller) == ("Müller\r\nWien", "Müller")
    assert (first.call_id, first.from_tag) == (second.call_id, second.from_tag)


def test_encodings():
    body = b"id,start,secs,who\na,1,2,\x80\n"
    assert calls(mapped(f'encoding = "cp1252"\n{SMALL}caller = "who"'), body)[0].caller == "€"
    assert calls(mapped(f'encoding = "latin-1"\n{SMALL}caller = "who"'), body)[0].caller == "\x80"


def test_rows_of_another_length():
    """With names, such a row is refused alone; numbered columns and ``ragged`` take what there is."""
    body = b"id,start,secs\na,1\nb,1,2\nc,1,2,3\n"
    documents = mapped(SMALL).split(body, "text/csv")[0]
    assert [outcome(mapped(SMALL), document) for document in documents] == ["FieldError", "SourceCall", "FieldError"]
    assert [c.call_id for c in calls(mapped(f"ragged = true\n{SMALL}"), body.replace(b"a,1\n", b""))] == ["b", "c"]
    numbered = 'header = false\n[call]\ncall_id = 1\nsetup = { column = 2, time = "epoch" }\nduration = 3'
    assert [c.call_id for c in calls(mapped(numbered), b"b,1,2\nc,1,2,3\n")] == ["b", "c"]


@pytest.mark.parametrize(
    "body", [b"", b"id\n", b"a,b\n1,2\n", b"id,ID\n1,2\n", b'id,start,secs\n"a,1,2\n', b"*,id\n1,2\n"]
)
def test_no_file_of_this_mapping(body):
    with pytest.raises(EncodingError):
        mapped(SMALL).split(body, "text/csv")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("x", "pbx.toml"),
        ("[call]\n", "pbx.toml: call.call_id"),
        ('[call]\ncall_id = "i"', "pbx.toml: call"),
        (f"{SMALL}other = 1", "pbx.toml: call.other"),
        ("when = 1", "pbx.toml: when"),
        (f"{SMALL}codec = {{ column = 'a', constant = 'b' }}", "pbx.toml: call.codec"),
        (f"{SMALL}codec = {{ columns = 'a' }}", "pbx.toml: call.codec.columns"),
        (f"{SMALL}codec = 1.5", "pbx.toml: call.codec"),
        (f"{SMALL}sip_code = {{ constant = 700 }}", "pbx.toml: call.sip_code"),
        (f"{SMALL}leg = {{ column = 'a', map = {{ x = 'up' }} }}", "pbx.toml: call.leg"),
        (f"{SMALL}answered = {{ constant = 'yes' }}", "pbx.toml: call.answered"),
        (f"{SMALL}end = 'end'", "pbx.toml: call.end"),
        (f"{SMALL}end = {{ column = 'e', time = 'utc' }}", "pbx.toml: call.end.time"),
        (f"{SMALL}end = {{ column = 'e', time = 'iso', timezone = 'Wien' }}", "pbx.toml: call.end.timezone"),
        (f"{SMALL}talk = {{ column = 't', unit = 'h' }}", "pbx.toml: call.talk.unit"),
        (f"timezone = '../x'\n{SMALL}", "pbx.toml: timezone"),
        (f"delimiter = ';;'\n{SMALL}", "pbx.toml: delimiter"),
        (f"columns = ['a']\n{SMALL}", "pbx.toml: call_id (id)"),
        (f"columns = ['a', 'A']\n{SMALL}", "pbx.toml: columns"),
        (f"{SMALL}[unanswered]\ncaller = 'a'", "pbx.toml: unanswered.caller"),
        (f"{SMALL}[quality]\nmos = 'a'", "pbx.toml: quality"),
        (f"{SMALL}[[quality]]\nrtt = 'a'", "pbx.toml: quality.1.mos"),
        (f"{SMALL}[[quality]]\nmos = {{ column = 'a', scale = 0 }}", "pbx.toml: quality.1.mos.scale"),
        (f"{SMALL}[[quality]]\nmos = 'a'\nmethod = 'pesq'", "pbx.toml: quality.1.method"),
        (f"{SMALL}[[quality]]\nmos = 'a'\n[[quality]]\nmos = 'b'", "pbx.toml: quality"),
        ("setup = 1\ntime_step_ms = 0", "pbx.toml: setup"),
        (f"time_step_ms = 0\n{SMALL}", "pbx.toml: time_step_ms"),
    ],
)
def test_mistakes_in_a_mapping_are_named(text, where):
    with pytest.raises(ConfigError) as caught:
        mapped(text)
    assert caught.value.where == where


def test_each_mapping_is_an_adapter_and_one_reads_them_all(tmp_path):
    (tmp_path / "our.toml").write_text(f'format = "json"\n{SMALL}')
    options = {
        "mapped": {
            "our-pbx": {"file": str(tmp_path / "our.toml")},
            "ast": {"preset": "asterisk", "timezone": "Europe/Vienna"},
        }
    }
    adapters = Adapters(options)
    assert {adapters.by_name[name].kind for name in ("our-pbx", "ast", "mapped")} == {Kind.MAPPED}
    document = adapters.by_name["our-pbx"].split(b'{"id":"a","start":1,"secs":2}', "application/json")[0][0]
    adapters.by_kind[Kind.MAPPED].check(document)
    assert adapters.by_kind[Kind.MAPPED].parse(document) == adapters.by_name["our-pbx"].parse(document)
    for again in (document, b"[" + document + b"]"):
        assert adapters.by_name["mapped"].split(again, "application/json")[0] == [document]
    with pytest.raises(FieldError) as caught:
        adapters.by_kind[Kind.MAPPED].check(b'["other",{}]')
    assert (caught.value.where, caught.value.expected) == ("mapping", "ast, our-pbx")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"a": 1}, "sources.mapped.a"),
        ({"a": {}}, "sources.mapped.a"),
        ({"a": {"file": "x", "preset": "3cx"}}, "sources.mapped.a"),
        ({"a": {"fil": "x"}}, "sources.mapped.a.fil"),
        ({"a": {"preset": "4cx"}}, "4cx"),
        ({"a": {"file": "/no/such"}}, "/no/such"),
        ({"A b": {"preset": "3cx"}}, "preset 3cx"),
    ],
)
def test_wrong_options(options, where):
    with pytest.raises(ConfigError) as caught:
        make_mapped(options)
    assert caught.value.where == where


def test_a_mapping_cannot_take_an_adapters_name():
    with pytest.raises(ConfigError) as caught:
        Adapters({"mapped": {"kamailio": {"preset": "3cx"}}})
    assert caught.value.where == "sources.mapped.kamailio"


def test_document_too_long():
    with pytest.raises(FieldError, match="too long"):
        small(x="x" * 65_536)


PRESETS = [(preset("asterisk"), ASTERISK_FILE), (preset("3cx"), THREE_CX_FILE), (preset("cucm"), CUCM_FILE)]
ROWS = [adapter.split(body, "text/csv")[0] for adapter, body in PRESETS]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def outcome(adapter, document: bytes) -> str:
    """Return how parsing ended; anything but a LedgerError gets out."""
    try:
        return type(adapter.parse(document)).__name__
    except LedgerError as error:
        return type(error).__name__


def test_a_line_that_is_no_json_is_refused_alone():
    """Cut off by a crash, or two objects in one line: the good ones before and after it stay."""
    adapter = mapped(f'format = "json"\n{SMALL}')
    good = json.dumps({"id": "c", "start": "10", "secs": "5"}).encode()
    body = b"\n".join([good, good[:9], good + b"," + good, b"\xff", good])
    assert outcomes(adapter, body) == ["SourceCall", "EncodingError", "EncodingError", "EncodingError", "SourceCall"]


@given(st.sampled_from(PRESETS), st.binary(max_size=60), st.integers(0, 5000))
def test_files_with_bytes_struck_never_crash(of, noise, place):
    """Whatever is written into a file, each row is parsed or refused, or the file is."""
    adapter, body = of
    place %= len(body)
    try:
        rows = adapter.split(body[:place] + noise + body[place + len(noise) :], "text/csv")[0]
    except EncodingError:
        rows = [noise]
    assert {outcome(adapter, row) for row in rows} <= {"SourceCall", "FieldError", "EncodingError"}


@given(st.sampled_from([0, 1, 2]), st.data())
def test_damaged_rows_never_crash(index, data):
    row = json.loads(data.draw(st.sampled_from(ROWS[index])))[1]
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(row)), JSON, max_size=5))
    document = json.dumps(["pbx", {**row, **changes}]).encode("utf-8", "surrogatepass")
    assert outcome(PRESETS[index][0], document) in {"SourceCall", "FieldError", "EncodingError"}


@given(st.binary(max_size=100))
def test_arbitrary_bytes_never_crash(document):
    assert outcome(PRESETS[0][0], document) == "EncodingError"
    assert outcome(MappedSources(), document) == "EncodingError"


@given(JSON)
def test_arbitrary_rows_are_refused(row):
    document = json.dumps(["pbx", row]).encode("utf-8", "surrogatepass")
    assert outcome(PRESETS[1][0], document) in {"FieldError", "EncodingError"}


def rows_of(adapter, body: bytes) -> tuple[list[bytes], list[str]]:
    """Return the rows of a body, and where each stands; none for a body that is refused, either way."""
    try:
        rows = adapter.split(body, "")[0]
    except EncodingError:
        return [], []
    numbered = adapter.numbered(body)
    assert [row for _, row in numbered] == rows
    return rows, [where for where, _ in numbered]


@given(st.sampled_from(PRESETS), st.lists(st.sampled_from([b"\n", b"\r\n", b'"a\nb"', b"x", b",", b" "]), max_size=12))
def test_numbered_rows_of_csv_are_those_of_split(of, noise):
    """Each with the line that it begins on, in order."""
    adapter, body = of
    rows, places = rows_of(adapter, b"".join(noise) + body)
    lines = [int(where.removeprefix("line ")) for where in places]
    assert lines == sorted(set(lines))
    assert len(lines) == len(rows)


@given(st.lists(st.sampled_from([b"\n", b"{}", b'{"id":1}', b"[", b"]", b",", b"7", b"\xff", b"\r\n"]), max_size=12))
def test_numbered_rows_of_json_are_those_of_split(parts):
    adapter = mapped(f'format = "json"\n{SMALL}')
    rows, places = rows_of(adapter, b"".join(parts))
    assert len(set(places)) == len(rows)
