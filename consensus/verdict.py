"""What a check on a message says."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """ACCEPT: new and good, pass it on. IGNORE: not useful, no fault. REJECT: a lie or malformed, costs the peer."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"
