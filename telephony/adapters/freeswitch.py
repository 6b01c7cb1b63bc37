"""Adapters for FreeSWITCH: a CDR of mod_json_cdr or mod_xml_cdr becomes a SourceCall.

Such a CDR is about one channel: one leg of a call that FreeSWITCH ends and begins anew, with a Call-ID of its own. Its
variables are those that mod_sofia and the core set; the meaning of each is in docs/freeswitch.md. What this adapter
does not know stays in ``raw`` and is otherwise ignored.

FreeSWITCH judges what it **receives**: in the caller's leg that is what the caller sends, so what the callee hears.

Pure: no I/O. Bad input raises EncodingError or FieldError, never anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.cdr import OCTETS_MAX, Leg, MosKind, Observer, QualityMethod, ReleasedBy
from ledger.commitment import PRIVATE_TEXT_MAX
from ledger.errors import ConfigError, EncodingError, FieldError
from telephony.adapters.base import COUNTER_MAX, TIME_MS_MAX, U32_MAX, Kind, split_json
from telephony.adapters.causes import released_by_code
from telephony.adapters.fields import Values, check_options, decode_object, scaled_of, text_of
from telephony.adapters.freeswitch_forms import XmlTexts, decoded_values, mended_json, unwrapped, url_decoded
from telephony.source import SourceCall, SourceQuality, SourceReading

MEDIA_TYPES_OF_FORMS: Final = frozenset(
    {
        "application/x-www-form-urlencoded",
        "application/x-www-form-base64-encoded",
        "application/x-www-form-plaintext",
    }
)

RTP_HEADER_OCTETS: Final = 12
"""FreeSWITCH counts the fixed RTP header (RFC 3550, 5.1) as part of the packet."""

LEAD_PACKETS: Final = 10
"""FreeSWITCH lets so many packets pass before it judges; until then its MOS is the 4.50 it began with."""

MOS_UNTOUCHED_MILLI: Final = 4500
LONG_VALUE_CHARACTERS: Final = 256
"""Variables longer than that, SDP most of all, are left out of a raw record that would be too long."""

SIP_OF_CAUSE: Final[Mapping[str, int]] = {
    "UNALLOCATED_NUMBER": 404,
    "NO_ROUTE_TRANSIT_NET": 404,
    "NO_ROUTE_DESTINATION": 404,
    "USER_BUSY": 486,
    "NO_USER_RESPONSE": 408,
    "CALL_REJECTED": 603,
    "NUMBER_CHANGED": 410,
    "REDIRECTION_TO_NEW_DESTINATION": 410,
    "DESTINATION_OUT_OF_ORDER": 502,
    "INVALID_PROFILE": 502,
    "INVALID_NUMBER_FORMAT": 484,
    "INVALID_URL": 484,
    "INVALID_GATEWAY": 484,
    "FACILITY_REJECTED": 501,
    "REQUESTED_CHAN_UNAVAIL": 503,
    "NORMAL_CIRCUIT_CONGESTION": 503,
    "NETWORK_OUT_OF_ORDER": 503,
    "NORMAL_TEMPORARY_FAILURE": 503,
    "SWITCH_CONGESTION": 503,
    "GATEWAY_DOWN": 503,
    "BEARERCAPABILITY_NOTAVAIL": 503,
    "OUTGOING_CALL_BARRED": 403,
    "INCOMING_CALL_BARRED": 403,
    "BEARERCAPABILITY_NOTAUTH": 403,
    "BEARERCAPABILITY_NOTIMPL": 488,
    "INCOMPATIBLE_DESTINATION": 488,
    "FACILITY_NOT_IMPLEMENTED": 501,
    "SERVICE_NOT_IMPLEMENTED": 501,
    "RECOVERY_ON_TIMER_EXPIRE": 504,
    "ORIGINATOR_CANCEL": 487,
    "EXCHANGE_ROUTING_ERROR": 483,
    "BUSY_EVERYWHERE": 600,
    "DECLINE": 603,
    "REJECT_ALL": 603,
    "DOES_NOT_EXIST_ANYWHERE": 604,
    "NOT_ACCEPTABLE": 606,
}
"""The response that mod_sofia sends for a cause when it refuses a call itself; 480 for every other."""
SIP_OF_OTHER_CAUSES: Final = 480


@dataclass(frozen=True, slots=True)
class Channel:
    """What a CDR says of its channel, whichever module wrote it."""

    variables: Values
    profile: Values
    """Who called whom, as the dialplan saw it."""
    times: Values
    """The latest profile's times, in microseconds."""
    received: Values
    """Counters and judgement of the RTP received."""
    sent: Values
    is_inbound: bool
    """The INVITE came in: the other end of this leg is the caller."""
    has_originator: bool
    """Another channel gave rise to this one: it is a B leg."""
    raw: str


class FreeSwitchJson:
    """Reads CDRs of mod_json_cdr."""

    name: Final = "freeswitch"
    kind: Final = Kind.FREESWITCH_JSON
    media_types: Final = MEDIA_TYPES_OF_FORMS | {"application/json"}

    def __init__(self, *, is_leg_known: bool = True) -> None:
        """is_leg_known: an A leg is recorded as originating, a B leg as terminating; else the profile says."""
        self._is_leg_known = is_leg_known

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the CDR in a post or a file, out of its encoding; an array of them is taken too."""
        return split_json(mended_json(unwrapped(body, b"{[")).encode("utf-8", "replace"))

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises: FreeSWITCH is told at once."""
        self.parse(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one CDR."""
        notes: list[str] = []
        return _call(_channel_of_json(document, notes), self.name, notes, self._is_leg_known)


class FreeSwitchXml:
    """Reads CDRs of mod_xml_cdr."""

    name: Final = "freeswitch-xml"
    kind: Final = Kind.FREESWITCH_XML
    media_types: Final = MEDIA_TYPES_OF_FORMS | {"text/xml", "application/xml"}

    def __init__(self, *, is_leg_known: bool = True) -> None:
        """is_leg_known: as of FreeSwitchJson."""
        self._is_leg_known = is_leg_known

    def split(self, body: bytes, _media_type: str, /) -> tuple[list[bytes], bool]:
        """Return the CDR in a post or a file, out of its encoding."""
        return [unwrapped(body, b"<").encode("utf-8", "replace")], False

    def check(self, document: bytes) -> None:
        """Raise what ``parse`` raises: FreeSWITCH is told at once."""
        self.parse(document)

    def parse(self, document: bytes) -> SourceCall:
        """Return the call of one CDR."""
        notes: list[str] = []
        return _call(_channel_of_xml(document, notes), self.name, notes, self._is_leg_known)


def make_freeswitch(options: Mapping[str, Any]) -> FreeSwitchJson:
    """Return the adapter of mod_json_cdr. Raises ConfigError naming the option."""
    return FreeSwitchJson(is_leg_known=_leg_option(options, "freeswitch"))


def make_freeswitch_xml(options: Mapping[str, Any]) -> FreeSwitchXml:
    """Return the adapter of mod_xml_cdr. Raises ConfigError naming the option."""
    return FreeSwitchXml(is_leg_known=_leg_option(options, "freeswitch-xml"))


def _leg_option(options: Mapping[str, Any], source: str) -> bool:
    check_options(source, options, frozenset({"leg"}))
    value = options.get("leg", "channel")
    if value not in ("channel", "profile"):
        raise ConfigError("no such choice", where=f"sources.{source}.leg", expected="channel or profile", actual=value)
    return bool(value == "channel")


def _channel_of_json(document: bytes, notes: list[str]) -> Channel:
    cdr = decode_object(document)
    encoded = cdr.get("variables")
    if not isinstance(encoded, dict):
        raise FieldError("missing", where="variables", expected="an object", actual=type(encoded).__name__)
    variables = decoded_values(encoded)
    flow = _first(cdr.get("callflow"))
    profile = _object(flow.get("caller_profile"))
    audio = _object(_object(cdr.get("callStats")).get("audio"))
    direction = _object(cdr.get("channel_data")).get("direction", variables.get("direction"))
    return Channel(
        variables=Values(variables, notes, "variables."),
        profile=Values(profile, notes, "callflow.caller_profile."),
        times=Values(_object(flow.get("times")), notes, "callflow.times."),
        received=Values(_object(audio.get("inbound")), notes, "callStats.audio.inbound."),
        sent=Values(_object(audio.get("outbound")), notes, "callStats.audio.outbound."),
        is_inbound=_is_inbound(direction),
        has_originator="originator" in profile or "originator" in variables,
        raw=_raw(text_of(document), variables, notes),
    )


def _channel_of_xml(document: bytes, notes: list[str]) -> Channel:
    found = XmlTexts(document)
    if "cdr/variables" not in found.names:
        raise FieldError("missing", where="variables", expected="an element <variables> in <cdr>")
    variables = {name: url_decoded(text) for name, text in found.under("cdr/variables").items()}
    direction = found.texts.get("cdr/channel_data/direction") or variables.get("direction")
    return Channel(
        variables=Values(variables, notes, "variables."),
        profile=Values(found.under("cdr/callflow/caller_profile"), notes, "callflow.caller_profile."),
        times=Values(found.under("cdr/callflow/times"), notes, "callflow.times."),
        received=Values(found.under("cdr/call-stats/audio/inbound"), notes, "call-stats.audio.inbound."),
        sent=Values(found.under("cdr/call-stats/audio/outbound"), notes, "call-stats.audio.outbound."),
        is_inbound=_is_inbound(direction),
        has_originator="cdr/callflow/caller_profile/originator" in found.names or "originator" in variables,
        raw=_raw(text_of(document), variables, notes),
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: object) -> dict[str, Any]:
    """Return the first of the call flows: the channel's last profile, which its times are in."""
    return _object(value[0]) if isinstance(value, list) and value else {}


def _is_inbound(direction: object) -> bool:
    if direction not in ("inbound", "outbound"):
        raise FieldError("no direction", where="direction", expected="inbound or outbound", actual=repr(direction))
    return bool(direction == "inbound")


def _raw(text: str, variables: Mapping[str, object], notes: list[str]) -> str:
    """Return the document's text, or, where that is too long to keep, its short variables."""
    if len(text.encode("utf-8", "replace")) <= PRIVATE_TEXT_MAX:
        return text
    notes.append("the document is too long to keep: only its short variables are in the raw record")
    short = {name: value for name, value in variables.items() if len(str(value)) <= LONG_VALUE_CHARACTERS}
    raw = json.dumps({"variables": short}, sort_keys=True, separators=(",", ":"))
    if len(raw) > PRIVATE_TEXT_MAX:
        expected = f"variables of at most {PRIVATE_TEXT_MAX} bytes"
        raise EncodingError("the CDR is too long", where="cdr", expected=expected, actual=len(raw))
    return raw


def _call(channel: Channel, platform: str, notes: list[str], is_leg_known: bool) -> SourceCall:
    variables = channel.variables
    setup_ms, answer_ms, end_ms = _times(channel)
    cause = variables.text("hangup_cause")
    disposition = variables.text("sip_hangup_disposition")
    sip_code = 200 if answer_ms else _failure_code(variables, disposition, cause)
    received, sent = _counters(channel, "in", notes), _counters(channel, "out", notes)
    of_caller, of_callee = (received, sent) if channel.is_inbound else (sent, received)
    quality = _quality(channel)
    return SourceCall(
        call_id=variables.required("sip_call_id", "uuid"),
        from_tag=variables.text("sip_from_tag"),
        to_tag=variables.text("sip_to_tag"),
        invite_cseq=variables.integer("sip_cseq", U32_MAX) or 0,
        caller=_party(variables.text("sip_from_uri"), channel.profile.text("caller_id_number")),
        callee=_party(variables.text("sip_to_uri"), channel.profile.text("destination_number")),
        source_address=variables.text("sip_network_ip") or channel.profile.text("network_addr"),
        setup_ms=setup_ms,
        answer_ms=answer_ms,
        end_ms=end_ms,
        sip_code=sip_code,
        q850_cause=_q850(variables),
        released_by=_released_by(channel, disposition, cause, sip_code),
        codec=variables.text("read_codec", "write_codec", "rtp_use_codec_name"),
        caller_packets=of_caller[0],
        caller_octets=of_caller[1],
        callee_packets=of_callee[0],
        callee_octets=of_callee[1],
        qualities=() if quality is None else (quality,),
        raw=channel.raw,
        platform=platform,
        leg=_leg(channel) if is_leg_known else None,
        notes=tuple(notes),
    )


def _party(uri: str, number: str) -> str:
    """Return a SIP URI, whose scheme FreeSWITCH drops, or the number where the channel is not SIP."""
    if not uri:
        return number
    return uri if uri.lower().startswith(("sip:", "sips:", "tel:")) else f"sip:{uri}"


def _leg(channel: Channel) -> Leg | None:
    """Return TERMINATING of a B leg, ORIGINATING of a call that came in; None of one FreeSWITCH itself began."""
    if channel.has_originator:
        return Leg.TERMINATING
    return Leg.ORIGINATING if channel.is_inbound else None


def _moment_ms(channel: Channel, variable: str, profile_time: str) -> int:
    """Return a time in milliseconds, 0 where it never came: from the variables, or the channel's profile."""
    found = channel.variables.integer(variable, TIME_MS_MAX * 1000)
    return (found or channel.times.integer(profile_time, TIME_MS_MAX * 1000) or 0) // 1000


def _times(channel: Channel) -> tuple[int, int, int]:
    """Return setup, answer and end in milliseconds, answer 0 where there was none."""
    setup_ms = _moment_ms(channel, "start_uepoch", "created_time")
    answer_ms = _moment_ms(channel, "answer_uepoch", "answered_time")
    end_ms = _moment_ms(channel, "end_uepoch", "hangup_time")
    for name, time_ms in (("start_uepoch", setup_ms), ("end_uepoch", end_ms)):
        if not time_ms:
            where = channel.variables.where(name)
            raise FieldError("missing", where=where, expected="microseconds since 1970", actual="none")
    talk_ms = channel.variables.integer("billmsec", TIME_MS_MAX)
    if not answer_ms and talk_ms:
        answer_ms = end_ms - talk_ms
    if not setup_ms <= (answer_ms or setup_ms) <= end_ms:
        actual = f"start {setup_ms}, answer {answer_ms}, end {end_ms} ms"
        where = channel.variables.where("end_uepoch")
        raise FieldError("times out of order", where=where, expected="start, then answer, then end", actual=actual)
    return setup_ms, answer_ms, end_ms


def _failure_code(variables: Values, disposition: str, cause: str) -> int:
    """Return the final response to an INVITE that was never answered, 0 where nothing tells it."""
    specific = variables.text("proto_specific_hangup_cause").removeprefix("sip:")
    known = (variables.text("sip_term_status"), variables.text("sip_invite_failure_status"), specific)
    for text in known:
        if len(text) == 3 and text.isascii() and text.isdigit() and 300 <= int(text) <= 699:
            return int(text)
    if disposition == "send_refuse":
        return SIP_OF_CAUSE.get(cause, SIP_OF_OTHER_CAUSES)
    return 487 if disposition in ("send_cancel", "recv_cancel") else 0


def _q850(variables: Values) -> int:
    """Return the cause; FreeSWITCH has some of its own above 127, which Q.850 does not know."""
    cause = variables.integer("hangup_cause_q850", U32_MAX) or 0
    return cause if cause <= 127 else 0


def _released_by(channel: Channel, disposition: str, cause: str, sip_code: int) -> ReleasedBy:
    """Return who hung up: of FreeSWITCH's own BYE the other leg, if there was one and it ended normally."""
    remote, other = ReleasedBy.CALLER, ReleasedBy.CALLEE
    if not channel.is_inbound:
        remote, other = other, remote
    if disposition == "recv_bye":
        return remote
    if disposition == "send_bye":
        was_bridged = bool(channel.variables.integer("bridge_uepoch", TIME_MS_MAX * 1000))
        return other if was_bridged and cause == "NORMAL_CLEARING" else ReleasedBy.NETWORK
    if disposition == "recv_cancel":
        return ReleasedBy.CALLER
    if disposition == "send_cancel":
        return ReleasedBy.CALLER if cause == "ORIGINATOR_CANCEL" else ReleasedBy.NETWORK
    return released_by_code(sip_code) if sip_code >= 300 else ReleasedBy.UNKNOWN


def _media(channel: Channel, way: str, name: str, most: int) -> int | None:
    """Return a counter: from the variables, or the statistics, which have it without ``rtp_audio_in_``."""
    found = channel.variables.integer(f"rtp_audio_{way}_{name}", most)
    return found if found is not None else (channel.received if way == "in" else channel.sent).integer(name, most)


def _counters(channel: Channel, way: str, notes: list[str]) -> tuple[int | None, int | None]:
    """Return packets and payload octets of one way, None where unknown."""
    packets = _media(channel, way, "media_packet_count", COUNTER_MAX)
    octets = _media(channel, way, "media_bytes", OCTETS_MAX)
    if packets is None or octets is None:
        return packets, None
    if octets < RTP_HEADER_OCTETS * packets:
        notes.append(f"{octets} octets cannot hold the headers of {packets} packets ({way}): octets left out")
        return packets, None
    return packets, octets - RTP_HEADER_OCTETS * packets


def _judged(channel: Channel, name: str, places: int, most: int) -> int | None:
    """Return a figure of FreeSWITCH's judgement, scaled; one that is no such number is left out with a note."""
    text = channel.variables.plain(f"rtp_audio_in_{name}") or channel.received.plain(name)
    found = scaled_of(text, places)
    if text and (found is None or not 0 <= found <= most):
        channel.variables.notes.append(f"{name} is no number in its bounds and is left out")
        return None
    return found


def _quality(channel: Channel) -> SourceQuality | None:
    """Return FreeSWITCH's judgement of the packets it received, None where it had too few to judge."""
    mos_milli = _judged(channel, "mos", 3, 5000)
    packets = _media(channel, "in", "packet_count", COUNTER_MAX)
    if mos_milli is None or (packets is not None and packets <= LEAD_PACKETS):
        return None
    if packets is None and mos_milli == MOS_UNTOUCHED_MILLI:
        return None
    loss_ppm = _judged(channel, "jitter_loss_rate", 6, 10**12)
    return SourceQuality(
        # What comes from the caller is what the callee hears, and the other way round.
        observer=Observer.CALLEE if channel.is_inbound else Observer.CALLER,
        samples=1,
        average=SourceReading(
            mos_milli=mos_milli,
            rtt_us=None,
            jitter_us=None,
            loss_ppm=None if loss_ppm is None else min(loss_ppm, 1_000_000),
            at_ms=None,
        ),
        lowest=None,
        highest=None,
        method=QualityMethod.FREESWITCH,
        kind=MosKind.LQ,
        r_milli=_judged(channel, "quality_percentage", 3, 100_000),
    )
