"""Whatever field a private value stands in, no error of any adapter quotes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.errors import EncodingError, FieldError
from telephony.adapters.base import Adapter
from telephony.adapters.discreet import DiscreetAdapter, without_values
from telephony.adapters.registry import Adapters
from telephony.pieces import Shape, growing_layout_of

FIXTURES = Path(__file__).parent.parent / "fixtures"
NUMBER, NATIONAL, PERSON, CALL_ID = "+447700900123", "07700900123", "zelda", "qqxz.7f3a@pbx.test"
PLANTED: tuple[Any, ...] = (NUMBER, NATIONAL, 447700900123, f"sip:{PERSON}@qqxz.test", CALL_ID, [NUMBER], {NUMBER: 1})
TELLING = re.compile("7009|7700|zelda|qqxz", re.IGNORECASE)
SAMPLES = {
    "kamailio": "kamailio-5.6.3-acc_json-cdr.jsonl",
    "kamailio-acc": "kamailio-5.6.3-acc_json-transactions.jsonl",
    "rtpengine": "rtpengine-10.5.3-query.json",
    "freeswitch": "freeswitch/busy.cdr.json",
    "freeswitch-xml": "freeswitch/busy.cdr.xml",
    "asterisk": "asterisk/Master.csv",
    "asterisk-json": "asterisk/cdr.jsonl",
    "opensips": "opensips/events.jsonl",
    "cucm-cdr": "cucm/cdr_StandAloneCluster_01_202611211506_17",
    "cucm-cmr": "cucm/cmr_StandAloneCluster_01_202611211506_18",
    "vq-report": "vq-reports/rfc6035-session.txt",
}
ADAPTERS = {name: adapter for name, adapter in Adapters().by_name.items() if name in SAMPLES}


def sample_of(name: str, adapter: Adapter) -> bytes:
    """Return one good document of a platform."""
    body = (FIXTURES / SAMPLES[name]).read_bytes()
    if SAMPLES[name].endswith(".jsonl"):
        body = body.splitlines()[0]
    return adapter.split(body, min(adapter.media_types))[0][0]


def planted_in(value: Any, plant: Any) -> Iterator[Any]:
    """Yield a JSON value with ``plant`` in the place of each of its leaves, and for each name of a member."""
    yield plant
    if isinstance(value, dict):
        for name, member in value.items():
            yield {**{other: kept for other, kept in value.items() if other != name}, str(plant): member}
            for changed in planted_in(member, plant):
                yield {**value, name: changed}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for changed in planted_in(item, plant):
                yield [*value[:index], changed, *value[index + 1 :]]


def documents_with(sample: bytes, plant: Any) -> Iterator[bytes]:
    """Yield a document with ``plant`` in the place of each of its values."""
    try:
        value = msgspec.json.decode(sample)
    except msgspec.DecodeError:
        text = sample.decode()
        for found in re.finditer(r'(?<=[:=>,"])[^\s:=<>,;"]+', text):
            yield f"{text[: found.start()]}{plant}{text[found.end() :]}".encode()
    else:
        for changed in planted_in(value, plant):
            yield msgspec.json.encode(changed)


def faults_of(adapter: Adapter, document: bytes) -> Iterator[EncodingError]:
    """Yield what an adapter has to say against a document."""
    for read in (adapter.check, adapter.parse):
        try:
            read(document)
        except EncodingError as error:
            yield error


def faults_of_body(adapter: Adapter, body: bytes, media_type: str) -> Iterator[EncodingError]:
    """Yield what an adapter has to say against a post."""
    try:
        documents, _ = adapter.split(body, media_type)
    except EncodingError as error:
        yield error
        return
    for document in documents:
        yield from faults_of(adapter, document)


@pytest.mark.parametrize("name", ADAPTERS)
def test_no_error_quotes_what_stands_in_a_field(name: str) -> None:
    adapter = ADAPTERS[name]
    sample = sample_of(name, adapter)
    seen = 0
    for plant in PLANTED:
        for document in documents_with(sample, plant):
            for fault in faults_of(adapter, document):
                assert fault.where
                assert not TELLING.search(fault.sentence()), fault.sentence()
                seen += 1
    assert seen > 5


@pytest.mark.parametrize("name", Adapters().by_name)
@pytest.mark.parametrize("body", [f"{NUMBER}", f'"{PERSON}', f"{{{PERSON}: 1}}", f'a,"{NUMBER}\n', f"<{PERSON}>"])
def test_no_error_quotes_a_body_that_is_none(name: str, body: str) -> None:
    adapter = Adapters().by_name[name]
    said = [
        fault.sentence() for type_ in adapter.media_types for fault in faults_of_body(adapter, body.encode(), type_)
    ]
    assert [sentence for sentence in said if TELLING.search(sentence)] == []


@pytest.mark.parametrize(
    "actual",
    ["1024", "70000 bytes", "1795231127494 ms", "none", "an empty string", "list", "JSON is malformed (byte 12)"],
)
def test_what_an_adapter_says_in_its_own_words_stays(actual: str) -> None:
    error = without_values(FieldError("wrong", where="mos", expected="10 to 50", actual=actual, hint="mend it"))
    assert error.sentence() == f"mos: wrong (expected 10 to 50, found {actual}). mend it"


@pytest.mark.parametrize(
    ("actual", "form"), [("2026-11-21 24:00", "0000-00-00 00:00"), (NUMBER, "+000000000000"), ("Füße", "xxxx")]
)
def test_of_a_value_the_form_is_told(actual: str, form: str) -> None:
    assert without_values(FieldError("not a time", where="start", actual=actual)).actual == form


def test_the_kind_of_an_error_stays() -> None:
    assert type(without_values(FieldError("x", actual="y"))) is FieldError
    assert type(without_values(EncodingError("x", actual="y"))) is EncodingError


def test_every_adapter_of_an_agent_is_discreet() -> None:
    adapters = Adapters()
    assert {type(adapter) for adapter in (*adapters.by_name.values(), *adapters.by_kind.values())} == {DiscreetAdapter}


def test_what_an_adapter_is_can_still_be_asked() -> None:
    """A file of CSV that a mapping explains is cut by its rows."""
    adapters = Adapters({"mapped": {"ast": {"preset": "asterisk", "timezone": "Europe/Vienna"}}})
    assert growing_layout_of(adapters.by_name["ast"]).shape is Shape.CSV
