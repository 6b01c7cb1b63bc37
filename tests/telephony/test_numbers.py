"""One spelling for one party, and nothing that a platform writes makes it fail."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from phonenumbers import SUPPORTED_REGIONS, example_number, format_number

from ledger.errors import ConfigError
from telephony.numbers import ANONYMOUS, check_region, party_of

CASES = [
    # What every platform writes, without any region.
    ("sip:+442071838750@lab.test", "", "+442071838750"),
    ("sips:+442071838750@lab.test:5061;user=phone", "", "+442071838750"),
    ("SIP:+442071838750@LAB.TEST;user=phone;tag=a", "", "+442071838750"),
    ("tel:+44-20-7183-8750", "", "+442071838750"),
    ("tel:+442071838750;phone-context=x", "", "+442071838750"),
    ("sip:%2B442071838750@lab.test", "", "+442071838750"),
    ("sip:+442071838750;npdi;rn=+44555@lab.test", "", "+442071838750"),
    ('"Anna, 12" <sip:+442071838750@lab.test>;tag=1', "", "+442071838750"),
    ("Anna <sip:anna@lab.test>", "", "sip:anna@lab.test"),
    ("+44 (0)20 7183 8750", "", "+442071838750"),
    ("00442071838750", "", "+442071838750"),
    # Without a region a national number is nobody's.
    ("sip:02071838750@lab.test", "", "sip:02071838750@lab.test"),
    ("02071838750", "", "02071838750"),
    # National formats, and international ones as they are dialled.
    ("sip:02071838750@lab.test", "GB", "+442071838750"),
    ("sip:020-7183-8750@lab.test;user=phone", "GB", "+442071838750"),
    ("020 7183 8750", "GB", "+442071838750"),
    ("sip:442071838750@lab.test", "GB", "+442071838750"),
    ("sip:0012025550123@lab.test", "GB", "+12025550123"),
    ("sip:33142685300@lab.test", "GB", "+33142685300"),
    ("2025550123", "US", "+12025550123"),
    ("12025550123", "US", "+12025550123"),
    ("011442071838750", "US", "+442071838750"),
    ("(202) 555-0123", "US", "+12025550123"),
    ("sip:02071838750@lab.test", "US", "sip:02071838750@lab.test"),
    ("0612345678", "FR", "+33612345678"),
    ("0399123456", "IT", "+390399123456"),
    # Of a plan's numbers that nobody has yet the prefix tells.
    ("02000000000", "GB", "+442000000000"),
    # Extensions, behind a number and inside a company.
    ("tel:+442071838750;ext=12", "", "+442071838750;ext=12"),
    ("020 7183 8750 ext. 12", "GB", "+442071838750;ext=12"),
    ("020 7183 8750 x12", "GB", "+442071838750;ext=12"),
    ("sip:+442071838750;ext=12@lab.test", "", "+442071838750;ext=12"),
    ("sip:2001@PBX.lab.test", "GB", "sip:2001@pbx.lab.test"),
    ("2001", "GB", "2001"),
    # Emergency and short numbers stay, with their country.
    ("sip:999@lab.test", "GB", "tel:999;phone-context=+44"),
    ("112", "DE", "tel:112;phone-context=+49"),
    ("911", "US", "tel:911;phone-context=+1"),
    ("118500", "GB", "tel:118500;phone-context=+44"),
    ("sip:999@lab.test", "", "sip:999@lab.test"),
    ("tel:999;phone-context=+44", "US", "tel:999;phone-context=+44"),
    # Local numbers in a context.
    ("tel:02071838750;phone-context=+44", "US", "+442071838750"),
    ("tel:7042;phone-context=+1-201-555", "GB", "tel:7042;phone-context=+1201555"),
    ("tel:2001;phone-context=pbx.lab.test", "GB", "tel:2001;phone-context=pbx.lab.test"),
    # Withheld.
    ('"Anonymous" <sip:anonymous@anonymous.invalid>', "GB", ANONYMOUS),
    ("sip:Anonymous@lab.test;tag=1", "", ANONYMOUS),
    ("sip:c8oqz84zk7z@anonymous.invalid", "", ANONYMOUS),
    ("anonymous", "", ANONYMOUS),
    # Everybody else.
    ("sip:Anna@LAB.Test:5060;transport=tcp?subject=x", "", "sip:Anna@lab.test"),
    ("sips:anna:password@lab.test:5071", "", "sip:anna@lab.test:5071"),
    ("sip:anna@[2001:DB8::1]:5060", "GB", "sip:anna@[2001:db8::1]"),
    ("sip:lab.TEST", "", "sip:lab.test"),
    ("sip:192.0.2.17", "GB", "sip:192.0.2.17"),
    ("sip:192.0.2.17@lab.test", "GB", "sip:192.0.2.17@lab.test"),
    ("sip:+44@lab.test", "", "sip:+44@lab.test"),
    ("sip:*21#@lab.test", "GB", "sip:*21#@lab.test"),
    ("urn:service:sos", "GB", "urn:service:sos"),
    ("anna", "GB", "anna"),
    ("", "GB", ""),
    ("sip:", "GB", "sip:"),
    ("tel:", "GB", "tel:"),
    ("tel:;phone-context=+44", "GB", "tel:;phone-context=+44"),
    ("+442071838750" * 60, "GB", "+442071838750" * 60),
    ("\u0660\u0662\u0660\u0667", "GB", "\u0660\u0662\u0660\u0667"),
]


@pytest.mark.parametrize(("text", "region", "party"), CASES)
def test_party(text: str, region: str, party: str) -> None:
    assert party_of(text, region) == party


@pytest.mark.parametrize(("text", "region", "party"), CASES)
def test_a_spelling_stands_for_itself(text: str, region: str, party: str) -> None:
    """Who names a subject as the vault has it finds it."""
    assert party_of(party, region) == party


@pytest.mark.parametrize("region", sorted(SUPPORTED_REGIONS))
def test_each_country_writes_its_numbers_in_its_own_way(region: str) -> None:
    number = example_number(region)
    national, international, e164, rfc3966 = (format_number(number, kind) for kind in (2, 1, 0, 3))
    assert {party_of(text, region) for text in (international, e164, rfc3966, f"sip:{e164}@x.test")} == {e164}
    assert party_of(f"sip:{national.replace(' ', '-')}@x.test;user=phone", region) == e164


texts = st.one_of(
    st.text(),
    st.text("+0123456789;=@:sip.tel<>\"' ()-/x#ext%", max_size=60),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "sip:", "tel:", "<sip:", '"a" <sips:']),
        st.from_regex(r"\+?[0-9 .()-]{0,20}"),
        st.sampled_from(["", "@h", ";ext=1", ";phone-context=+44", ";phone-context=+", "@h;user=phone", ">"]),
    ),
)


@given(texts, st.sampled_from(["", "GB", "US", "IT", "ZZ", "DE"]))
@example("\ud800", "GB")
@example("sip:%ff@x", "GB")
@example('"' * 400, "GB")
@example("<" * 400, "GB")
def test_whatever_comes_it_has_one_spelling(text: str, region: str) -> None:
    party = party_of(text, region)
    assert party_of(party, region) == party


def test_a_region_is_a_country() -> None:
    check_region("")
    check_region("GB")
    for wrong in ("gb", "UK", "+44", "ZZ"):
        with pytest.raises(ConfigError, match="no such region"):
            check_region(wrong)
