"""Where in a key file the line of each subject is, in little memory: a month of a large carrier has a million subjects.

Subjects are keyed hashes, so their first bytes spread them evenly. What begins alike lies in one bucket, one entry
behind the other, and is searched as bytes: some 30 bytes for each subject, where a dict would take 300.
"""

from __future__ import annotations

from typing import Final

SUBJECT_BYTES: Final = 16
OFFSET_MAX: Final = 2**39 - 1
"""Largest offset of a line: half a terabyte, three billion subjects."""

_BUCKET_BYTES: Final = 2
"""Of a subject: what decides its bucket."""
_REST_BYTES: Final = SUBJECT_BYTES - _BUCKET_BYTES
_PLACE_BYTES: Final = 5
_ENTRY_BYTES: Final = _REST_BYTES + _PLACE_BYTES


class KeyTable:
    """The subjects of one key file: the offset of the last line of each, and whether a key is in it.

    Attributes:
        keys: how many have a key.
    """

    def __init__(self) -> None:
        self.keys = 0
        self._buckets: list[bytearray | None] = [None] * (1 << 8 * _BUCKET_BYTES)

    def find(self, subject: bytes) -> tuple[int, bool] | None:
        """Return the offset of the line of ``subject`` (16 bytes) and whether it has a key; None where it has none."""
        bucket = self._buckets[int.from_bytes(subject[:_BUCKET_BYTES])]
        if bucket is None:
            return None
        at = _position(bucket, subject)
        if at < 0:
            return None
        place = int.from_bytes(bucket[at + _REST_BYTES : at + _ENTRY_BYTES])
        return place >> 1, bool(place & 1)

    def put(self, subject: bytes, offset: int, *, has_key: bool) -> None:
        """Note the line of ``subject`` (16 bytes) at ``offset`` (up to OFFSET_MAX) instead of an earlier one."""
        place = (offset << 1 | has_key).to_bytes(_PLACE_BYTES)
        number = int.from_bytes(subject[:_BUCKET_BYTES])
        bucket = self._buckets[number]
        if bucket is None:
            bucket = self._buckets[number] = bytearray()
        at = _position(bucket, subject)
        if at < 0:
            bucket += subject[_BUCKET_BYTES:] + place
        else:
            self.keys -= bucket[at + _ENTRY_BYTES - 1] & 1
            bucket[at + _REST_BYTES : at + _ENTRY_BYTES] = place
        self.keys += has_key


def _position(bucket: bytearray, subject: bytes) -> int:
    """Return where in ``bucket`` the entry of ``subject`` begins, -1 where there is none."""
    rest = subject[_BUCKET_BYTES:]
    at = bucket.find(rest)
    # Bytes of two entries may happen to spell a third.
    while at >= 0 and at % _ENTRY_BYTES:
        at = bucket.find(rest, at + 1)
    return at
