"""From a platform's call to a record: what is taken over, what is left out and said so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import (
    Boundary,
    CallRecord,
    DeviceClass,
    EnergyMethod,
    Leg,
    Observer,
    QualityMethod,
    ReleasedBy,
    call_commitment,
)
from ledger.codec import decode, encode
from ledger.commitment import check_field, party_commitment, prove_field
from ledger.errors import ConfigError
from ledger.models import carbon, energy, rtpengine
from ledger.models.tables import CODECS, INTENSITY_MG_PER_KWH
from telephony.adapters.kamailio import parse_cdr
from telephony.builder import EnergyProfile, Profile, build_record, fresh_salts
from telephony.source import SourceCall, SourceQuality, SourceReading

FIXTURES = Path(__file__).parent / "fixtures"
RUN = json.loads((FIXTURES / "sip-lab-run.json").read_text())
SAMPLES = [json.loads(line) for line in (FIXTURES / "kamailio-5.6.3-acc_json-cdr.jsonl").read_text().splitlines()]
KEY = bytes(range(32))
SALTS = [bytes([n]) * 32 for n in range(7)]


def energy_profile(**changes: object) -> EnergyProfile:
    """Return a desk phone on a fixed line in Austria."""
    usual = {
        "device_class": DeviceClass.PHONE,
        "device_mw": 2_000,
        "network_method": EnergyMethod.POWER_MARGINAL,
        "boundary": Boundary.CORE_ACCESS_CPE,
        "server_mw": 500,
        "pue_milli": 1_400,
        "grid_zone": ZONE[1],
        "intensity_table": ZONE[0],
    }
    return EnergyProfile(**{**usual, **changes})


ZONE = min(key for key in INTENSITY_MG_PER_KWH if key[1] == "AT")
"""A table that has Austria, and Austria."""


def recorded(kind: str, index: int = 0) -> SourceCall:
    """Return the index-th recorded call of a kind."""
    kinds = {call["call_id"]: call["kind"] for call in RUN["calls"]}
    return parse_cdr([cdr for cdr in RUN["cdrs"] if kinds[cdr["call_id"]] == kind][index])


def with_quality(call: SourceCall, **changes: object) -> SourceCall:
    """Return ``call`` with changes to what the caller heard."""
    both, caller, callee = call.qualities
    return replace(call, qualities=(both, replace(caller, **changes), callee))


def test_recorded_call_becomes_a_record():
    """Every field of the record, from a call that a real proxy reported."""
    call = recorded("answered", 1)
    record, private, warnings = build_record(call, Profile(KEY, energy=energy_profile()), SALTS)
    assert warnings == []
    assert decode(encode(record), CallRecord) == record
    assert record.party_commitment == party_commitment(private)
    assert record.call_commitment == call_commitment(KEY, call.call_id, call.from_tag, 1)
    assert (record.setup_ms, record.answer_ms, record.end_ms) == (call.setup_ms, call.answer_ms, call.end_ms)
    assert (record.sip_code, record.q850_cause, record.released_by) == (200, 16, ReleasedBy.CALLEE)
    assert (record.packets_sent, record.octets_sent) == (call.caller_packets, call.caller_octets)
    assert (record.packets_received, record.octets_received) == (call.callee_packets, call.callee_octets)
    codec = CODECS[record.codec]
    assert (codec.name, codec.packet_us, codec.concealment) == ("PCMA", 20_000, "none")


def test_quality_is_what_the_customer_heard():
    """The originating carrier's record has the caller's ears, the terminating one's the callee's."""
    call = recorded("answered", 1)
    caller, callee = call.qualities[1:]
    near = build_record(call, Profile(KEY), SALTS).record.quality
    far = build_record(call, Profile(KEY, leg=Leg.TERMINATING), SALTS).record.quality
    between = build_record(call, Profile(KEY, leg=Leg.TRANSIT), SALTS).record.quality
    assert (near.method, near.observer) == (QualityMethod.RTPENGINE_10, Observer.CALLER)
    assert (near.mean.mos_milli, near.worst.mos_milli, near.best.mos_milli) == (
        caller.average.mos_milli,
        caller.lowest.mos_milli,
        caller.highest.mos_milli,
    )
    assert (near.samples, near.mean.loss_ppm, near.worst.rtt_us) == (
        caller.samples,
        caller.average.loss_ppm,
        caller.lowest.rtt_us,
    )
    assert (far.observer, far.mean.mos_milli) == (Observer.CALLEE, callee.average.mos_milli)
    assert (between.observer, between.worst, between.best) == (Observer.BOTH, None, None)


def test_counters_are_seen_from_the_carriers_side():
    call = recorded("answered")
    far = build_record(call, Profile(KEY, leg=Leg.TERMINATING), SALTS).record
    assert (far.packets_sent, far.packets_received) == (call.callee_packets, call.caller_packets)


def test_older_document_falls_to_the_complete_observer():
    """Where the caller's figures lack round trip and jitter, those over both legs are taken, without extremes."""
    record, _, warnings = build_record(parse_cdr(SAMPLES[0]), Profile(KEY, energy=energy_profile()), SALTS)
    assert (record.quality.observer, record.quality.mean.mos_milli) == (Observer.BOTH, 4300)
    assert (record.quality.worst, record.quality.best, warnings) == (None, None, [])
    assert (record.codec, record.packets_sent, record.octets_received) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["busy", "cancelled", "without-rtcp"])
def test_no_quality_is_no_warning(kind):
    """A missing MOS is not a bad one."""
    record, _, warnings = build_record(recorded(kind), Profile(KEY, energy=energy_profile()), SALTS)
    assert (record.quality, warnings) == (None, [])
    assert decode(encode(record), CallRecord) == record


READING = SourceReading(4400, 500, 0, 0, 1000)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            {"average": replace(READING, mos_milli=4500, at_ms=None), "lowest": None, "highest": None},
            (
                "The mean MOS is 4.5, but the formula rtpengine_10 ends at 4.4: look at which method and band the "
                "platform "
                "really used (quality.mean.mos_milli is 4500, expected <= 4400)"
            ),
        ),
        ({"lowest": replace(READING, mos_milli=900)}, "worst.mos_milli: Expected int >= 1000"),
        (
            {"lowest": replace(READING, mos_milli=2000)},
            (
                "The worst reading's MOS is 2.0, but the formula rtpengine_10 gives 4.4 (+- 0.1) for its round trip of "
                "0.5 ms, jitter of 0 ms and loss of 0 %: look at which version of rtpengine it is from "
                "(quality.worst.mos_milli is 2000, expected 4400 +- 100)"
            ),
        ),
        (
            {"highest": replace(READING, loss_ppm=200_000)},
            (
                "The best reading's MOS is 4.4, but the formula rtpengine_10 gives 2.2 (+- 0.1) for its round trip of "
                "0.5 ms, jitter of 0 ms and loss of 20 %: look at which version of rtpengine it is from "
                "(quality.best.mos_milli is 4400, expected 2200 +- 100)"
            ),
        ),
        (
            {"samples": 999},
            (
                "999 reports are more than the 7 that one a second from each observer gives in 6515 ms: look for "
                "reports "
                "of several streams or calls added up (quality.samples is 999, expected <= 7)"
            ),
        ),
        (
            {"average": replace(READING, mos_milli=3900)},
            (
                "The mean MOS is 3.9, below the worst reading's 4.0: look for readings of another call, or of the "
                "other "
                "side (quality.mean.mos_milli is 3900, expected worst 4000 <= mean <= best 4200)"
            ),
        ),
        ({"average": replace(READING, mos_milli=4400), "highest": None, "lowest": None, "samples": 1}, ""),
    ],
)
def test_contradictions_cost_the_quality_not_the_record(changes, warning):
    """The record stays, without quality, and the warning names figure and bound."""
    call = with_quality(recorded("answered", 1), **changes)
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    if not warning:
        assert (record.quality.mean.mos_milli, warnings) == (4400, [])
        return
    assert record.quality is None
    assert warnings == [f"quality left out: {warning}"]


def test_best_below_mean():
    call = recorded("answered", 1)
    mean = replace(call.qualities[1].average, mos_milli=4400)
    low = SourceReading(4200, 500, 0, 30_000, 1000)
    call = with_quality(call, average=mean, lowest=None, highest=low)
    assert build_record(call, Profile(KEY), SALTS).warnings == [
        (
            "quality left out: The mean MOS is 4.4, above the best reading's 4.2: look for readings of another call, "
            "or "
            "of the other side (quality.mean.mos_milli is 4400, expected worst unknown <= mean <= best 4200)"
        )
    ]


def test_incomplete_quality_says_so():
    call = recorded("answered")
    call = replace(call, qualities=(SourceQuality(Observer.CALLER, None, READING, None, None),))
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    assert record.quality is None
    assert warnings == ["quality left out: a MOS without samples, round trip, jitter or loss cannot be checked"]


def test_moment_after_the_end_is_put_at_the_end():
    """rtpengine counts whole seconds; the last report may seem to come after BYE."""
    call = recorded("answered")
    lowest = replace(call.qualities[1].lowest, at_ms=3_600_000)
    quality = build_record(with_quality(call, lowest=lowest), Profile(KEY), SALTS).record.quality
    assert quality.worst.at_ms == call.end_ms - call.setup_ms


@pytest.mark.parametrize(
    ("codec", "packets", "octets", "expected"),
    [
        ("PCMU", 300, 48_000, ("PCMU", 20_000)),
        ("pcma", 600, 48_000, ("PCMA", 10_000)),
        ("PCMU", 200, 48_000, ("PCMU", 30_000)),
        ("PCMU", None, None, ("PCMU", 20_000)),
        ("G722", 300, 48_000, ("G722", 20_000)),
        ("opus", 300, 21_137, ("opus", 20_000)),
        ("", 300, 48_000, ("unknown", 0)),
    ],
)
def test_codec_row(codec, packets, octets, expected):
    """Name and octets a packet give the row."""
    call = replace(recorded("answered"), codec=codec, caller_packets=packets, caller_octets=octets)
    call = replace(call, callee_packets=None, callee_octets=None)
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    assert (CODECS[record.codec].name, CODECS[record.codec].packet_us, warnings) == (*expected, [])


def test_codec_nobody_knows():
    record, _, warnings = build_record(replace(recorded("answered"), codec="QCELP"), Profile(KEY), SALTS)
    assert (record.codec, warnings) == (0, ["codec QCELP is not in the registry: recorded as unknown"])


@pytest.mark.parametrize(
    ("codec", "told"), [("+447700900123", "+000000000000"), ("sip:anna@host.test", "xxx:xxxx@xxxx.xxxx"), ("7x", "0x")]
)
def test_a_private_value_in_the_column_of_the_codec_is_not_told(codec: str, told: str) -> None:
    _, _, warnings = build_record(replace(parse_cdr(SAMPLES[0]), codec=codec), Profile(KEY), SALTS)
    assert f"codec {told} is not in the registry: recorded as unknown" in warnings


def test_more_packets_than_the_codec_sends():
    """A flood of packets would break the rule on packet time; the codec is then what cannot be right."""
    call = replace(recorded("answered"), caller_packets=5_000, caller_octets=800_000)
    record, _, warnings = build_record(call, Profile(KEY), SALTS)
    assert (record.codec, record.packets_sent) == (0, 5_000)
    assert warnings == ["5000 packets are more than PCMA sends in the call's time: codec recorded as unknown"]


def test_energy_adds_up():
    """Each part by its model, and CO2 by the pinned intensity."""
    call, profile = recorded("answered"), energy_profile()
    found = build_record(call, Profile(KEY, energy=profile), SALTS).record.energy
    talk_ms = call.end_ms - call.answer_ms
    octets = call.caller_octets + call.callee_octets
    assert found.device_mj == 2 * talk_ms
    assert found.server_mj == (500 * talk_ms + 500) // 1000
    assert found.network_mj == energy.network_mj(profile.network_method, profile.boundary, octets, talk_ms)
    total_mj = energy.total_mj(found.device_mj, found.network_mj, found.server_mj, 1_400)
    assert found.intensity_mg_per_kwh == carbon.intensity_mg_per_kwh(*ZONE)
    assert found.co2_ug == carbon.co2_ug(total_mj, found.intensity_mg_per_kwh)


def test_energy_of_a_call_not_answered():
    """No talk, no media: nothing was used, and nothing is made up."""
    found = build_record(recorded("busy"), Profile(KEY, energy=energy_profile()), SALTS).record.energy
    assert (found.device_mj, found.network_mj, found.server_mj, found.co2_ug) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"device_mw": 20_000}, "device_mw"),
        ({"device_class": DeviceClass.NONE}, "device_mw"),
        ({"boundary": Boundary.CORE_ACCESS}, "boundary"),
        ({"network_method": EnergyMethod.METERED}, "boundary"),
        ({"server_mw": -1}, "server_mw"),
        ({"pue_milli": 999}, "pue_milli"),
        ({"grid_zone": "ZZ"}, "grid_zone"),
        ({"intensity_table": "guess"}, "grid_zone"),
    ],
)
def test_energy_profile_refused(changes, where):
    """A profile whose records no node would take is refused when it is made."""
    with pytest.raises(ConfigError) as caught:
        energy_profile(**changes)
    assert caught.value.where == where


def test_private_part_is_provable_field_by_field():
    """The callee can be shown without the caller; fresh salts differ."""
    call = recorded("answered")
    record, private, _ = build_record(call, Profile(KEY), fresh_salts())
    values = {field.name: field.value.decode() for field in private.fields}
    assert values["callee"] == "+12025550123"
    assert json.loads(values["raw"])["call_id"] == values["call_id"] == call.call_id
    callee = next(field for field in private.fields if field.name == "callee")
    check_field(callee, prove_field(private, "callee"), record.party_commitment)
    assert len({*fresh_salts(), *fresh_salts()}) == 14


READINGS = st.builds(
    SourceReading,
    mos_milli=st.integers(10, 50).map(lambda tenths: tenths * 100),
    rtt_us=st.integers(0, 2**32 - 1) | st.none(),
    jitter_us=st.integers(0, 4_294_967).map(lambda ms: ms * 1000) | st.none(),
    loss_ppm=st.integers(0, 100).map(lambda percent: percent * 10_000) | st.none(),
    at_ms=st.integers(0, 10**8) | st.none(),
)
QUALITIES = st.builds(
    SourceQuality,
    observer=st.sampled_from([Observer.BOTH, Observer.CALLER, Observer.CALLEE]),
    samples=st.integers(0, 100) | st.none(),
    average=READINGS,
    lowest=READINGS | st.none(),
    highest=READINGS | st.none(),
)


@given(st.lists(QUALITIES, max_size=3), st.sampled_from(list(Leg)))
def test_any_quality_becomes_a_consistent_record(qualities, leg):
    """Whatever a platform reports, the record encodes, and its quality is null or agrees with the formula."""
    call = replace(recorded("answered"), qualities=tuple(qualities))
    record, _, warnings = build_record(call, Profile(KEY, leg=leg), SALTS)
    assert decode(encode(record), CallRecord) == record
    if record.quality is None:
        assert bool(warnings) == bool(qualities)
        return
    for reading in (record.quality.worst, record.quality.best):
        if reading:
            expected = rtpengine.mos_milli(reading.rtt_us, reading.jitter_us, reading.loss_ppm)
            assert abs(reading.mos_milli - expected) <= 100
            assert reading.at_ms <= record.end_ms - record.setup_ms
