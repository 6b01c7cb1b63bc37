"""A carrier's day as its platforms write it: CDRs of Kamailio, FreeSWITCH and Asterisk, in the order calls end.

What happens in the day is ``telephony.synthetic``'s: busy hour, failures, holding times, losses. Here every call is
written down as one of three platforms would, and ``key_of`` tells from such a document alone, without the adapters
and the builder that are to be tried, under which key it must be found on the chain.

The same from one seed. Times are UTC milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from ledger.cdr import CallRecord, Leg, ReleasedBy, call_commitment
from ledger.crypto import hash_of
from ledger.models import freeswitch, rtpengine
from ledger.models.tables import CODECS
from telephony.synthetic import Traffic, generate_records

DAY_MS: Final = 86_400_000
PLATFORMS: Final = ("kamailio", "freeswitch", "asterisk-json")
"""By their names in ``/v1/ingest/NAME``."""
SHARES: Final = (0,) * 16 + (1,) * 2 + (2,) * 2
"""Of 20 calls: which platform writes them down."""
MEASURED_PACKETS_MIN: Final = 20
"""FreeSWITCH judges nothing shorter."""

_DISPOSITIONS: Final = {200: "ANSWERED", 486: "BUSY", 480: "NO ANSWER", 487: "NO ANSWER", 503: "CONGESTION"}
_CAUSES: Final = {
    200: "NORMAL_CLEARING",
    404: "UNALLOCATED_NUMBER",
    480: "NO_ANSWER",
    486: "USER_BUSY",
    487: "ORIGINATOR_CANCEL",
    503: "NORMAL_TEMPORARY_FAILURE",
    603: "CALL_REJECTED",
}

encode_json: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Document:
    """One CDR as its platform writes it, and what happened."""

    platform: str
    body: bytes
    end_ms: int
    is_answered: bool
    is_measured: bool
    """Its platform gives a MOS."""


class _Reading:
    """What a relay reports of one moment, in its own units, with the MOS that follows from them."""

    def __init__(self, rtt_us: int, jitter_us: int, loss_ppm: int) -> None:
        self.rtt_us = rtt_us
        self.jitter_ms = jitter_us // 1000
        self.loss_percent = min(loss_ppm // 10_000, 100)
        self.mos_tenths = rtpengine.mos_x10(rtt_us, self.jitter_ms * 1000, self.loss_percent * 10_000)

    @property
    def mos(self) -> str:
        """Return the MOS as rtpengine prints it."""
        return f"{self.mos_tenths // 10}.{self.mos_tenths % 10}"


def make_day(seed: int, count: int, start_ms: int) -> Iterator[Document]:
    """Yield ``count`` documents of the day that begins at ``start_ms``, midnight UTC, in the order calls end."""
    traffic = Traffic(seed, start_ms, calls_per_hour=max(1, count // 24), is_daily=True)
    records = generate_records(traffic)
    chance = Random(seed)  # noqa: S311 - made-up traffic, no secret
    for number in range(count):
        record = next(records)
        platform = SHARES[chance.getrandbits(16) % len(SHARES)]
        call_id = f"{chance.getrandbits(64):016x}-{number}@sbc{platform}.example"
        yield _WRITERS[platform](record, call_id, chance)


def key_of(document: Document, member_id: str, member_secret: bytes) -> bytes:
    """Return the 16-byte key under which a document's call counts once, from the document's own fields.

    Source: docs/protocol.md, record keys.
    """
    fields = json.loads(document.body)
    leg = Leg.ORIGINATING
    if document.platform == "kamailio":
        names = fields["call_id"], fields["from_tag"], int(fields["cseq"])
    elif document.platform == "freeswitch":
        variables = fields["variables"]
        names = unquote(variables["sip_call_id"]), unquote(variables["sip_from_tag"]), int(variables["sip_cseq"])
        leg = Leg.TERMINATING if "originator" in variables else Leg.ORIGINATING
    else:
        names = fields["sip_call_id"], fields["sip_from_tag"], fields["sequence"]
    return hash_of("record", (member_id, call_commitment(member_secret, *names), leg))[:16]


# -- what the platforms write --------------------------------------------------------------------------------------


def _numbers(chance: Random) -> tuple[str, str]:
    """Return caller and callee: numbers that are given to nobody."""
    return f"+4420794600{chance.getrandbits(16) % 100:02d}", f"+120255501{chance.getrandbits(16) % 100:02d}"


def _seconds(time_ms: int) -> str:
    return f"{time_ms // 1000}.{time_ms % 1000:03d}"


def _kamailio(record: CallRecord, call_id: str, chance: Random) -> Document:
    """Return what acc_json writes with docs/kamailio/kamailio.cfg: text only, empty where there is nothing."""
    caller, callee = _numbers(chance)
    is_answered = record.answer_ms > 0
    from_tag, to_tag = f"{chance.getrandbits(40):010x}", f"{chance.getrandbits(40):010x}"
    start_ms = record.answer_ms or record.setup_ms
    codec = f"{CODECS[record.codec].name}/8000" if is_answered else ""
    fields = {
        "start_time": _seconds(start_ms),
        "end_time": _seconds(record.end_ms if is_answered else start_ms),
        "duration": _seconds(record.end_ms - start_ms) if is_answered else "0",
        "method": "INVITE",
        "call_id": call_id,
        "from_tag": from_tag,
        "to_tag": to_tag,
        "cseq": str(1 + chance.getrandbits(10)),
        "from": f"sip:{caller}@carrier.example",
        "to": f"sip:{callee}@carrier.example",
        "ruri": f"sip:{callee}@198.51.100.7",
        "src_ip": f"192.0.2.{1 + chance.getrandbits(7)}",
        "setup_time": f"{_seconds(record.setup_ms)}{chance.getrandbits(16) % 1000:03d}",
        "final_time": "" if is_answered else f"{_seconds(record.end_ms)}000",
        "sip_code": str(record.sip_code),
        "sip_reason": "OK" if is_answered else "NON-UTF8" if record.sip_code == 503 else "Failed",
        "reason": f'Q.850;cause={record.q850_cause};text="made up"',
        "bye_from": {ReleasedBy.CALLER: from_tag, ReleasedBy.CALLEE: to_tag}.get(record.released_by, "")
        if is_answered
        else "",
        "codec_a": codec,
        "packets_a": str(record.packets_sent) if is_answered else "",
        "octets_a": str(record.octets_sent + 12 * record.packets_sent) if is_answered else "",
        "codec_b": codec,
        "packets_b": str(record.packets_received) if is_answered else "",
        "octets_b": str(record.octets_received + 12 * record.packets_received) if is_answered else "",
        **_rtpengine_fields(record),
    }
    return Document(PLATFORMS[0], encode_json(fields), record.end_ms, is_answered, record.quality is not None)


def _rtpengine_fields(record: CallRecord) -> dict[str, str]:
    """Return rtpengine's figures: of the caller's ears, of a callee who heard it all well, and of both."""
    names = ("mos", "loss", "jitter", "rtt")
    quality = record.quality
    if quality is None:
        figures = (f"{name}_avg{suffix}" for suffix in ("", "_a", "_b") for name in names)
        return dict.fromkeys((*figures, "mos_samples", "mos_samples_a", "mos_samples_b"), "")
    worst, best = quality.worst or quality.mean, quality.best or quality.mean
    least = _Reading(worst.rtt_us, worst.jitter_us, worst.loss_ppm)
    most = _Reading(best.rtt_us, best.jitter_us, best.loss_ppm)
    mean = _Reading(quality.mean.rtt_us, quality.mean.jitter_us, quality.mean.loss_ppm)
    # rtpengine's mean is that of the readings, hence between the least and the most of them.
    mean.mos_tenths = (3 * most.mos_tenths + least.mos_tenths) // 4
    last_s = (record.end_ms - record.answer_ms) // 1000
    least_s, most_s = min(worst.at_ms // 1000, last_s), min(best.at_ms // 1000, last_s)
    fields = {}
    for suffix, average, lowest in (("", mean, least), ("_a", mean, least), ("_b", most, most)):
        fields[f"mos_samples{suffix}"] = str(max(quality.samples, 1))
        fields[f"mos_min_at{suffix}"] = f"{least_s // 60}:{least_s % 60:02d}"
        fields[f"mos_max_at{suffix}"] = f"{most_s // 60}:{most_s % 60:02d}"
        for which, reading in (("avg", average), ("min", lowest), ("max", most)):
            values = (reading.mos, reading.loss_percent, reading.jitter_ms, reading.rtt_us)
            fields.update({f"{name}_{which}{suffix}": str(value) for name, value in zip(names, values, strict=True)})
        fields[f"rtt_leg_avg{suffix}"] = str(average.rtt_us // 2)
    return fields


def _freeswitch(record: CallRecord, call_id: str, chance: Random) -> Document:
    """Return what mod_json_cdr writes of one leg, values URL-encoded; every fourth is a B leg."""
    caller, callee = _numbers(chance)
    is_answered, is_b_leg = record.answer_ms > 0, not chance.getrandbits(2)
    cause = _CAUSES[record.sip_code]
    times = {"start": record.setup_ms, "answer": record.answer_ms, "end": record.end_ms}
    variables: dict[str, Any] = {
        "direction": "outbound" if is_b_leg else "inbound",
        "uuid": f"{chance.getrandbits(128):032x}",
        "sip_from_uri": f"{caller}@carrier.example",
        "sip_to_uri": f"{callee}@carrier.example",
        "sip_call_id": call_id,
        "sip_from_tag": f"{chance.getrandbits(40):010x}",
        "sip_to_tag": f"{chance.getrandbits(40):010x}",
        "sip_cseq": str(100 + chance.getrandbits(10)),
        "sip_network_ip": f"192.0.2.{1 + chance.getrandbits(7)}",
        "hangup_cause": cause,
        "hangup_cause_q850": str(record.q850_cause),
        "sip_term_status": str(record.sip_code),
        **{f"{name}_uepoch": str(1000 * time_ms) for name, time_ms in times.items()},
        "duration": str((record.end_ms - record.setup_ms) // 1000),
        "billmsec": str(record.end_ms - record.answer_ms if is_answered else 0),
    }
    if is_b_leg:
        variables["originator"] = f"{chance.getrandbits(128):032x}"
    is_measured = record.quality is not None and record.packets_received >= MEASURED_PACKETS_MIN
    if is_answered:
        variables["sip_hangup_disposition"] = "recv_bye"
        variables["read_codec"] = CODECS[record.codec].name
        for way, packets, octets in (
            ("in", record.packets_received, record.octets_received),
            ("out", record.packets_sent, record.octets_sent),
        ):
            variables[f"rtp_audio_{way}_packet_count"] = str(packets)
            variables[f"rtp_audio_{way}_media_packet_count"] = str(packets)
            variables[f"rtp_audio_{way}_media_bytes"] = str(octets + 12 * packets)
        if is_measured:
            variables.update(_flaws(record))
    document = {
        "core-uuid": "c9d34b1e-7f0c-4f0e-9d56-0b6a6d9c4a11",
        "switchname": "fs1.example.net",
        "channel_data": {"state": "CS_REPORTING", "direction": variables["direction"]},
        "callStats": {},
        "variables": {name: quote(value) for name, value in variables.items()},
        "callflow": [{"caller_profile": {"caller_id_number": caller, "destination_number": callee}}],
    }
    return Document(PLATFORMS[1], encode_json(document), record.end_ms, is_answered, is_measured)


def _flaws(record: CallRecord) -> dict[str, str]:
    """Return what FreeSWITCH makes of the packets that did not come."""
    received = record.packets_received
    lost = max(record.packets_sent - received, 0)
    r_milli, mos_milli = freeswitch.rate(received, min(lost, received)) or (0, 1000)
    loss_ten_thousandths = 10_000 * lost // max(received + lost, 1)
    return {
        "rtp_audio_in_jitter_loss_rate": f"0.{loss_ten_thousandths:04d}",
        "rtp_audio_in_flaw_total": str(lost),
        "rtp_audio_in_quality_percentage": f"{r_milli // 1000}.00",
        "rtp_audio_in_mos": f"{mos_milli // 1000}.{mos_milli % 1000 // 10:02d}",
    }


def _asterisk(record: CallRecord, call_id: str, chance: Random) -> Document:
    """Return what cdr_custom writes as JSON where the dialplan adds Call-ID and tag; Asterisk measures nothing."""
    caller, callee = _numbers(chance)
    is_answered = record.answer_ms > 0
    fields = {
        "src": caller,
        "dst": callee,
        "dcontext": "from-trunk",
        "channel": f"PJSIP/carrier-a-{chance.getrandbits(32):08x}",
        "dstchannel": f"PJSIP/carrier-b-{chance.getrandbits(32):08x}",
        "lastapp": "Dial",
        "start": msgspec.Raw(_seconds(record.setup_ms).encode()),
        "answer": msgspec.Raw(_seconds(record.answer_ms).encode()) if is_answered else "",
        "end": msgspec.Raw(_seconds(record.end_ms).encode()),
        "duration": (record.end_ms - record.setup_ms) // 1000,
        "billsec": (record.end_ms - record.answer_ms) // 1000 if is_answered else 0,
        "disposition": _DISPOSITIONS.get(record.sip_code, "FAILED"),
        "uniqueid": f"{record.setup_ms // 1000}.{chance.getrandbits(20)}",
        "sequence": chance.getrandbits(20),
        "sip_call_id": call_id,
        "sip_from_tag": f"as{chance.getrandbits(32):08x}",
        "hangupcause": record.q850_cause,
    }
    return Document(PLATFORMS[2], encode_json(fields), record.end_ms, is_answered, is_measured=False)


_WRITERS: Final = (_kamailio, _freeswitch, _asterisk)
