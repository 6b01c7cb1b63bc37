"""The call record as nearly every one is, and read faster for it: its grid zone and its table are of those that ship.

Whatever is read as one is a good ``CallRecord``. What is not may be one all the same, and is to be read again as that.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast, get_type_hints

import msgspec

from ledger.cdr import CallRecord, Energy
from ledger.codec import Wire
from ledger.models.tables import INTENSITY_MG_PER_KWH


def _twin_of(kind: type[Wire], **others: Any) -> Any:
    """Return a type with the fields of ``kind``, those in ``others`` with another type."""
    hints = get_type_hints(kind, include_extras=True) | others
    fields = [(name, hints[name]) for name in kind.__struct_fields__]
    return msgspec.defstruct(kind.__name__, fields, bases=(Wire,), frozen=True)


_TABLES: Final = tuple(sorted({table for table, _ in INTENSITY_MG_PER_KWH}))
_ZONES: Final = tuple(sorted({zone for _, zone in INTENSITY_MG_PER_KWH}))

USUAL_RECORD: Final = cast(
    "type[CallRecord]",
    _twin_of(CallRecord, energy=_twin_of(Energy, grid_zone=Literal[_ZONES], intensity_table=Literal[_TABLES]) | None),
)
"""A CallRecord but for its two regular expressions, which take a third of the time of decoding one: a name that is
known is looked up instead, and is no string of its own."""
