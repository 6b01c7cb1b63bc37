"""What causes and responses say of how a call ended."""

from __future__ import annotations

import pytest

from ledger.cdr import ReleasedBy
from telephony.adapters.causes import SIP_OF_Q850, q850_cause, released_by_code, sip_of_cause


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ('Q.850;cause=16;text="Normal call clearing"', 16),
        ("q.850 ; cause = 17", 17),
        ('SIP;cause=480;text="x", Q.850;cause=19', 19),
        ("SIP;cause=487", 0),
        ("Q.850;cause=128", 0),
        ("Q.850;cause=1600", 0),
        ("Q.850", 0),
        ("", 0),
    ],
)
def test_reason_header(reason, cause):
    assert q850_cause(reason) == cause


@pytest.mark.parametrize(
    ("code", "who"),
    [
        (487, ReleasedBy.CALLER),
        (480, ReleasedBy.CALLEE),
        (486, ReleasedBy.CALLEE),
        (600, ReleasedBy.CALLEE),
        (603, ReleasedBy.CALLEE),
        (404, ReleasedBy.NETWORK),
        (503, ReleasedBy.NETWORK),
        (0, ReleasedBy.UNKNOWN),
    ],
)
def test_who_gave_a_failed_attempt_up(code, who):
    assert released_by_code(code) is who


def test_every_cause_stands_for_a_failure():
    """What RFC 3398 does not name is a server's failure."""
    assert {400 <= sip_of_cause(cause) <= 606 for cause in range(1, 128)} == {True}
    assert sip_of_cause(99) == 500
    assert 16 not in SIP_OF_Q850
