"""Events and totals as lines for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from ledger.cdr import MosKind, QualityMethod
from ledger.models.explain import method_name as spelled
from ledger.readable import to_readable

QUANTITIES = ("records", "void", "talk_ms", "octets", "device_mj", "network_mj", "server_mj", "co2_ug")
MOMENTS: Final = frozenset(
    {"setup_ms", "answer_ms", "end_ms", "created_ms", "expires_ms", "time_ms", "until_ms", "now_ms"}
)
"""Fields that hold milliseconds since 1970; others that end so are durations."""


def utc(time_ms: int) -> str:
    """Return a time, in milliseconds since 1970, as a date and a time of day to the second."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def with_moments(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts with each time as people read it behind the number; 0 means that it never came."""
    told: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            told[name] = with_moments(value)
        elif name in MOMENTS and isinstance(value, int):
            told[name] = f"{value}  {utc(value)}" if value else "0  never"
        else:
            told[name] = value
    return told


def describe_event(event: dict[str, Any]) -> str:
    """Return a live event as one line."""
    kind = str(event.get("event", "?"))
    if kind in {"block", "final"}:
        line = f"{kind:<6} {event.get('height'):>7} slot {event.get('slot')} {str(event.get('id', ''))[:12]}"
        line += f"  {event.get('transactions', 0)} tx"
        totals = event.get("totals")
        if totals and (totals["records"] or totals["void"]):
            line += f"  {describe_totals(totals)}"
        return line + ("  (reorganisation)" if event.get("reorganisation") else "")
    facts = " ".join(f"{name} {value}" for name, value in event.items() if name != "event")
    return f"{kind:<6} {facts}"


def describe_totals(totals: dict[str, Any]) -> str:
    """Return what records add up to: calls, talk time, MOS by method, energy, CO2."""
    parts = [counted(totals["records"])]
    if totals["void"]:
        parts.append(f"{totals['void']:,} void")
    parts.append(_talk(totals))
    parts += [
        f"MOS {mos['sum_milli'] / mos['count'] / 1000:.2f} ({method_name(mos)}, {mos['count']:,})"
        for mos in totals["mos"]
        if mos["count"]
    ]
    return "  ".join([*parts, *_energy(totals)])


def describe_briefly(totals: dict[str, Any]) -> str:
    """Return what a block's records add up to in about eighty characters."""
    mos = ", ".join(
        f"{part['sum_milli'] / part['count'] / 1000:.2f} {method_name(part).split()[0]}"
        for part in totals["mos"]
        if part["count"]
    )
    talk = _talk(totals)
    return ", ".join([counted(totals["records"]), talk, f"MOS {mos or 'not measured'}", *_energy(totals)])


def counted(records: int) -> str:
    """Return a number of records in words."""
    return f"{records:,} record" + ("" if records == 1 else "s")


def _talk(totals: dict[str, Any]) -> str:
    """Return the talk time; of less than a minute in seconds, so that a first call is not none."""
    talk_ms = totals["talk_ms"]
    return f"{talk_ms / 60_000:,.0f} min" if talk_ms >= 60_000 or not talk_ms else f"{talk_ms / 1_000:.0f} s"


def _energy(totals: dict[str, Any]) -> list[str]:
    """Return energy and CO2; of single calls they are milliwatt-hours and milligrams."""
    amounts = (energy_wh(totals), "Wh"), (totals["co2_ug"] / 1_000_000, "g CO2e")
    return [f"{amount:,.1f} {unit}" if amount >= 1 else f"{amount * 1000:.3g} m{unit}" for amount, unit in amounts]


def method_name(mos: dict[str, Any]) -> str:
    """Return method and kind of a MOS, as ``rtpengine-10 CQ``."""
    try:
        return f"{spelled(QualityMethod(mos['method']))} {MosKind(mos['kind']).name}"
    except ValueError:
        return f"method {mos['method']} kind {mos['kind']}"


def energy_wh(totals: dict[str, Any]) -> float:
    """Return the energy of all parts in watt-hours; the servers' part has its PUE in it."""
    total_mj = totals["device_mj"] + totals["network_mj"] + totals["server_mj"]
    return float(total_mj) / 3_600_000


def add_up(all_totals: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the totals of several blocks as one; MOS by method and kind, never across."""
    mos: dict[tuple[int, int], dict[str, Any]] = {}
    for totals in all_totals:
        for part in totals["mos"]:
            key = part["method"], part["kind"]
            had = mos.setdefault(key, {**part, "count": 0, "sum_milli": 0})
            had["count"] += part["count"]
            had["sum_milli"] += part["sum_milli"]
            had["minimum_milli"] = min(had["minimum_milli"], part["minimum_milli"])
    added: dict[str, Any] = {name: sum(totals[name] for totals in all_totals) for name in QUANTITIES}
    return {**added, "mos": [to_readable(mos[key]) for key in sorted(mos)]}


def describe_flag(flag: dict[str, Any]) -> str:
    """Return one line for something suspicious in a record: its name, the field to look at, and what it is."""
    return f"{flag['name']} ({flag['field']}): {flag['message']}"
