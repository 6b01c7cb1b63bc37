"""Who called whom, in one spelling: numbers as E.164 with a plus, everything else as a short SIP URI.

A subject is forgotten by the spelling that the vault has, so the same party must come out the same, however a platform
writes it: ``sip:+442071838750@gw.test;user=phone``, ``tel:+44-20-7183-8750``, ``020 7183 8750`` at a British carrier.

    number                     +442071838750, and +442071838750;ext=12 where it has an extension
    emergency, short number    tel:999;phone-context=+44: what it reaches depends on the country
    withheld                   sip:anonymous@anonymous.invalid
    anything else with a host  sip:anna@host.test: user as it is, host in lower case, no parameters, no password
    the rest                   as it is

What is no number in any known plan stays what it was: nothing is guessed, and nothing fails.

Sources: RFC 3261, section 19.1 (SIP URIs); RFC 3966 (tel URIs); RFC 3323 (anonymity); ITU-T E.164; numbering plans are
those of the ``phonenumbers`` library.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from ledger.errors import ConfigError

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

ANONYMOUS: Final = "sip:anonymous@anonymous.invalid"
"""Who withheld the number (RFC 3323, 4.1.1.3)."""
CACHED_PARTIES: Final = 16_384
"""Parties whose spelling is remembered: about 5 MB. A national number costs the library some 50 us."""
TEXT_MAX: Final = 512
"""Longer ones are nobody's number or address and stay as they are."""

_E164: Final = re.compile(
    r"(?:(?:sips?|tel):)?(\+[1-9][0-9]{6,14})(?:@[^;?]*)?(?:;user=phone)?", re.ASCII | re.IGNORECASE
)
"""What most platforms write, and what needs no library."""
_URI: Final = re.compile(r"(sips?|tel):(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_NAME_ADDR: Final = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"|[^<"]*)\s*<([^<>]*)>.*', re.DOTALL)
_DIALLED: Final = re.compile(
    r"(\+?\(?[0-9][0-9 .()/-]*?)[ ]*(?:(?:;ext=|;?[ ]*(?:ext\.?|x|#)[ ]*)([0-9]{1,11}))?", re.ASCII | re.IGNORECASE
)
_IPV4: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", re.ASCII)
_SPACING: Final = re.compile(r"[ .()/-]", re.ASCII)
_CONTEXT: Final = re.compile(r";phone-context=(\+[0-9.()-]+)(?:;|$)", re.ASCII | re.IGNORECASE)
_EXTENSION: Final = re.compile(r";ext=([0-9.()-]+)(?:;|$)", re.ASCII | re.IGNORECASE)
_WITHHELD: Final = frozenset({"anonymous", "restricted"})
"""Users of calls without a caller's number, at whatever host."""


def check_region(region: str) -> None:
    """Raise ConfigError unless ``region`` is empty or a country of the numbering plans, ``GB``."""
    from phonenumbers import SUPPORTED_REGIONS

    if region and region not in SUPPORTED_REGIONS:
        expected = "two capital letters of a country, as GB"
        raise ConfigError("no such region", where="region", expected=expected, actual=region)


def party_of(text: str, region: str = "") -> str:
    """Return the one spelling of a caller or callee.

    text: SIP or tel URI, with or without a display name, or a number as people write it; whatever else is returned.
    region: the country whose national formats the platform writes, ``GB``; empty: only international ones are read.
    """
    found = _E164.fullmatch(text)
    return found[1] if found else _party_of(text, region)


@lru_cache(maxsize=CACHED_PARTIES)
def _party_of(text: str, region: str) -> str:
    if len(text) > TEXT_MAX:
        return text
    named = _NAME_ADDR.fullmatch(text)
    address = (named[1] if named else text).strip()
    uri = _URI.fullmatch(address)
    if not uri:
        number = _number_in(address, region)
        return number or (ANONYMOUS if address.lower() in _WITHHELD else address)
    if uri[1].lower() == "tel":
        return _tel(address, uri[2], region)
    return _sip(uri[2], region)


def _tel(address: str, rest: str, region: str) -> str:
    """Return the party of a tel URI (RFC 3966): a local number is read in its context where that is a number."""
    subscriber = rest.partition(";")[0]
    extension = _EXTENSION.search(rest)
    if extension:
        subscriber += ";ext=" + _SPACING.sub("", extension[1])
    context = _CONTEXT.search(rest)
    if subscriber.startswith("+") or not context:
        # A context that is a domain is somebody's private plan.
        is_private = ";phone-context=" in rest.lower() and not subscriber.startswith("+")
        return (not is_private and _number_in(subscriber, region)) or address
    prefix = _SPACING.sub("", context[1])
    number = _number_in(subscriber, _region_of(prefix))
    return number or f"tel:{_SPACING.sub('', subscriber)};phone-context={prefix}"


def _region_of(prefix: str) -> str:
    """Return a region with this country code, ``+44``; empty where it is more than that, or none."""
    import phonenumbers as library

    found = library.region_code_for_country_code(int(prefix[1:])) if len(prefix) <= 4 else ""
    return found if found in library.SUPPORTED_REGIONS else ""


def _sip(rest: str, region: str) -> str:
    """Return the party of a SIP URI, given what is behind the scheme."""
    # A telephone number as user may have parameters of its own, in front of the @ (RFC 3261, 19.1.6).
    user, at, host = rest.rpartition("@")
    if not at:
        return _number_in(rest.partition(";")[0], region) or f"sip:{_host(rest)}"
    user = user.partition(":")[0]
    host = _host(host)
    name, _, parameters = user.partition(";")
    dialled = unquote(name, errors="surrogateescape")
    if dialled.lower() in _WITHHELD or host == "anonymous.invalid":
        return ANONYMOUS
    extension = _EXTENSION.search(";" + parameters)
    if extension:
        dialled += ";ext=" + _SPACING.sub("", extension[1])
    return _number_in(dialled, region) or f"sip:{name}@{host}"


def _host(text: str) -> str:
    """Return host and port, without parameters and headers; the port of SIP itself is left out."""
    return re.split(r"[;?]", text, maxsplit=1)[0].strip().lower().removesuffix(":5060")


def _number_in(text: str, region: str) -> str:
    """Return the number that ``text`` is, as E.164 or in its country; empty where it is none, or no one knows which."""
    dialled = _DIALLED.fullmatch(text)
    if not dialled or _IPV4.fullmatch(text):
        return ""
    # +44 (0)20 7183 8750: the nought is for callers within the country.
    written = dialled[1].replace("(0)", "", 1) if dialled[1].startswith("+") else dialled[1]
    digits = _SPACING.sub("", written)
    number = _with_plus(digits) if digits.startswith("+") else _without_plus(digits, region)
    return f"{number};ext={dialled[2]}" if number.startswith("+") and dialled[2] else number


def _with_plus(digits: str) -> str:
    """Return an international number: whether somebody has it is not asked, plans change faster than libraries."""
    return digits if 7 <= len(digits) - 1 <= 15 and digits[1] != "0" else ""


def _without_plus(digits: str, region: str) -> str:
    """Return a number written as it is dialled in ``region``, or its international form without the plus."""
    import phonenumbers as library

    if not region:
        # 00 is what ITU-T E.123 recommends in front of international numbers; without it, a valid one is required.
        if digits.startswith("00"):
            return _with_plus("+" + digits[2:])
        return ""
    if _is_short(digits, region):
        return f"tel:{digits};phone-context=+{library.country_code_for_region(region)}"
    number = _parsed(digits, region)
    if number is None:
        return ""
    if library.is_valid_number(number):
        return _e164(number)
    international = _parsed("+" + digits, region)
    if international is not None and library.is_valid_number(international):
        return _e164(international)
    # Not given out as far as the library knows. With a prefix that only numbers have it is one all the same.
    metadata = library.PhoneMetadata.metadata_for_region(region)
    prefix = (metadata and metadata.national_prefix) or ""
    is_dialled = digits.startswith("00") or (prefix and digits.startswith(prefix))
    reason = library.is_possible_number_with_reason(number)
    return _e164(number) if is_dialled and reason == library.ValidationResult.IS_POSSIBLE else ""


def _is_short(digits: str, region: str) -> bool:
    import phonenumbers as library

    number = _parsed(digits, region) if len(digits) <= 6 else None
    return library.is_emergency_number(digits, region) or (
        number is not None and library.is_valid_short_number_for_region(number, region)
    )


def _parsed(digits: str, region: str) -> PhoneNumber | None:
    import phonenumbers as library

    try:
        return library.parse(digits, region)
    except library.NumberParseException:
        return None


def _e164(number: PhoneNumber) -> str:
    import phonenumbers as library

    return library.format_number(number, library.PhoneNumberFormat.E164)
