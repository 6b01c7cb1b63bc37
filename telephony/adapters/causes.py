"""Why and by whom a call ended: ITU-T Q.850 causes, and what SIP responses say of it.

Source: RFC 3398, 7.2.4.1 (ISUP cause to SIP status); RFC 3326 (the Reason header).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import ReleasedBy

_REASON: Final = re.compile(r"Q\.850\b[^,]*?;\s*cause\s*=\s*([0-9]{1,3})(?![0-9])", re.ASCII | re.IGNORECASE)

SIP_OF_Q850: Final[Mapping[int, int]] = MappingProxyType(
    {
        1: 404,
        2: 404,
        3: 404,
        17: 486,
        18: 408,
        19: 480,
        20: 480,
        21: 403,
        22: 410,
        23: 410,
        26: 404,
        27: 502,
        28: 484,
        29: 501,
        31: 480,
        34: 503,
        38: 503,
        41: 503,
        42: 503,
        47: 503,
        55: 403,
        57: 403,
        58: 503,
        65: 488,
        70: 488,
        79: 501,
        87: 403,
        88: 503,
        102: 504,
        111: 500,
        127: 500,
    }
)
"""Response by cause; 16, normal clearing, has none: it depends on who cleared."""

PARTY_CAUSES: Final = frozenset({16, 17, 19, 21, 31})
"""Causes that say a person or device ended or refused the call; any other is the network's word."""


def sip_of_cause(cause: int) -> int:
    """Return the SIP response for a call that ended by ``cause`` unanswered; 500 where RFC 3398 has none."""
    return SIP_OF_Q850.get(cause, 500)


def q850_cause(reason: str) -> int:
    """Return the cause of a Reason header (RFC 3326) for Q.850, 0 to 127; 0 where it has none."""
    found = _REASON.search(reason)
    cause = int(found[1]) if found else 0
    return cause if cause <= 127 else 0


def released_by_code(sip_code: int) -> ReleasedBy:
    """Return who gave a failed attempt up, by its final response: 487 comes from a CANCEL, busy from the callee.

    sip_code: 300 to 699, or 0 where the platform has none.
    """
    if sip_code == 487:
        return ReleasedBy.CALLER
    if sip_code in {480, 486, 600, 603}:
        return ReleasedBy.CALLEE
    return ReleasedBy.NETWORK if sip_code else ReleasedBy.UNKNOWN
