"""Which point of presence carries a call with the least carbon, and a dispatcher list for Kamailio made from that.

Integers throughout; the intensities are those of the tables that ship, never fetched.
Source: docs/energy.md, "Where to carry a call".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.cdr import Boundary, EnergyMethod
from ledger.errors import ConfigError
from ledger.models import carbon, energy
from ledger.models.carbon import PointOfPresence
from ledger.models.tables import CODECS
from telephony.energy_defaults import PUE_MILLI_DEFAULT, TABLES_BY_BASIS, table_of

POPS_MAX: Final = 1_000
DURATION_S_MAX: Final = 86_400
SERVER_MW_MAX: Final = 100_000_000
CALL_DURATION_S: Final = 180
"""Mean holding time that telephone networks are planned for."""
CODEC_DEFAULT: Final = "PCMA"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PUE: Final = re.compile(r"([123])(?:\.([0-9]{1,3}))?", re.ASCII)
_URI: Final = re.compile(r"sips?:[A-Za-z0-9._~;:=\[\]-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TypicalCall:
    """The call that the places are compared for; checked when made, raises ConfigError."""

    server_mw: int
    """A call's share of the servers' power, before PUE."""
    duration_s: int = CALL_DURATION_S
    codec: str = CODEC_DEFAULT
    """Name of a codec with packets of constant size, 20 ms each where it has such."""

    def __post_init__(self) -> None:
        for name, value, most in (
            ("server_mw", self.server_mw, SERVER_MW_MAX),
            ("duration_s", self.duration_s, DURATION_S_MAX),
        ):
            if not 0 < value <= most:
                raise ConfigError("out of bounds", where=name, expected=f"1 to {most}", actual=value)
        _ = self.octets

    @property
    def octets(self) -> int:
        """Return the RTP payload of both directions."""
        named = [row for row in CODECS.values() if row.name.lower() == self.codec.lower()]
        rows = [row for row in named if row.packet_us and row.payload_octets]
        if not rows:
            known = sorted({row.name for row in CODECS.values() if row.packet_us and row.payload_octets})
            raise ConfigError(
                "not a codec of constant rate", where="codec", expected=", ".join(known), actual=self.codec
            )
        row = min(rows, key=lambda row: (row.packet_us != 20_000, row.row))
        return 2 * row.payload_octets * (self.duration_s * 1_000_000 // row.packet_us)


class RankedPop(NamedTuple):
    """A place with what a call costs there."""

    rank: int
    """0 is the best."""
    name: str
    grid_zone: str
    pue_milli: int
    uri: str
    """Where the dispatcher sends; empty where none was given."""
    table_id: str
    intensity_mg_per_kwh: int
    energy_mj: int
    co2_ug: int


@dataclass(frozen=True, slots=True)
class Pop:
    """A point of presence that could carry calls."""

    name: str
    grid_zone: str
    pue_milli: int = PUE_MILLI_DEFAULT
    uri: str = ""


def parse_pop(text: str) -> Pop:
    """Return the place in ``NAME=ZONE[,PUE[,SIP-URI]]``: ``london=GB,1.3,sip:198.51.100.7:5060``.

    Raises ConfigError.
    """
    name, equals, rest = text.partition("=")
    zone, _, rest = rest.partition(",")
    pue, _, uri = rest.partition(",")
    found = _PUE.fullmatch(pue)
    pue_milli = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0")) if found else PUE_MILLI_DEFAULT
    problem = (
        not equals
        or not _NAME.fullmatch(name)
        or (pue and not found)
        or not energy.PUE_MILLI_MIN <= pue_milli <= energy.PUE_MILLI_MAX
        or (uri and not _URI.fullmatch(uri))
    )
    if problem:
        expected = "NAME=ZONE[,PUE[,SIP-URI]], PUE 1.0 to 3.0: london=GB,1.3,sip:198.51.100.7:5060"
        raise ConfigError("not a point of presence", where="pop", expected=expected, actual=text)
    return Pop(name, zone, pue_milli, uri)


def rank_pops(pops: Sequence[Pop], call: TypicalCall, carbon_basis: str) -> list[RankedPop]:
    """Return ``pops`` by the carbon of ``call``, least first; the devices, the same everywhere, are left out.

    carbon_basis: ``lifecycle`` or ``direct``. Raises ConfigError for a zone no table has, a name that comes twice,
    none or more than POPS_MAX.
    """
    if not 1 <= len(pops) <= POPS_MAX:
        raise ConfigError("wrong number of places", where="pop", expected=f"1 to {POPS_MAX}", actual=len(pops))
    by_name = {pop.name: pop for pop in pops}
    if len(by_name) != len(pops):
        raise ConfigError("a name comes twice", where="pop", expected="each place once")
    tables = {pop.name: table_of(pop.grid_zone, carbon_basis) for pop in pops}
    network_mj = energy.network_mj(EnergyMethod.POWER_MARGINAL, Boundary.CORE, call.octets, call.duration_s * 1000)
    server_mj = energy.power_mj(call.server_mw, call.duration_s * 1000)
    places = [PointOfPresence(pop.name, pop.grid_zone, pop.pue_milli) for pop in pops]
    ranked = carbon.rank_by_carbon(places, TABLES_BY_BASIS[carbon_basis], network_mj=network_mj, server_mj=server_mj)
    return [
        RankedPop(
            rank=rank,
            name=place.name,
            grid_zone=place.grid_zone,
            pue_milli=place.pue_milli,
            uri=by_name[place.name].uri,
            table_id=tables[place.name],
            intensity_mg_per_kwh=carbon.intensity_mg_per_kwh(tables[place.name], place.grid_zone) or 0,
            energy_mj=energy.total_mj(0, network_mj, server_mj, place.pue_milli),
            co2_ug=co2_ug,
        )
        for rank, (co2_ug, place) in enumerate(ranked)
    ]


def dispatcher_list(ranked: Sequence[RankedPop], set_id: int) -> str:
    """Return Kamailio's ``dispatcher.list``: the place with the least carbon has the highest priority.

    To be used with ``ds_select_dst(SET, "8")``, which goes by priority. Raises ConfigError for a place without a URI.
    """
    lines = [f"# setid destination flags priority attrs; least carbon first, {len(ranked)} places"]
    for pop in ranked:
        if not pop.uri:
            raise ConfigError("no SIP URI to send to", where=f"pop {pop.name}", expected="NAME=ZONE,PUE,SIP-URI")
        attributes = f"pop={pop.name};zone={pop.grid_zone};co2_ug={pop.co2_ug}"
        lines.append(f"{set_id} {pop.uri} 0 {len(ranked) - pop.rank} {attributes}")
    return "\n".join(lines) + "\n"
