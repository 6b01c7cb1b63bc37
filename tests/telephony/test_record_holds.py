"""Whatever a platform says, its call becomes a record that every node accepts: each fixture, and calls made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ledger.cdr import (
    Band,
    CallRecord,
    DeviceClass,
    EnergyMethod,
    Leg,
    Levels,
    MosKind,
    Observer,
    QualityMethod,
    ReleasedBy,
    Service,
)
from ledger.codec import decode, encode
from ledger.errors import EncodingError
from ledger.models.energy import DEVICE_POWER_MW
from ledger.models.tables import CODECS, NETWORK_FACTORS
from ledger.rules.flags import RATABLE_PACKETS, flags_of
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from telephony.adapters import registry
from telephony.adapters.base import COUNTER_MAX, TIME_MS_MAX, Adapter
from telephony.adapters.mapped import MappedAdapter, read_mapping
from telephony.adapters.rtcp_xr import make_rtcp_xr
from telephony.adapters.vq_report import make_vq_report
from telephony.builder import Built, EnergyProfile, Profile, build_record
from telephony.joining import merge_call
from telephony.source import PartRole, Source, SourceCall, SourcePart, SourceQuality, SourceReading, join_of
from tests.telephony.adapters.fuzzing import damaged
from tests.telephony.adapters.test_asterisk import CUSTOM_COLUMNS
from tests.telephony.adapters.test_rtcp_xr import VALUES
from tests.telephony.test_builder import KEY, RUN, SALTS, energy_profile, recorded

FIXTURES = Path(__file__).parent / "fixtures"
RULES = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")
LONG_CALL = replace(recorded("answered"), end_ms=recorded("answered").answer_ms + 600_000, qualities=())
"""A call that reports of any length fit into."""


def holds(built: Built) -> CallRecord:
    """Return the record after a way over the wire, having held it against bounds and rules; flags refuse nothing."""
    record = decode(encode(built.record), CallRecord)
    assert record == built.record
    assert RULES.check_record(record) is None
    flags_of(record)
    return record


def made(name: str, **options: object) -> Adapter:
    return registry.MAKERS[name](options)


def preset(name: str) -> MappedAdapter:
    return MappedAdapter(read_mapping("pbx", None, name, "Europe/Vienna"))


KAMAILIO, RTPENGINE = made("kamailio"), made("rtpengine")
VIENNA = {"timezone": "Europe/Vienna"}
READ_BY: dict[str, tuple[Adapter, ...]] = {
    "asterisk/Master.csv": (made("asterisk", **VIENNA), preset("asterisk")),
    "asterisk/cdr_custom.csv": (made("asterisk", columns=CUSTOM_COLUMNS),),
    "asterisk/cdr.jsonl": (made("asterisk-json", **VIENNA),),
    "cucm/cdr_StandAloneCluster_01_202611211506_17": (made("cucm-cdr"), preset("cucm")),
    "cucm/cmr_StandAloneCluster_01_202611211506_18": (made("cucm-cmr"),),
    "freeswitch/a-leg-plain-values.cdr.json": (made("freeswitch"),),
    "freeswitch/a-leg.cdr.json": (made("freeswitch"),),
    "freeswitch/a-leg.cdr.xml": (made("freeswitch-xml"),),
    "freeswitch/b-leg.cdr.json": (made("freeswitch"),),
    "freeswitch/b-leg.cdr.xml": (made("freeswitch-xml"),),
    "freeswitch/busy.cdr.json": (made("freeswitch"),),
    "freeswitch/busy.cdr.xml": (made("freeswitch-xml"),),
    "freeswitch/cancelled.cdr.json": (made("freeswitch"),),
    "kamailio-5.6.3-acc_json-cdr.jsonl": (KAMAILIO,),
    "kamailio-5.6.3-acc_json-transactions.jsonl": (made("kamailio-acc"),),
    "kamailio-5.6.3-expired-dialog.json": (KAMAILIO,),
    "mapped/3cx-cdr.log": (preset("3cx"),),
    "mapped/Master.csv": (preset("asterisk"),),
    "opensips/events.jsonl": (made("opensips"),),
    "rtpengine-10.5.3-query-no-rtcp.json": (RTPENGINE,),
    "rtpengine-10.5.3-query.json": (RTPENGINE,),
    "rtpengine-13-query.json": (made("rtpengine", generation=13),),
    "sip-lab-run.json": (KAMAILIO, RTPENGINE),
    "vq-reports/desk-phone.txt": (make_vq_report({}),),
    "vq-reports/interval.txt": (make_vq_report({}),),
    "vq-reports/rfc6035-session.txt": (make_vq_report({}),),
    "vq-reports/web-client-without-mos.txt": (make_vq_report({}),),
    "rtcp-xr": (make_rtcp_xr({}),),
}
"""The adapters that read each fixture; the last is no file."""


def bodies_of(name: str, adapter: Adapter) -> list[bytes]:
    """Return what a platform posts, from a fixture."""
    if name == "rtcp-xr":
        return [json.dumps({"call-id": "c", **VALUES}).encode()]
    if name == "sip-lab-run.json":
        answers = [{**call["rtpengine"], "call-id": call["call_id"]} for call in RUN["calls"] if call["rtpengine"]]
        return [json.dumps(RUN["cdrs"] if adapter is KAMAILIO else answers).encode()]
    body = (FIXTURES / name).read_bytes()
    if name.startswith("rtpengine-"):
        return [json.dumps({**json.loads(body), "call-id": "c"}).encode()]
    return body.splitlines() if name.endswith(".jsonl") else [body]


def calls_of(sources: list[Source]) -> Iterator[SourceCall]:
    """Return the calls that documents tell of: whole ones, those of two parts, and one for each report."""
    begun = {}
    for source in sources:
        if isinstance(source, SourceCall):
            yield source
        elif source.role is PartRole.BEGIN:
            begun[join_of(source)] = source
    for source in sources:
        if isinstance(source, SourcePart) and source.role is PartRole.END:
            yield merge_call(begun[join_of(source)], source)
        elif isinstance(source, SourcePart) and source.role is PartRole.QUALITY:
            yield replace(LONG_CALL, qualities=source.qualities, levels=source.levels)


CASES = [(name, adapter) for name, adapters in READ_BY.items() for adapter in adapters]


@pytest.mark.parametrize(("name", "adapter"), CASES, ids=[f"{name} {adapter.name}" for name, adapter in CASES])
def test_fixture(name: str, adapter: Adapter) -> None:
    """On every side of the call, with energy and without; nothing that the platform measured is refused."""
    documents = [document for body in bodies_of(name, adapter) for document in adapter.split(body, "")[0]]
    calls = list(calls_of([adapter.parse(document) for document in documents]))
    assert calls
    for call in calls:
        for leg in Leg:
            built = build_record(replace(call, leg=leg), Profile(KEY, energy=energy_profile()), SALTS)
            record = holds(built)
            assert (record.setup_ms, record.leg) == (call.setup_ms, leg)
            assert [text for text in built.warnings if " left out: " in text] == []


def test_every_fixture_and_every_adapter_is_tried() -> None:
    files = {str(path.relative_to(FIXTURES)) for path in FIXTURES.rglob("*") if path.is_file()}
    assert files - {"README.md"} == set(READ_BY) - {"rtcp-xr"}
    tried = {adapter.name for _, adapter in CASES}
    assert {make({}).name for name, make in registry.MAKERS.items() if name != "mapped"} <= tried


@pytest.mark.parametrize(("name", "adapter"), CASES, ids=[f"{name} {adapter.name}" for name, adapter in CASES])
@settings(max_examples=15)
@given(st.data())
def test_damaged_fixture(name: str, adapter: Adapter, data: st.DataObject) -> None:
    """What an adapter still reads of damaged documents becomes a record that holds, with what it has of quality."""
    documents = [document for body in bodies_of(name, adapter) for document in adapter.split(body, "")[0]]
    try:
        source = adapter.parse(data.draw(damaged(documents)))
    except EncodingError:
        return
    if isinstance(source, SourcePart):
        source = replace(LONG_CALL, qualities=source.qualities, levels=source.levels)
    holds(build_record(source, Profile(KEY, energy=energy_profile()), SALTS))


# -- calls made up -----------------------------------------------------------------------------------------------------

COUNTS = st.none() | st.sampled_from([0, 1, 249, 250, 3_000, 2**42 - 1, 2**42, COUNTER_MAX]) | st.integers(0, 10**5)
FIGURES = st.none() | st.sampled_from([-1, 0, 1, 2**32 - 1, 2**32, 2**70]) | st.integers(0, 10**6)
COUNTERS = st.sampled_from([-1, 2**63, 2**70]) | st.integers(0, 5_000)
READINGS = st.builds(
    SourceReading,
    mos_milli=st.just(0) | st.integers(900, 5_000),
    rtt_us=FIGURES,
    jitter_us=FIGURES,
    loss_ppm=FIGURES,
    at_ms=FIGURES,
)
QUALITIES = st.builds(
    SourceQuality,
    observer=st.sampled_from(Observer),
    samples=FIGURES,
    average=READINGS,
    lowest=st.none() | READINGS,
    highest=st.none() | READINGS,
    method=st.sampled_from(QualityMethod),
    band=st.sampled_from(Band),
    kind=st.sampled_from(MosKind),
    r_milli=st.none() | st.integers(-1, 150_000),
    one_way_us=FIGURES,
    packets_expected=COUNTERS,
    packets_lost=COUNTERS,
    packets_discarded=COUNTERS,
    loss_events=COUNTERS,
)
SMALL = st.none() | st.integers(-130, 300)
LEVELS = st.builds(Levels, *[SMALL] * 5, *[st.none() | st.integers(-1, 70_000)] * 5)
CODEC_NAMES = sorted({codec.name for codec in CODECS.values()} | {"", "pcma", "X-OWN"})


@st.composite
def source_calls(draw: st.DrawFn) -> SourceCall:
    """A call whose times are in order, for a moment, an hour, or years; its counters as an adapter bounds them."""
    spans = st.sampled_from([0, 1, 999, 20_000]) | st.integers(0, 3_600_000) | st.integers(0, 10**11)
    setup_ms = draw(st.just(0) | st.integers(10**12, TIME_MS_MAX - 2 * 10**11))
    rings_ms = draw(st.none() | spans)
    answer_ms = 0 if rings_ms is None else setup_ms + rings_ms
    return SourceCall(
        call_id=draw(st.text(max_size=4)),
        from_tag="f",
        to_tag="t",
        invite_cseq=1,
        caller="+442071838750",
        callee="sip:b@example.org",
        source_address="",
        setup_ms=setup_ms,
        answer_ms=answer_ms,
        end_ms=max(setup_ms, answer_ms) + draw(spans),
        sip_code=draw(st.sampled_from([0, 100, 200, 486, 699])),
        q850_cause=draw(st.integers(0, 127)),
        released_by=draw(st.sampled_from(ReleasedBy)),
        codec=draw(st.sampled_from(CODEC_NAMES)),
        caller_packets=draw(COUNTS),
        caller_octets=draw(COUNTS),
        callee_packets=draw(COUNTS),
        callee_octets=draw(COUNTS),
        qualities=tuple(draw(st.lists(QUALITIES, max_size=3))),
        raw="{}",
        leg=draw(st.none() | st.sampled_from(Leg)),
        service=draw(st.none() | st.sampled_from(Service)),
        levels=draw(st.none() | LEVELS),
        time_step_ms=draw(st.sampled_from([1, 1_000, 60_000])),
    )


@st.composite
def energy_profiles(draw: st.DrawFn) -> EnergyProfile:
    """A carrier's figures, at the bounds of its device class and between."""
    device = draw(st.sampled_from(DeviceClass))
    least_mw, most_mw = DEVICE_POWER_MW[device]
    method, boundary = draw(st.sampled_from(sorted(NETWORK_FACTORS)))
    return energy_profile(
        device_class=device,
        device_mw=draw(st.sampled_from([least_mw, most_mw]) | st.integers(least_mw, most_mw)),
        network_method=EnergyMethod(method),
        boundary=boundary,
        server_mw=draw(st.sampled_from([0, 1, 10**6])),
        pue_milli=draw(st.integers(1_000, 3_000)),
    )


@given(source_calls(), st.none() | energy_profiles())
def test_any_call_with_times_in_order(call: SourceCall, profile: EnergyProfile | None) -> None:
    """No call is lost, whatever its counters, quality and levels; what is left out is said, once for each thing."""
    built = build_record(call, Profile(KEY, energy=profile), SALTS)
    record = holds(built)
    assert (record.setup_ms, record.answer_ms, record.end_ms) == (call.setup_ms, call.answer_ms, call.end_ms)
    left_out = [text.split(":")[0] for text in built.warnings if " left out: " in text]
    assert len(left_out) == len(set(left_out))
    assert ("quality left out" in left_out) == (bool(call.qualities) and record.quality is None)
    assert ("levels left out" in left_out) == (call.levels is not None and record.levels is None)
    assert ("energy left out" in left_out) == (profile is not None and record.energy is None)


RATABLE = sorted({codec.name for codec in CODECS.values() if codec.is_ratable})


@given(st.data(), st.sampled_from(RATABLE), st.sampled_from(Leg))
def test_complete_figures_of_a_receiver_are_rated(data: st.DataObject, codec: str, leg: Leg) -> None:
    """Counters and delay without a MOS: the E-model of the codec, and every node computes the same."""
    received, lost = data.draw(st.integers(0, 5_000)), data.draw(st.integers(0, 5_000))
    assume(received + lost >= RATABLE_PACKETS)
    found = SourceQuality(
        observer=Observer.CALLEE if leg is Leg.TERMINATING else Observer.CALLER,
        samples=None,
        average=SourceReading(0, None, None, None, None),
        lowest=None,
        highest=None,
        method=data.draw(st.sampled_from(QualityMethod)),
        one_way_us=data.draw(st.integers(0, 2_000_000)),
        packets_expected=received + lost,
        packets_lost=lost,
        packets_discarded=data.draw(st.integers(0, received)),
        loss_events=data.draw(st.integers(1, min(lost, received + 1))) if lost else 0,
    )
    call = replace(
        LONG_CALL, leg=leg, codec=codec, caller_packets=received, callee_packets=received, qualities=(found,)
    )
    built = build_record(replace(call, caller_octets=None, callee_octets=None), Profile(KEY), SALTS)
    quality = holds(built).quality
    assert built.warnings == []
    assert quality is not None
    assert quality.method in {QualityMethod.G107, QualityMethod.G107_1, QualityMethod.G107_2}
    assert (quality.packets_expected, quality.packets_lost) == (received + lost, lost)


def test_counters_and_energy_beyond_any_call_are_left_out() -> None:
    call = replace(LONG_CALL, caller_octets=2**42)
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    assert (record.octets_sent, record.octets_received) == (0, 0)
    assert warnings == [f"octets left out: {2**42} are more than a call can have ({2**42 - 1})"]
    call = replace(LONG_CALL, end_ms=LONG_CALL.answer_ms + 10**12)
    record, _, warnings = build_record(call, Profile(KEY, energy=energy_profile(device_mw=10_000)), SALTS)
    assert record.energy is None
    assert [text.split(" mJ")[0] for text in warnings] == [f"energy left out: {10**13}"]
