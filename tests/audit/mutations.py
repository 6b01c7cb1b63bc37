"""Mutants of good chains: each kind changes one sort of thing, and is drawn from a seed.

A kind is a function of a random source and a world that returns an export. Some change bytes, some values in
them, some what a block holds, with all that follows from it derived, signed and made final again: whoever checks only
signatures and hashes finds nothing there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import msgpack
from msgspec.structs import replace as with_fields

from audit.export import FrameType, make_frame, make_preamble
from audit.raw import Head, RawBlock, RawFinality
from ledger import merkle
from ledger.block import BodyItem, Certificate, Header, SealedHeader, block_id_of, body_root, certificate_hash
from ledger.codec import decode, encode
from ledger.crypto import PrivateKey
from ledger.errors import LedgerError
from ledger.transaction import Kind, Transaction, make_transaction, tx_id_of
from tests.audit.chains import GOVERN_KEYS, NODE_KEYS
from tests.audit.forgery import Forgery, Unfit, all_variants
from tests.audit.records import changed_record, shifted
from tests.audit.tamper import Parts, high_s
from tests.audit.worlds import KEYS, STRANGER, World, any_deed, sign_items, world

Mutate = Callable[[Random, World], bytes]
Frames = list[tuple[int, bytes]]
KINDS: dict[str, Mutate] = {}


def kind(mutate: Mutate) -> Mutate:
    """Note a kind of mutation by its function's name."""
    KINDS[mutate.__name__] = mutate
    return mutate


# -- values ------------------------------------------------------------------------------------------------------------


def spots(value: Any, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Return the path of every value inside nested arrays, arrays included."""
    found = [path] if path else []
    if isinstance(value, list):
        for index, one in enumerate(value):
            found += spots(one, (*path, index))
    return found


def other_value(rng: Random, value: Any) -> Any:
    """Return another value in the place of one, most often of its own type."""
    if rng.random() < 0.08:
        return rng.choice((None, 0, 1, -1, b"", "", [], True, 1.0, 2**63, b"\0" * 32, "alfa", {}))
    if isinstance(value, int):
        near = value + rng.choice((-1, 1)) * rng.choice((1, 1, 1, 2, 7, 100, 1_000, 60_000))
        return rng.choice((near, near, near, 0, 1, 2**63 - 1, 2**32, value * 2, float(value) if value < 2**50 else 0))
    if isinstance(value, bytes):
        return _other_bytes(rng, value)
    if isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), "bravo", "-", "\u00e9" + value, value[::-1]))
    if isinstance(value, list):
        return _other_list(rng, value)
    return rng.choice((0, b"", [], "", 1))


def _other_bytes(rng: Random, value: bytes) -> bytes | str:
    if not value:
        return rng.choice((b"\0", b"\1", b"\xff"))
    how = rng.randrange(8)
    if how < 4:
        return _flipped(rng, value)
    if how == 4:
        return rng.randbytes(len(value))
    if how == 5:
        return value[:-1] if rng.random() < 0.5 else value + b"\0"
    return bytes(len(value)) if how == 6 else value[::-1]


def _flipped(rng: Random, value: bytes) -> bytes:
    made = bytearray(value)
    made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def _other_list(rng: Random, value: list[Any]) -> list[Any]:
    made = list(value)
    if not made:
        return [rng.choice((0, b"\0" * 32, "alfa", []))]
    how, at = rng.randrange(4), rng.randrange(len(made))
    if how == 0:
        del made[at]
    elif how == 1:
        made.insert(at, copy.deepcopy(made[at]))
    elif how == 2:
        made.append(rng.choice((0, None, b"", copy.deepcopy(made[0]))))
    else:
        other = rng.randrange(len(made))
        made[at], made[other] = made[other], made[at]
    return made


def change_value(rng: Random, data: bytes, under: tuple[int, ...] = ()) -> bytes:
    """Return the encoding of a value with one part, at or below a path, replaced."""
    value = [msgpack.unpackb(data, strict_map_key=False)]
    within = [path for path in spots(value) if path[: len(under) + 1] == (0, *under)]
    path = rng.choice(within)
    here = value
    for index in path[:-1]:
        here = here[index]
    here[path[-1]] = other_value(rng, here[path[-1]])
    packed: bytes = msgpack.packb(value[0])
    return packed


def spell_otherwise(rng: Random, data: bytes) -> bytes:
    """Return another spelling of a value: one number, length or header longer than it has to be."""
    value = msgpack.unpackb(data)
    places = [value, *(_at(value, path) for path in spots(value))]
    left = [rng.choice([index for index, one in enumerate(places) if one is not None])]

    def spell(one: Any) -> bytes:
        is_longer, left[0] = left[0] == 0, left[0] - 1
        if isinstance(one, list):
            size = b"\xdd" + len(one).to_bytes(4) if is_longer else msgpack.Packer().pack_array_header(len(one))
            return size + b"".join(map(spell, one))
        if not is_longer or one is None:
            return bytes(msgpack.packb(one))
        if isinstance(one, int):
            return b"\xd3" + one.to_bytes(8, signed=True) if one < 0 or one >= 2**32 else b"\xcf" + one.to_bytes(8)
        raw = one if isinstance(one, bytes) else one.encode()
        return (b"\xc6" if isinstance(one, bytes) else b"\xdb") + len(raw).to_bytes(4) + raw

    return spell(value)


def _at(value: Any, path: tuple[int, ...]) -> Any:
    for index in path:
        value = value[index]
    return value


# -- bytes and frames of the file --------------------------------------------------------------------------------------


def frames_of(parts: Parts) -> Frames:
    """Return an export as its frames."""
    frames: Frames = [(FrameType.GENESIS, encode(parts.genesis)), (FrameType.HEAD, encode(parts.head))]
    for block in parts.blocks:
        frames += [(FrameType.SEALED, block.sealed), (FrameType.BODY, block.body)]
        frames += [(FrameType.TRANSACTION, raw) for raw in block.transactions if raw is not None]
    if parts.finality.child is not None:
        frames.append((FrameType.CHILD, parts.finality.child))
    if parts.finality.certificate is not None:
        frames.append((FrameType.CERTIFICATE, parts.finality.certificate))
    return [*frames, (FrameType.END, b"")]


def join(frames: Frames) -> bytes:
    """Return the export of these frames."""
    return make_preamble() + b"".join(make_frame(kind_, payload) for kind_, payload in frames)  # type: ignore[arg-type]


def shorter(rng: Random, w: World) -> Parts:
    """Return a chain cut at a random block, with a child and certificates that make that one final."""
    height = rng.randint(1, w.height)
    if height == w.height:
        return w.parts.copy()
    return w.finish(height, w.parts.blocks[height - 1], w.parts.header(height))


@kind
def bits_flipped(rng: Random, w: World) -> bytes:
    """A bit of the file."""
    return _flipped(rng, w.parts.to_export())


@kind
def file_cut(rng: Random, w: World) -> bytes:
    """The end of the file is missing, or a piece in it, or something was added."""
    data = w.parts.to_export()
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 9, 100))
    return rng.choice((data[:at], data[:at] + data[at + size :], data[:at] + rng.randbytes(size) + data[at:]))


@kind
def frames_moved(rng: Random, w: World) -> bytes:
    """Whole frames dropped, doubled, exchanged or of another type."""
    frames = frames_of(shorter(rng, w))
    at, other = rng.randrange(len(frames)), rng.randrange(len(frames))
    how = rng.randrange(4)
    if how == 0:
        del frames[at]
    elif how == 1:
        frames.insert(other, frames[at])
    elif how == 2:
        frames[at], frames[other] = frames[other], frames[at]
    else:
        frames[at] = (rng.choice((*range(10), 255)), frames[at][1])
    return join(frames)


def _in_a_frame(change: Callable[[Random, bytes], bytes]) -> Mutate:
    def mutate(rng: Random, w: World) -> bytes:
        frames = frames_of(shorter(rng, w))
        # Each type of frame as often as another, so that the few at the ends are not left out.
        type_ = rng.choice(sorted({kind_ for kind_, payload in frames if payload}))
        at = rng.choice([index for index, frame in enumerate(frames) if frame[0] == type_])
        frames[at] = (frames[at][0], change(rng, frames[at][1]))
        return join(frames)

    return mutate


def _bytes_changed(rng: Random, payload: bytes) -> bytes:
    at = rng.randrange(len(payload))
    pieces = (_flipped(rng, payload), _flipped(rng, payload), payload[:at] + payload[at + 1 :], payload[:at])
    return rng.choice((*pieces, payload[:at] + rng.randbytes(1) + payload[at:], payload + rng.randbytes(1)))


KINDS["payload_bytes_changed"] = _in_a_frame(_bytes_changed)
KINDS["payload_value_changed"] = _in_a_frame(change_value)
KINDS["payload_spelled_otherwise"] = _in_a_frame(spell_otherwise)

# -- contents of a block, with all that follows ------------------------------------------------------------------------


def ended(rng: Random, w: World, block: RawBlock, header: Header) -> bytes:
    """Return a chain with a block changed: final by a quorum with nothing above it, or followed by what did follow."""
    if rng.random() < 0.8:
        return w.finish(header.height, block, header).to_export() if 0 < header.height <= w.height else b""
    parts = w.parts.copy()
    parts.blocks[min(max(header.height, 1), w.height) - 1] = block
    return parts.to_export()


def _place(rng: Random, w: World, *kinds: Kind) -> tuple[int, int, Transaction]:
    """Return height, index and contents of a transaction, of these kinds where any is given."""
    places = []
    for height in range(1, w.height + 1):
        for index in range(len(w.parts.body(height))):
            transaction = w.parts.transaction(height, index)
            if not kinds or transaction.envelope.kind in kinds:
                places.append((height, index, transaction))
    if not places:
        raise Unfit("no such transaction")
    return rng.choice(places)


def signed(transaction: Transaction, items: list[bytes], key: PrivateKey | None = None) -> bytes:
    """Return a transaction of other items, by the same key unless told otherwise."""
    envelope = transaction.envelope
    signer = key or KEYS[envelope.key_id]
    made = make_transaction(
        items,
        key=signer,
        member_id=envelope.member_id,
        chain_id=envelope.chain_id,
        created_ms=envelope.created_ms,
        expires_ms=envelope.expires_ms,
        kind=envelope.kind,
    )
    return encode(made)


def _put_back(rng: Random, w: World, height: int, index: int, raw: bytes) -> bytes:
    raws = [one for one in w.parts.blocks[height - 1].transactions if one is not None]
    raws[index] = raw
    return ended(rng, w, *w.remake(height, raws))


@kind
def record_changed(rng: Random, w: World) -> bytes:
    """A record with other values, most of which break a rule; signed by its member, and made final."""
    height, index, transaction = _place(rng, w, Kind.RECORDS)
    items = list(transaction.items)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(items))
        try:
            items[at] = encode(changed_record(rng, msgpack.unpackb(items[at])))
        except (OverflowError, ValueError):
            continue
    return _put_back(rng, w, height, index, signed(transaction, items))


@kind
def item_changed(rng: Random, w: World) -> bytes:
    """An item, a record or what governs, with bytes, values or a spelling of its own; signed and made final."""
    height, index, transaction = _place(rng, w)
    items = list(transaction.items)
    at = rng.randrange(len(items))
    items[at] = rng.choice((_bytes_changed, change_value, change_value, spell_otherwise))(rng, items[at])
    if not items[at] or rng.random() < 0.05:
        items[at] = rng.choice((b"\xc0", items[at] + bytes(1_024)))
    return _put_back(rng, w, height, index, signed(transaction, items))


@kind
def record_repeated(rng: Random, w: World) -> bytes:
    """A call that was recorded before, or nearly at that time: which records are void follows."""
    height, index, transaction = _place(rng, w, Kind.RECORDS)
    member_id = transaction.envelope.member_id
    before = [w.parts.transaction(at, n) for at in range(1, height + 1) for n in range(len(w.parts.body(at)))]
    own = [one for one in before if one.envelope.kind is Kind.RECORDS and one.envelope.member_id == member_id]
    items = list(transaction.items)
    record = msgpack.unpackb(rng.choice(rng.choice(own).items))
    # Into the first seconds of the next minute, the last ones of the minute before, or anywhere near.
    next_ms, edge_ms = 60_000 - record[5] % 60_000, rng.choice((0, 1, 4_998, 4_999, 5_000, 5_001))
    by_ms = rng.choice((next_ms + edge_ms, next_ms - 60_001 - edge_ms, 0, edge_ms, -edge_ms, next_ms + 60_000))
    record = shifted(record, by_ms)
    record[2] = rng.choice((*[record[2]] * 7, 1, 2, 3))
    items.insert(rng.randrange(len(items) + 1), encode(record))
    return _put_back(rng, w, height, index, signed(transaction, items))


@kind
def times_moved(rng: Random, w: World) -> bytes:
    """A transaction and its records of another time, most often out of its block's."""
    height, index, transaction = _place(rng, w)
    by, items = rng.choice((-1, 1)) * rng.choice((1_000, 2_000, 3_600_000, 86_400_000, 36 * 86_400_000)), []
    for item in transaction.items:
        is_moved = transaction.envelope.kind is Kind.RECORDS and rng.random() < 0.5
        items.append(encode(shifted(msgpack.unpackb(item), by)) if is_moved else item)
    later = rng.choice((0, by))
    envelope = with_fields(
        transaction.envelope,
        created_ms=transaction.envelope.created_ms + later,
        expires_ms=transaction.envelope.expires_ms + later,
        items_root=merkle.root_of(items),
    )
    raw = encode(Transaction(envelope, KEYS[envelope.key_id].sign(tx_id_of(envelope)), items))
    return _put_back(rng, w, height, index, raw)


@kind
def deed_changed(rng: Random, w: World) -> bytes:
    """What governs, with another value; signed and made final."""
    governs = [one for one in Kind if one not in {Kind.RECORDS, Kind.AMEND}]
    height, index, transaction = _place(rng, w, *governs)
    item = change_value(rng, transaction.items[0])
    return _put_back(rng, w, height, index, signed(transaction, [item]))


@kind
def items_moved(rng: Random, w: World) -> bytes:
    """Records of a transaction dropped, doubled, exchanged, or brought from elsewhere."""
    height, index, transaction = _place(rng, w)
    items = list(transaction.items)
    _, _, other = _place(rng, world(rng.choice(("plain", "governed"))))
    how = rng.randrange(3)
    if how == 0:
        items.insert(rng.randrange(len(items) + 1), rng.choice(other.items))
    else:
        items = [item for item in _other_list(rng, items) if isinstance(item, bytes) and item] or items
    return _put_back(rng, w, height, index, signed(transaction, items))


@kind
def envelope_changed(rng: Random, w: World) -> bytes:
    """A field of an envelope, signed with the key it names, the old one or a stranger's."""
    height, index, transaction = _place(rng, w)
    raw = change_value(rng, encode(transaction), (0,))
    value = msgpack.unpackb(raw, strict_map_key=False)
    try:
        envelope = decode(msgpack.packb(value[0]), type(transaction.envelope))
    except LedgerError:
        return _put_back(rng, w, height, index, raw)
    keys = (KEYS.get(envelope.key_id), KEYS[transaction.envelope.key_id], STRANGER)
    key = rng.choices(keys, (8, 1, 1))[0] or STRANGER
    raw = encode(Transaction(envelope, key.sign(tx_id_of(envelope)), transaction.items))
    return _put_back(rng, w, height, index, raw)


@kind
def transaction_signed_by_another(rng: Random, w: World) -> bytes:
    """A transaction by another key, under its own name or that of the right one."""
    height, index, transaction = _place(rng, w)
    key = rng.choice(list(KEYS.values()))
    raw = signed(transaction, list(transaction.items), key)
    if rng.random() < 0.5:
        signature = high_s(transaction.signature) if rng.random() < 0.3 else key.sign(tx_id_of(transaction.envelope))
        raw = encode(with_fields(transaction, signature=signature))
    return _put_back(rng, w, height, index, raw)


@kind
def transactions_moved(rng: Random, w: World) -> bytes:
    """Transactions of a block dropped, doubled, exchanged, or brought from another block or chain."""
    height = rng.randint(1, w.height)
    raws = [raw for raw in w.parts.blocks[height - 1].transactions if raw is not None]
    source = rng.choice((w, w, world("twin"), world("governed")))
    other = [raw for block in source.parts.blocks for raw in block.transactions if raw is not None]
    if rng.random() < 0.5:
        raws.insert(rng.randrange(len(raws) + 1), rng.choice(other))
    else:
        raws = [raw for raw in _other_list(rng, raws) if isinstance(raw, bytes) and raw]
    return ended(rng, w, *w.remake(height, raws))


@kind
def body_changed(rng: Random, w: World) -> bytes:
    """A value of the list of a body, most often of the bitmaps; root, count and seal follow."""
    height = rng.randint(1, w.height)
    block, sealed = w.parts.blocks[height - 1], w.parts.sealed(height)
    items = msgpack.unpackb(block.body)
    if items and rng.random() < 0.6:
        at = rng.randrange(len(items))
        items[at][1] = rng.choice((b"", b"\1", b"\2", b"\3", b"\x80", b"\1\0", _other_bytes(rng, items[at][1])))
        body = bytes(msgpack.packb(items))
    else:
        body = change_value(rng, block.body) if items else encode([[bytes(32), b""]])
    try:
        decoded = decode(body, list[BodyItem])
        header = with_fields(sealed.header, tx_count=len(decoded), tx_root=body_root(decoded))
    except LedgerError:
        header = sealed.header
    return ended(rng, w, w.sealed_anew(header, sealed.certificate, body, list(block.transactions)), header)


# -- headers, seals and certificates -----------------------------------------------------------------------------------


@kind
def header_changed(rng: Random, w: World) -> bytes:
    """A field of a header, sealed anew by the producer it names."""
    height = rng.randint(1, w.height)
    block, sealed = w.parts.blocks[height - 1], w.parts.sealed(height)
    for _ in range(20):
        try:
            header = decode(change_value(rng, encode(sealed.header)), Header)
        except (LedgerError, OverflowError, ValueError):
            continue
        if header != sealed.header:
            break
    else:
        raise Unfit("no other header")
    made = w.sealed_anew(header, sealed.certificate, block.body, list(block.transactions))
    if header.height != height or header.producer_key_id not in KEYS:
        parts = w.parts.copy()
        parts.blocks[height - 1] = made
        return parts.to_export()
    return ended(rng, w, made, header)


@kind
def sealed_by_another(rng: Random, w: World) -> bytes:
    """A block by another key, under its own name or the right one's; or with the other signature of the right one."""
    height = rng.randint(1, w.height)
    block, sealed = w.parts.blocks[height - 1], w.parts.sealed(height)
    key, header = rng.choice(list(KEYS.values())), sealed.header
    if rng.random() < 0.5:
        header = with_fields(header, producer_key_id=key.key_id)
    made = w.sealed_anew(header, sealed.certificate, block.body, list(block.transactions), key=key)
    if rng.random() < 0.2:
        made = replace(block, sealed=encode(with_fields(sealed, signature=high_s(sealed.signature))))
        header = sealed.header
    return ended(rng, w, made, header)


def _other_certificate(rng: Random, w: World, certificate: Certificate) -> Certificate:
    """Return a certificate with another value, or with signatures of others, on the same link or a neighbour's."""
    how = rng.randrange(4)
    if how == 0:
        try:
            return decode(change_value(rng, encode(certificate)), Certificate)
        except (LedgerError, OverflowError, ValueError) as error:
            raise Unfit("no certificate any more") from error
    if how == 1:
        others = [w.parts.sealed(height).certificate for height in range(1, w.height + 1)]
        return rng.choice([one for one in others if one is not None] or [certificate])
    part = rng.randrange(len(certificate.parts))
    parts = list(certificate.parts)
    signatures = list(parts[part].signatures)
    if how == 2:
        at = rng.randrange(len(signatures))
        digest = rng.randbytes(32)
        other = rng.choice(
            (rng.choice(signatures), high_s(signatures[at]), rng.choice(list(KEYS.values())).sign(digest))
        )
        signatures[at] = other
        parts[part] = with_fields(parts[part], signatures=signatures)
    else:
        parts = [one for one in _other_list(rng, parts) if not isinstance(one, int | bytes) and one is not None][:2]
    return with_fields(certificate, parts=parts or certificate.parts)


@kind
def certificate_changed(rng: Random, w: World) -> bytes:
    """The certificate that a block carries; its hash and seal follow."""
    heights = [height for height in range(1, w.height + 1) if w.parts.sealed(height).certificate is not None]
    if not heights:
        raise Unfit("no certificate")
    height = rng.choice(heights)
    block, sealed = w.parts.blocks[height - 1], w.parts.sealed(height)
    assert sealed.certificate is not None
    made = _other_certificate(rng, w, sealed.certificate) if rng.random() < 0.9 else None
    header = with_fields(sealed.header, qc_hash=certificate_hash(made))
    return ended(rng, w, w.sealed_anew(header, made, block.body, list(block.transactions)), header)


@kind
def finality_changed(rng: Random, w: World) -> bytes:
    """What makes the last block final: the certificate, or the child, sealed anew and certified anew or not."""
    parts = shorter(rng, w)
    assert parts.finality.child is not None
    assert parts.finality.certificate is not None
    child, certificate = decode(parts.finality.child, SealedHeader), decode(parts.finality.certificate, Certificate)
    how = rng.randrange(4)
    if how == 0:
        parts.finality = RawFinality(parts.finality.child, encode(_other_certificate(rng, w, certificate)))
    elif how == 1:
        other = change_value(rng, parts.finality.child)
        parts.finality = RawFinality(other, parts.finality.certificate)
    elif how == 2:
        carried = child.certificate and _other_certificate(rng, w, child.certificate)
        header = with_fields(child.header, qc_hash=certificate_hash(carried))
        sealed = SealedHeader(header, KEYS[header.producer_key_id].sign(block_id_of(header)), carried)
        certificate = with_fields(certificate, t_id=block_id_of(header))
        parts.finality = RawFinality(encode(sealed), encode(certificate))
    else:
        other_id = rng.choice((parts.head.final_id, bytes(32)))
        height = parts.head.final_height + rng.choice((-1, 0, 1))
        parts.head = Head(rng.choice((1, 1, 1, 0, 2)), max(height, 0), other_id)
    return parts.to_export()


# -- recombined chains, known forgeries, several changes ---------------------------------------------------------------


@kind
def recombined(rng: Random, w: World) -> bytes:
    """Parts of two chains, or of two places of one, put together."""
    parts = w.parts.copy()
    source = world(rng.choice(("plain", "twin", "governed"))).parts
    here, there = rng.randrange(len(parts.blocks)), rng.randrange(len(source.blocks))
    mine, other = parts.blocks[here], source.blocks[there]
    how = rng.randrange(6)
    if how == 0:
        parts.blocks[here:] = source.blocks[here:] or source.blocks[-1:]
        parts.head, parts.finality = source.head, source.finality
    elif how == 1:
        parts.blocks[here] = replace(mine, body=other.body, transactions=other.transactions)
    elif how == 2:
        parts.blocks[here] = replace(mine, sealed=other.sealed)
    elif how == 3:
        parts.finality = rng.choice((source.finality, RawFinality(other.sealed, source.finality.certificate)))
    elif how == 4:
        parts.head = source.head
    else:
        parts.blocks.insert(here, other)
    return parts.to_export()


@kind
def blocks_moved(rng: Random, w: World) -> bytes:
    """Blocks of a chain dropped, doubled or exchanged."""
    parts = w.parts.copy()
    parts.blocks = [block for block in _other_list(rng, parts.blocks) if isinstance(block, RawBlock)]
    return parts.to_export()


@kind
def known_forgery(rng: Random, w: World) -> bytes:
    """One of the named forgeries of a chain whose voting set changes, and maybe something else on top."""
    variants = all_variants()
    names = sorted(name for name, one in variants.items() if one.field)
    forged = Forgery(w.parts.copy(), [step.position.chain.state for step in w.steps], KEYS)
    try:
        variants[rng.choice(names)].forge(forged)
    except (LookupError, ValueError, AssertionError) as error:  # made for chains with a change of the voting set
        raise Unfit("not for this chain") from error
    if rng.random() < 0.3:
        frames = frames_of(forged.parts)
        at = rng.randrange(2, len(frames) - 1)
        frames[at] = (frames[at][0], change_value(rng, frames[at][1]))
        return join(frames)
    return forged.parts.to_export()


@kind
def deeds_added(rng: Random, w: World) -> bytes:
    """What some members do besides, in one block: state, root and seal follow, where it fits."""
    height = rng.randint(1, w.height)
    raws = [raw for raw in w.parts.blocks[height - 1].transactions if raw is not None]
    state = w.steps[height - 1].position.chain.state
    proposals = sorted(state.proposals) or [bytes(32)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        who, what, payload = any_deed(rng, w.genesis, proposals, height)
        now_ms = w.genesis.genesis_time_ms + w.parts.header(height).slot * w.genesis.parameters.slot_ms
        key = (NODE_KEYS if what is Kind.EVIDENCE else GOVERN_KEYS)[who]
        item = change_value(rng, encode(payload)) if rng.random() < 0.2 else encode(payload)
        raw = sign_items(w.genesis, [item], now_ms, member=who, key=key, kind=what)
        if rng.random() < 0.5:
            _, header = w.remake(height, [*raws, raw])
            if header.state_root == w.parts.header(height).state_root:
                continue  # it does not fit, and would hide what follows
        raws.insert(rng.randrange(len(raws) + 1) if rng.random() < 0.2 else len(raws), raw)
    return ended(rng, w, *w.remake(height, raws))


@kind
def two_changes(rng: Random, w: World) -> bytes:
    """Any other kind, and a value of a frame on top: the first of two faults is the one to be named."""
    name = rng.choice(sorted(set(KINDS) - {"two_changes", "bits_flipped", "file_cut"}))
    frames = split(KINDS[name](rng, w))
    at = rng.randrange(1, len(frames) - 1)
    if frames[at][1]:
        frames[at] = (frames[at][0], rng.choice((change_value, change_value, _bytes_changed))(rng, frames[at][1]))
    return join(frames)


def split(data: bytes) -> Frames:
    """Return the frames of an export that can be read as such."""
    frames, at = [], len(make_preamble())
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5])
        frames.append((data[at], data[at + 9 : at + 9 + size]))
        at += 9 + size
    return frames


@kind
def nothing_changed(rng: Random, w: World) -> bytes:
    """A chain that ends at some block of a good one: both must say yes."""
    return shorter(rng, w).to_export()


SOURCES: Sequence[str] = (
    *(["plain"] * 6 + ["governed"] * 8 + ["alone"] * 3 + ["tight"] * 3 + ["loose"] * 3 + ["many"]),
    *(f"chance-{number}" for number in range(24)),
)
WEIGHTS = {"record_changed": 3, "record_repeated": 2, "deeds_added": 4, "deed_changed": 2, "item_changed": 2}
"""How often a kind is drawn, where not once: what has the most to it."""
ATTEMPTS_MAX = 100


def mutant(seed: int) -> tuple[str, World, bytes]:
    """Return the kind, the world and the export of the mutant of a seed."""
    rng = Random(seed)
    names = [name for name in sorted(KINDS) for _ in range(WEIGHTS.get(name, 1))]
    for _ in range(ATTEMPTS_MAX):
        name = rng.choice(names)
        w = world(rng.choice(SOURCES))
        try:
            data = KINDS[name](rng, w)
        except (Unfit, OverflowError, ValueError, msgpack.UnpackException):
            continue
        if data:
            return name, w, data
    raise AssertionError(f"no mutant of seed {seed}")
