"""A chain as the bytes it is kept in: nothing decoded that an auditor must judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from consensus.rows import FINAL_CERTIFICATE, read_block, read_certificate, read_final_point, read_unfinal
from ledger.block import BodyItem, Certificate
from ledger.codec import Bytes32, Count, Wire, decode, decode_loose, encode
from ledger.errors import EncodingError, StoreDamaged
from ledger.store import Space, Store, height_key


class Head(Wire, frozen=True):
    """What a source says it holds: blocks ``first_height`` to ``final_height``, all final."""

    first_height: Count
    final_height: Count
    """0 for a chain that has only its genesis."""
    final_id: Bytes32


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One block as it was found.

    Attributes:
        height: where the source has it.
        stated_id: the id under which a data directory keeps it; None where nothing names it.
        sealed: encoded SealedHeader.
        body: encoded list of BodyItem.
        transactions: encoded, in the order of the body; None where one is missing.
    """

    height: int
    stated_id: bytes | None
    sealed: bytes
    body: bytes
    transactions: list[bytes | None]


@dataclass(frozen=True, slots=True)
class RawFinality:
    """What makes the last block final: a certificate on the link from it to a child.

    Attributes:
        child: encoded SealedHeader of the link's target, None where there is none.
        certificate: encoded Certificate on the link.
    """

    child: bytes | None
    certificate: bytes | None


def read_head(store: Store, chain_id: bytes) -> Head:
    """Return how far a store's chain is final. Raises StoreDamaged."""
    point = read_final_point(store)
    return Head(1, 0, chain_id) if point is None else Head(1, point.height, point.block_id)


def read_raw_block(store: Store, height: int) -> RawBlock | None:
    """Return the final block at ``height`` (1 and up), None where the store has none.

    Raises StoreDamaged where a file or row cannot be read.
    """
    block_id = store.get_checked(height_key(height))
    if block_id is None:
        return None
    sealed = store.get_checked(Space.HEADER.value + block_id)
    body = store.get_checked(Space.BODY_LIST.value + block_id)
    if sealed is None or body is None:
        raise StoreDamaged(
            "the block that the height index names is missing",
            where="header" if sealed is None else "body",
            expected=block_id,
        )
    try:
        items = decode_loose(body, list[BodyItem])
    except EncodingError:
        items = []  # the auditor decodes it again, and says what is wrong with it
    return RawBlock(height, block_id, sealed, body, [store.body(item.tx_id) for item in items])


def read_finality(store: Store, head: Head) -> RawFinality:
    """Return what makes the head of a store final, as far as it is there."""
    if not head.final_height:
        return RawFinality(None, None)
    for raw in _certificates(store):
        certificate = _certificate_of(raw)
        if (
            certificate is not None
            and certificate.s_id == head.final_id
            and certificate.t_height == head.final_height + 1
        ):
            return RawFinality(store.get_checked(Space.HEADER.value + certificate.t_id), raw)
    return RawFinality(None, store.get_checked(FINAL_CERTIFICATE))


def read_end(store: Store, chain_id: bytes) -> tuple[Head, RawFinality]:
    """Return the head of a store and what makes it final, of one moment: a running node writes between two reads.

    Raises StoreDamaged.
    """
    head = read_head(store, chain_id)
    while True:
        finality = read_finality(store, head)
        now = read_head(store, chain_id)
        # A head that moved on took its certificate along; blocks come seconds apart, so the next look finds a pair.
        if now == head:
            return head, finality
        head = now


def _certificates(store: Store) -> Iterator[bytes]:
    """Yield the certificates that may make the final block final, likeliest first."""
    raw = store.get_checked(FINAL_CERTIFICATE)
    if raw is not None:
        yield raw
    best = read_certificate(store)
    if best is not None:
        yield encode(best)
    for block_id in read_unfinal(store):
        block = read_block(store, block_id)
        if block is not None and block.sealed.certificate is not None:
            yield encode(block.sealed.certificate)


def _certificate_of(raw: bytes) -> Certificate | None:
    try:
        return decode(raw, Certificate)
    except EncodingError:
        return None
