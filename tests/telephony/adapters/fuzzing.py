"""What any adapter may be fed with, and the two ways in which it may end."""

from __future__ import annotations

from hypothesis import strategies as st

from ledger.errors import EncodingError
from telephony.adapters.base import DOCUMENTS_PER_BODY_MAX, Adapter
from telephony.source import SourceCall, SourcePart

ALMOST = (
    st.text(alphabet="0123456789.:-eE+ ", max_size=24)
    | st.text(max_size=6)
    | st.sampled_from(["NON-UTF8", "\ufffd", "\x00", "nan", "-1", "1e99", "9" * 19, "9" * 400, "x" * 5000])
)
"""Text that looks like a value, and text that does not."""

JSON_VALUES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | ALMOST | st.just([]) | st.just({})
)


@st.composite
def damaged(draw: st.DrawFn, documents: list[bytes]) -> bytes:
    """Return one of ``documents`` with some bytes cut out, put in or replaced."""
    data = bytearray(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 12)))
        data[at:until] = draw(st.binary(max_size=8) | st.sampled_from([b'"', b",", b"%", b"<", b"\xff", b"\n", b"}"]))
    return bytes(data)


def outcomes(adapter: Adapter, body: bytes, media_type: str = "") -> list[str]:
    """Return how the reading of each document in ``body`` ended; anything but an EncodingError gets out."""
    try:
        documents, _ = adapter.split(body, media_type)
    except EncodingError as error:
        return [type(error).__name__]
    assert 1 <= len(documents) <= DOCUMENTS_PER_BODY_MAX
    return [outcome(adapter, document) for document in documents]


def outcome(adapter: Adapter, document: bytes) -> str:
    """Return how the reading of one document ended."""
    try:
        source = adapter.parse(document)
    except EncodingError as error:
        return type(error).__name__ if error.where else f"{type(error).__name__} of nothing"
    # What is handed on must be storable: text without lone surrogates, and a check that agrees.
    adapter.check(document)
    source.raw.encode()
    if isinstance(source, SourceCall):
        for text in (source.call_id, source.from_tag, source.to_tag, source.caller, source.callee, source.codec):
            text.encode()
        assert source.call_id
        assert source.setup_ms <= (source.answer_ms or source.setup_ms) <= source.end_ms
        assert source.sip_code == 0 or 100 <= source.sip_code <= 699
        assert 0 <= source.q850_cause <= 127
    assert isinstance(source, SourceCall | SourcePart)
    return type(source).__name__


ENDINGS = {"SourceCall", "SourcePart", "FieldError", "EncodingError"}
