"""Rules: whatever the models make passes, whatever was changed afterwards fails, and each rule has its vectors."""

import ast
import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.cdr import (
    Band,
    Boundary,
    CallRecord,
    DeviceClass,
    Energy,
    EnergyMethod,
    Leg,
    MosKind,
    Observer,
    Quality,
    QualityMethod,
    Reading,
    ReleasedBy,
    Service,
)
from ledger.codec import decode, encode
from ledger.errors import RuleViolation
from ledger.models import carbon, emodel, emodel_wide, energy, freeswitch, rtpengine, rtpengine13
from ledger.models.rounding import divide_half_up
from ledger.models.tables import CODECS, INTENSITY_MG_PER_KWH, NETWORK_FACTORS, Codec
from ledger.rules import ruleset, voice_methods, words
from ledger.rules.base import Violation
from ledger.rules.ruleset import MODULES, RuleSet, default_rule_set_pin, read_vectors, run_vectors

ROOT = Path(__file__).resolve().parents[3]
RULES = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")
SETUP_MS = 1_767_225_600_000
RATABLE = sorted(row for row, codec in CODECS.items() if codec.is_ratable)
ZONES = sorted(zone for table, zone in INTENSITY_MG_PER_KWH if table == "ember-2026")


@st.composite
def calls(draw):
    """A call without quality and energy that really may have been."""
    answer_ms = draw(st.one_of(st.just(0), st.integers(0, 60_000).map(lambda ms: SETUP_MS + ms)))
    end_ms = max(answer_ms, SETUP_MS) + draw(st.integers(0, 7_200_000))
    codec = draw(st.sampled_from(sorted(CODECS)))
    packet_us = CODECS[codec].packet_us or 20_000
    most = -(-1000 * (end_ms - SETUP_MS) // packet_us) + 2
    return CallRecord(
        version=1,
        service=Service.VOICE,
        leg=draw(st.sampled_from(Leg)),
        party_commitment=bytes(32),
        call_commitment=bytes(16),
        setup_ms=SETUP_MS,
        answer_ms=answer_ms,
        end_ms=end_ms,
        sip_code=200 if answer_ms else 486,
        q850_cause=16,
        released_by=ReleasedBy.CALLER,
        codec=codec,
        packets_sent=draw(st.integers(0, most)),
        packets_received=draw(st.integers(0, most)),
        octets_sent=draw(st.integers(0, 10**9)),
        octets_received=draw(st.integers(0, 10**9)),
        quality=None,
        levels=None,
        energy=None,
    )


def talk_ms_of(call):
    return call.end_ms - call.answer_ms if call.answer_ms else 0


@st.composite
def g107_records(draw):
    """A call rated by the E-model from its own counters."""
    call = replace(draw(calls()), codec=draw(st.sampled_from(RATABLE)), packets_sent=0)
    codec = CODECS[call.codec]
    lost = draw(st.integers(0, 2 * call.packets_received + 5))
    expected = call.packets_received + lost
    assume(expected)
    events = draw(st.integers(1, min(lost, call.packets_received + 1))) if lost else 0
    one_way_us = draw(st.integers(0, emodel.ONE_WAY_US_MAX))
    r_milli, mos_milli = emodel.rate(
        codec.ie_milli, codec.bpl_milli, lost=lost, expected=expected, loss_events=events, one_way_us=one_way_us
    )
    mean = Reading(mos_milli, 2 * one_way_us, 1_000, divide_half_up(1_000_000 * lost, expected), 0)
    quality = Quality(
        method=QualityMethod.G107,
        band=Band.NARROWBAND,
        kind=MosKind.CQ,
        observer=Observer.CALLER,
        samples=1,
        r_milli=r_milli,
        one_way_us=one_way_us,
        packets_expected=expected,
        packets_lost=lost,
        packets_discarded=draw(st.integers(0, call.packets_received)),
        loss_events=events,
        mean=mean,
        worst=None,
        best=None,
    )
    return replace(call, quality=quality)


FORMULAS = {
    (QualityMethod.RTPENGINE_10, Band.NARROWBAND): rtpengine.mos_milli,
    (QualityMethod.RTPENGINE_13, Band.NARROWBAND): rtpengine13.mos_milli,
    (QualityMethod.RTPENGINE_13, Band.FULLBAND): partial(rtpengine13.mos_milli, fullband=True),
}


@st.composite
def rtpengine_readings(draw, formula, duration_ms):
    rtt_us, jitter_ms = draw(st.integers(1, 2_000_000)), draw(st.integers(0, 300))
    # Beyond this the later formula gives more than its ceiling.
    most = 100 if formula is rtpengine.mos_milli else rtpengine13.FALLING_LOSS_PPM_MAX // 10_000
    loss_ppm = 10_000 * draw(st.integers(0, most))
    mos_milli = formula(rtt_us, 1000 * jitter_ms, loss_ppm)
    return Reading(mos_milli, rtt_us, 1000 * jitter_ms, loss_ppm, draw(st.integers(0, duration_ms)))


@st.composite
def rtpengine_records(draw):
    """A call with the readings that either generation of rtpengine would have given."""
    call = draw(calls())
    duration_ms = call.end_ms - call.setup_ms
    method, band = draw(st.sampled_from(sorted(FORMULAS)))
    one = rtpengine_readings(FORMULAS[method, band], duration_ms)
    readings = draw(st.lists(one, min_size=1, max_size=1 + min(9, duration_ms // 1000)))
    worst = min(readings, key=lambda reading: reading.mos_milli)
    best = max(readings, key=lambda reading: reading.mos_milli)
    count = len(readings)
    mean = Reading(sum(r.mos_milli for r in readings) // count, 0, 0, sum(r.loss_ppm for r in readings) // count, 0)
    lost = draw(st.integers(1, 100)) if mean.loss_ppm else 0
    quality = Quality(
        method=method,
        band=band,
        kind=MosKind.CQ,
        observer=draw(st.sampled_from(Observer)),
        samples=count,
        r_milli=None,
        one_way_us=None,
        packets_expected=call.packets_received + lost,
        packets_lost=lost,
        packets_discarded=0,
        loss_events=0,
        mean=mean,
        worst=worst,
        best=best,
    )
    return replace(call, quality=quality)


@st.composite
def freeswitch_records(draw):
    """A call with the figures that FreeSWITCH would have given of what it received."""
    call = draw(calls())
    assume(call.packets_received)
    r_milli, mos_milli = freeswitch.rate(call.packets_received, draw(st.integers(0, call.packets_received)))
    lost = draw(st.integers(0, call.packets_received))
    expected = call.packets_received + lost
    mean = Reading(mos_milli, 0, draw(st.integers(0, 10**6)), divide_half_up(1_000_000 * lost, expected), 0)
    return replace(call, quality=quality_of(QualityMethod.FREESWITCH, mean, expected, lost, r_milli))


@st.composite
def reported_records(draw):
    """A call with an endpoint's or a tool's own figure, whatever it rests on."""
    call = draw(calls())
    band = draw(st.sampled_from(Band))
    method = draw(st.sampled_from([QualityMethod.RFC3611, QualityMethod.MEASURED]))
    mean = Reading(draw(st.integers(1_000, 4_500)), draw(st.integers(0, 2**32 - 1)), 0, 0, 0)
    quality = quality_of(method, mean, 0, 0, draw(st.none() | st.integers(0, 100_000)))
    return replace(call, quality=replace(quality, band=band))


def quality_of(method, mean, expected, lost, r_milli):
    """Return quality with a mean alone."""
    return Quality(
        method=method,
        band=Band.NARROWBAND,
        kind=MosKind.LQ,
        observer=Observer.CALLER,
        samples=1,
        r_milli=r_milli,
        one_way_us=None,
        packets_expected=expected,
        packets_lost=lost,
        packets_discarded=0,
        loss_events=0,
        mean=mean,
        worst=None,
        best=None,
    )


@st.composite
def energy_records(draw):
    """A call with energy and carbon from the models."""
    call = draw(calls())
    method, boundary = draw(st.sampled_from(sorted(NETWORK_FACTORS)))
    device = draw(st.sampled_from(DeviceClass))
    least_mj, _ = energy.device_bounds_mj(device, talk_ms_of(call))
    _, most_mj = energy.device_bounds_mj(device, call.end_ms - call.setup_ms)
    device_mj = draw(st.integers(least_mj, most_mj))
    network_mj = energy.network_mj(method, boundary, call.octets_sent + call.octets_received, talk_ms_of(call))
    server_mj, pue_milli = draw(st.integers(0, 10**7)), draw(st.integers(1_000, 3_000))
    total_mj = energy.total_mj(device_mj, network_mj, server_mj, pue_milli)
    assume(total_mj)
    zone = draw(st.sampled_from(ZONES))
    intensity = carbon.intensity_mg_per_kwh("ember-2026", zone)
    used = Energy(
        method=EnergyMethod(method),
        boundary=Boundary(boundary),
        device_class=device,
        device_mj=device_mj,
        network_mj=network_mj,
        server_mj=server_mj,
        pue_milli=pue_milli,
        grid_zone=zone,
        intensity_mg_per_kwh=intensity,
        intensity_table="ember-2026",
        co2_ug=carbon.co2_ug(total_mj, intensity),
    )
    return replace(call, energy=used)


def verdict(record):
    """Return the rule that refuses ``record`` after a way over the wire, or None."""
    violation = RULES.check_record(decode(encode(record), CallRecord))
    return violation and violation.rule


RATED = st.one_of(g107_records(), rtpengine_records(), freeswitch_records(), reported_records())


@given(st.one_of(calls(), RATED, energy_records()))
def test_what_the_models_make_passes(record):
    assert verdict(record) is None


@given(g107_records(), st.integers(-2_000, 2_000).filter(bool), st.sampled_from(["r_milli", "mos_milli"]))
def test_another_g107_figure_fails(record, change, field):
    quality = record.quality
    if field == "r_milli":
        assume(0 <= quality.r_milli + change <= 148_000)
        changed = replace(quality, r_milli=quality.r_milli + change)
        allowed = {"voice-quality/r-factor", "voice-quality/r-range"}
    else:
        assume(1_000 <= quality.mean.mos_milli + change <= 5_000)
        changed = replace(quality, mean=replace(quality.mean, mos_milli=quality.mean.mos_milli + change))
        allowed = {"voice-quality/mos", "voice-quality/mos-range"}
    assert verdict(replace(record, quality=changed)) in allowed


@given(rtpengine_records(), st.integers(101, 3_000), st.sampled_from([-1, 1]), st.sampled_from(["worst", "best"]))
def test_another_rtpengine_reading_fails(record, change, sign, which):
    reading = getattr(record.quality, which)
    assume(1_000 <= reading.mos_milli + sign * change <= 5_000)
    changed = replace(record.quality, **{which: replace(reading, mos_milli=reading.mos_milli + sign * change)})
    assert verdict(replace(record, quality=changed)) in {
        "voice-quality/reading",
        "voice-quality/order",
        "voice-quality/mos-range",
    }


@given(freeswitch_records(), st.integers(1, 99))
def test_another_r_of_freeswitch_fails(record, other):
    """Except where its MOS is, to a hundredth, the same."""
    mos_milli = record.quality.mean.mos_milli
    assume(abs(emodel.mos_milli(1000 * other) - mos_milli) > freeswitch.STEP_MILLI)
    assert verdict(replace(record, quality=replace(record.quality, r_milli=1000 * other))) == "voice-quality/mos-of-r"
    assert verdict(replace(record, quality=replace(record.quality, r_milli=1000 * other + 1))) == "voice-quality/r-step"


@pytest.mark.parametrize(
    ("scale", "method", "band"),
    [
        (emodel_wide.WIDEBAND, QualityMethod.G107_1, Band.WIDEBAND),
        (emodel_wide.FULLBAND, QualityMethod.G107_2, Band.FULLBAND),
    ],
)
def test_wider_models_are_recomputed_exactly(monkeypatch, scale, method, band):
    """No shipped codec is ratable on these scales, so one is made up."""
    letter = {Band.WIDEBAND: "W", Band.FULLBAND: "F"}[band]
    codec = Codec(900, "wide", "plc", 20_000, 12_000, 15_000, 0, 16_000, letter, "A")
    monkeypatch.setattr(voice_methods, "CODECS", {900: codec})
    model = voice_methods._emodel(method, "G.107.x", band, letter, partial(emodel_wide.rate, scale))
    check = voice_methods._compile_emodel(model)
    one = {"lost": 30, "expected": 3_000, "loss_events": 30, "one_way_us": 150_000}
    r_milli, mos_milli = emodel_wide.rate(scale, 12_000, 15_000, **one)
    quality = quality_of(method, Reading(mos_milli, 0, 0, 10_000, 0), 3_000, 30, r_milli)
    quality = replace(quality, band=band, loss_events=30, one_way_us=150_000)
    base = json.loads(read_vectors("call-shape", 1))["base"]
    call = ruleset.from_readable({**base, "codec": 900, "packets_received": 2_970}, CallRecord)
    assert check(call, quality) is None
    assert check(call, replace(quality, r_milli=r_milli + 1)).rule == "voice-quality/r-factor"
    better = replace(quality, mean=replace(quality.mean, mos_milli=mos_milli + 1))
    assert check(call, better).rule == "voice-quality/mos"
    assert check(call, replace(quality, one_way_us=150_100)).rule == "voice-quality/r-factor"
    narrow = check(call, replace(quality, band=Band.NARROWBAND))
    assert (narrow.rule, narrow.field, narrow.bound) == ("voice-quality/unratable", "quality.band", band.name.lower())
    ceiling_milli = model.ceilings_milli[900]
    best = Reading(ceiling_milli + 1, 0, 0, 0, 0)
    assert check(call, replace(quality, best=best)).bound == f"<= {ceiling_milli}"


@given(energy_records(), st.integers(1, 10**6), st.sampled_from(["network_mj", "intensity_mg_per_kwh", "co2_ug"]))
def test_another_energy_figure_fails(record, change, field):
    changed = replace(record.energy, **{field: getattr(record.energy, field) + change})
    rules = {"network_mj": "energy/network", "intensity_mg_per_kwh": "energy/intensity", "co2_ug": "energy/co2"}
    assert rules[field] == verdict(replace(record, energy=changed))


@given(calls(), st.integers(1, 10**6))
def test_times_out_of_order_fail(call, ms):
    assert verdict(replace(call, end_ms=SETUP_MS - ms)) == "call-shape/end-before-setup"
    assert verdict(replace(call, answer_ms=SETUP_MS - ms)) == "call-shape/answer-before-setup"
    assert verdict(replace(call, answer_ms=call.end_ms + ms)) == "call-shape/answer-after-end"


@given(st.data())
def test_no_record_crashes_the_rules(data):
    """Any record that decodes gets a verdict: all integers at their extremes, in any mixture."""
    record = data.draw(st.one_of(RATED, energy_records()))
    extremes = [0, 1, 2**32 - 1, 2**63 - 1]
    names = ("packets_sent", "packets_received", "octets_sent", "octets_received")
    record = replace(record, **{name: data.draw(st.sampled_from(extremes)) for name in names})
    if record.quality:
        counters = ("packets_expected", "packets_lost", "packets_discarded", "loss_events")
        chosen = {name: data.draw(st.sampled_from(extremes)) for name in counters}
        one_way_us = data.draw(st.sampled_from([None, 0, 2_000_001, 2**32 - 1]))
        record = replace(record, quality=replace(record.quality, one_way_us=one_way_us, **chosen))
    if record.energy:
        amounts = ("device_mj", "network_mj", "server_mj", "co2_ug")
        chosen = {name: data.draw(st.sampled_from(extremes)) for name in amounts}
        record = replace(record, energy=replace(record.energy, pue_milli=data.draw(st.integers(0, 99_999)), **chosen))
    violation = RULES.check_record(record)
    assert violation is None or isinstance(violation, Violation)


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_conformance_vectors_hold(module):
    assert run_vectors(module) >= 2 * len(module.rules)


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_every_rule_has_a_vector_that_it_refuses(module):
    cases = json.loads(read_vectors(module.name, module.version))["cases"]
    assert {None, *(f"{module.name}/{rule}" for rule in module.rules)} == {case["expected"] for case in cases}
    assert len(cases) == len({case["name"] for case in cases})


def figures_of(field, value, record):
    """Return how a person may write the value of a field: as it is, in its greater unit, or how far times are apart."""
    if isinstance(value, str):
        return {value}
    if value is None:
        return {"missing", "unknown"}
    if field in {"answer_ms", "end_ms"}:
        return {str(abs(value - other)) for other in (record.setup_ms, record.end_ms)}
    return {str(value), words.milli(value), words.percent(value), words.ms(value)}


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_messages_tell_the_figure_and_where_to_look(module):
    """What is wrong with its number first, then a colon, then what to do; in one sentence of bearable length."""
    document = json.loads(read_vectors(module.name, module.version))
    for case in document["cases"]:
        record = ruleset.from_readable(ruleset._changed(document["base"], case["set"]), CallRecord)
        violation = RULES.check_record(record)
        if violation is not None:
            wrong, _, remedy = violation.message.partition(": ")
            told = wrong.replace(",", " ").split() if isinstance(violation.value, str) else wrong
            assert any(figure in told for figure in figures_of(violation.field, violation.value, record)), wrong
            assert len(remedy.split()) >= 4, violation.message
            assert len(violation.message) <= 320, violation.message


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_violations_say_field_value_and_bound(module):
    document = json.loads(read_vectors(module.name, module.version))
    for case in document["cases"]:
        record = ruleset.from_readable(ruleset._changed(document["base"], case["set"]), CallRecord)
        violation = RULES.check_record(record)
        if case["expected"] is None:
            assert violation is None, case["name"]
            continue
        place = record
        for name in violation.field.split("."):
            place = getattr(place, name)
        shown = place.name.lower() if hasattr(place, "name") else place
        assert violation.value == shown, case["name"]
        assert violation.message
        assert not violation.message.endswith(".")
        error = violation.to_error(where="items.3")
        assert isinstance(error, RuleViolation)
        assert (error.rule, error.where) == (violation.rule, f"items.3.{violation.field}")
        assert error.expected == str(violation.bound)


def test_every_rule_parameter_and_table_is_documented():
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    for module in MODULES.values():
        assert f"## `{module.name}`" in text
        for rule, demand in module.rules.items():
            # Rules stand in other tables of the document as well, without what they demand.
            begin = f"| `{module.name}/{rule}` | {demand} | "
            row = next((row for row in text.splitlines() if row.startswith(begin)), "")
            reason = row.removeprefix(begin).removesuffix(" |")
            assert reason.endswith("."), rule
            assert not reason.startswith("|"), rule
        for name, value in module.defaults.items():
            assert f"| `{name}` | {value} |" in text, name
        for table in module.tables:
            assert f"`{table}`" in text, table


def test_rules_hold_no_floating_point():
    for path in sorted((ROOT / "ledger" / "rules").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), path
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), path
