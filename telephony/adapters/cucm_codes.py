"""Numbers in the records of Cisco CUCM: codecs, clearing causes, addresses.

Source: Cisco, Call Reporting and Billing Administration Guide for Cisco Unified Communications Manager, release 15,
"Codec Types", "Call Termination Cause Codes", "Convert Signed Decimal Value to IP Address".
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Final

ADDRESS_MIN: Final = -(2**31)
ADDRESS_MAX: Final = 2**32 - 1

CALL_SPLIT: Final = 393216
"""Both sides have it where a transfer or conference took the call over: nobody hung up."""

CODEC_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        2: "PCMA",
        3: "PCMA",
        4: "PCMU",
        5: "PCMU",
        6: "G722",
        7: "G722",
        8: "G722",
        9: "G723",
        10: "G728",
        11: "G729",
        12: "G729A",
        15: "G729",
        16: "G729A",
        18: "GSM",
        19: "GSM-HR",
        20: "GSM-EFR",
        25: "L16",
        40: "G7221",
        41: "G7221",
        42: "mpeg4-generic",
        **dict.fromkeys(range(43, 50), "MP4A-LATM"),
        80: "GSM",
        82: "G726-32",
        83: "G726-24",
        84: "G726-16",
        86: "iLBC",
        89: "iSAC",
        90: "opus",
        107: "T.38",
    }
)
"""RTP encoding name by payload capability; G.729 Annex B is silence suppression, the codec is the same."""

_SIP_CAUSES: Final[Mapping[int, int]] = MappingProxyType(
    {
        0x01000029: 400,
        0x02000015: 401,
        0x03000015: 402,
        0x04000015: 403,
        0x05000001: 404,
        0x0600003F: 405,
        0x0700004F: 406,
        0x08000015: 407,
        0x09000066: 408,
        0x0B000016: 410,
        0x0C00007F: 411,
        0x0E00007F: 413,
        0x0F00007F: 414,
        0x1000004F: 415,
        0x1100007F: 416,
        0x1200003F: 417,
        0x1500007F: 420,
        0x1600007F: 421,
        0x1800007F: 423,
        0x19000015: 424,
        0x1E000015: 429,
        0x22000015: 433,
        0x40000012: 480,
        0x41000029: 481,
        0x42000019: 482,
        0x43000019: 483,
        0x4400001C: 484,
        0x45000001: 485,
        0x46000011: 486,
        0x4700001F: 487,
        0x4800001F: 488,
        0x4B000011: 491,
        0x4D000011: 493,
        0x54000029: 500,
        0x56000026: 502,
        0x57000029: 503,
        0x58000066: 504,
        0x5900007F: 505,
        0x5A00007F: 513,
        0xA1000011: 600,
        0xA2000015: 603,
        0xA3000001: 604,
        0xA400001F: 606,
        0xA700003F: 503,
    }
)
"""SIP response by those causes that stand for one."""


def q850_of(value: int) -> int:
    """Return the Q.850 cause in a clearing cause; 0 for Cisco's own that have none.

    Causes that stand for a SIP response have it in their lowest byte: 0x46000011, 486 Busy Here, is 17, user busy.
    """
    if value in _SIP_CAUSES:
        return value & 0x7F
    return value if value <= 127 else 0


def sip_of(value: int) -> int:
    """Return the SIP response that a clearing cause stands for, 0 where it stands for none."""
    return _SIP_CAUSES.get(value, 0)


def address_of(number: int) -> str:
    """Return the IPv4 address in CUCM's signed number of four bytes in reverse order, empty for 0, which is none.

    number: ADDRESS_MIN to ADDRESS_MAX.
    """
    return str(IPv4Address((number % 2**32).to_bytes(4, "little"))) if number else ""
