"""Release causes: ITU-T Q.850 numbers, and the SIP response that stands for each where a call was never answered.

Source: RFC 3398, 7.2.4.1 (ISUP cause to SIP status).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

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
