"""The second implementation: one record, proved by a file and the genesis alone.

Source: docs/protocol.md, "Receipt", in the order of its steps.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any, NamedTuple

from audit.reference_state import SUBMIT, founders_state, parse_json, read_genesis, root_by_siblings
from audit.reference_types import (
    BODY_ITEM,
    CERTIFICATE,
    CERTIFICATE_PART,
    ENVELOPE,
    FINAL_PROOF,
    HEADER,
    KEY_ENTRY,
    PENDING_SET,
    PRIVATE_FIELD,
    PRODUCER,
    RECEIPT,
    VOTING_ENTRY,
    VOTING_PROOF,
)
from audit.reference_votes import VotingSet, check_voting_proof, found, sets_to_sign
from audit.reference_wire import (
    Refused,
    decode,
    encode,
    expect,
    is_signed,
    key_id_of,
    root_by_path,
    tagged_hash,
    within,
)

RECEIPT_BYTES_MAX = 16 << 20
PRIVATE_FIELDS = ("caller", "callee", "call_id", "from_tag", "to_tag", "addresses", "raw")


class Proven(NamedTuple):
    """What a good receipt proves; times in milliseconds."""

    receipt: Any
    block_id: bytes
    final_height: int
    set_id: int
    shown: list[Any]
    """PrivateFields that it reveals."""

    def sentence(self) -> str:
        """Return it in one line."""
        receipt = self.receipt
        time = datetime.fromtimestamp(receipt.block_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        counts = "void: the call and leg were recorded before" if receipt.void else "it counts"
        return (
            f"OK: record {receipt.index} of transaction {receipt.tx_id.hex()} by {receipt.envelope.member_id} is in "
            f"block {receipt.height} ({self.block_id.hex()}) of {time}, final under height {self.final_height} by "
            f"voting set {self.set_id}; {counts}"
        )


def prove(data: bytes, genesis_json: bytes) -> Proven:
    """Return what a receipt proves. Raises Refused, whose ``where`` names the step; Unusable for the genesis."""
    genesis = read_genesis(genesis_json)
    chain_id = tagged_hash("genesis", genesis)
    receipt, revealed = read_receipt(data)
    expect("chain_id", receipt.chain_id, chain_id)
    part, key = receipt.envelope, receipt.key
    check_path(
        "item_path", encode(receipt.record), (receipt.index, part.item_count), receipt.item_path, part.items_root
    )
    key_id = key_id_of(key.public_key)
    envelope = ENVELOPE(
        1, chain_id, 1, part.member_id, key_id, part.created_ms, part.expires_ms, part.item_count, part.items_root
    )
    expect("tx_id", receipt.tx_id, tagged_hash("tx", envelope))
    final = unpack("final", receipt.final, FINAL_PROOF)
    header = final.header if receipt.header is None else unpack("header", receipt.header, HEADER)
    check_block(receipt, header, chain_id)
    expect("block_ms", receipt.block_ms, genesis.genesis_time_ms + header.slot * genesis.parameters.slot_ms)
    check_key(receipt, key_id, final.header.state_root)
    block_id = tagged_hash("header", header)
    if receipt.header is None:
        expect("history_path", receipt.history_path, "")
    else:
        place = receipt.height, final.header.height
        check_path("history_path", block_id, place, receipt.history_path, final.header.history_root)
    state = founders_state(genesis)
    found(state, chain_id)
    trusted: VotingSet = sets_to_sign(state.entries["voting",])[0]
    for number, packed in enumerate(receipt.set_changes):
        place_ = f"set_changes[{number}]"
        coming = check_final(place_, unpack(place_, packed, FINAL_PROOF), trusted, chain_id)
        if coming is None:
            raise Refused(f"{place_}.pending", "no change of the voting set")
        trusted = coming
    check_final("final", final, trusted, chain_id)
    shown = [] if revealed is None else check_revealed(revealed, receipt.record.party_commitment)
    return Proven(receipt, block_id, final.header.height, trusted[0], shown)


def read_receipt(data: bytes) -> tuple[Any, Any]:
    """Return the receipt in a file, and what ``revealed`` is, None where there is none."""
    if len(data) > RECEIPT_BYTES_MAX:
        raise Refused("receipt", "too large")
    try:
        document = parse_json(data)
    except ValueError as error:
        raise Refused("receipt", f"not valid JSON: {error}") from None
    revealed = None
    if isinstance(document, dict) and "revealed" in document:
        revealed = document.pop("revealed")
        if revealed is None:
            raise Refused("revealed", "not an array")
    try:
        receipt = decode(encode(RECEIPT.plain(document)), RECEIPT)
    except Refused as error:
        raise error if error.where else Refused("receipt", error.what) from None
    expect("personal_data", receipt.personal_data, int(revealed is not None))
    return receipt, revealed


def check_block(receipt: Any, header: Any, chain_id: bytes) -> None:
    """Check that the transaction is in the block, and what is said of both."""
    bitmap = unpack_bytes("void_bitmap", receipt.void_bitmap)
    item = encode(BODY_ITEM(receipt.tx_id, bitmap))
    check_path("tx_path", item, (receipt.tx_index, header.tx_count), receipt.tx_path, header.tx_root)
    if len(bitmap) not in {0, (receipt.envelope.item_count + 7) // 8}:
        raise Refused("void_bitmap", "not of the transaction's length")
    expect("void", receipt.void, int.from_bytes(bitmap, "little") >> receipt.index & 1)
    expect("header.chain_id", header.chain_id, chain_id)
    expect("height", receipt.height, header.height)


def check_key(receipt: Any, key_id: bytes, state_root: bytes) -> None:
    """Check that the submitter's key is in the state, may submit, and signed."""
    key, member_id = receipt.key, receipt.envelope.member_id
    if not key.roles & SUBMIT:
        raise Refused("key.roles", "the key may not submit")
    entry = KEY_ENTRY(member_id, key.public_key, key.roles, key.standing)
    if root_by_siblings(("key", key_id), entry, unpack_path("key.path", key.path)) != state_root:
        raise Refused("key.path", "does not lead to the state root of the final block")
    if not is_signed(key.public_key, receipt.tx_id, receipt.signature):
        raise Refused("signature", "does not verify")


def check_final(place: str, proof: Any, trusted: VotingSet, chain_id: bytes) -> VotingSet | None:
    """Check a FinalProof by the trusted set; return the set to come, if there is one."""
    header, pending, (set_id, producers) = proof.header, None, trusted
    if proof.pending:
        coming = [
            PRODUCER(named.member_id, key_id_of(named.public_key), named.public_key) for named in proof.pending[1]
        ]
        pending = PENDING_SET(proof.pending.height, coming)
    parts = [CERTIFICATE_PART(set_id + number, *part) for number, part in enumerate(proof.parts)]
    certificate = CERTIFICATE(header.height, tagged_hash("header", header), header.height + 1, proof.t_id, parts)
    voting = VOTING_ENTRY(set_id, producers, pending)
    with within(place):
        return check_voting_proof(VOTING_PROOF(header, voting, proof.siblings, certificate), trusted, chain_id)


def check_revealed(revealed: Any, commitment: bytes) -> list[Any]:
    """Return the private fields that are shown, each proven under the record's commitment."""
    if not isinstance(revealed, list) or not revealed:
        raise Refused("revealed", "not an array of one field or more")
    shown: list[Any] = []
    for number, document in enumerate(revealed):
        with within(f"revealed[{number}]"):
            shown.append(check_shown(document, commitment))
            places = [PRIVATE_FIELDS.index(one.name) for one in shown]
            if places != sorted(set(places)):
                raise Refused("name", "not in the order of the private part, each once")
    return shown


def check_shown(document: Any, commitment: bytes) -> Any:
    """Return one private field that is shown."""
    kind = "value_hex" if isinstance(document, dict) and "value_hex" in document else "value"
    if not isinstance(document, dict):
        raise Refused("", "not an object")
    for name in sorted(document.keys() ^ {"name", "salt", "path", kind}):
        raise Refused(ascii(name)[1:-1][:100] or "''", "unknown field" if name in document else "missing field")
    fields = {name: document[name] for name in ("name", "salt")}
    try:
        fields["value"] = document[kind].encode().hex() if kind == "value" else document[kind]
    except (AttributeError, UnicodeEncodeError):
        raise Refused("value", "not text") from None
    try:
        field = decode(encode(PRIVATE_FIELD.plain(fields)), PRIVATE_FIELD)
    except Refused as error:
        raise Refused(kind, error.what) if error.where == "value" else error from None
    if kind == "value_hex" and field.value.decode("utf-8", "replace").encode() == field.value:
        raise Refused("value_hex", "is text, which is shown as value")
    if not isinstance(document["path"], str):
        raise Refused("path", "not base64")
    index = PRIVATE_FIELDS.index(field.name)
    path = unpack_path("path", document["path"])
    if len(path) > 3:
        raise Refused("path", "longer than from one of seven leaves")
    if root_by_path(tagged_hash("private", field), index, len(PRIVATE_FIELDS), path) != commitment:
        raise Refused("", "does not lead to the record's party_commitment")
    return field


# -- base64 --------------------------------------------------------------------------------------------------------


def unpack_bytes(place: str, text: str) -> bytes:
    """Return the bytes that base64 spells in the one way there is."""
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    if b64encode(data).decode() != text:
        raise Refused(place, "not base64 with its padding")
    return data


def unpack(place: str, text: str, kind: Any) -> Any:
    """Return the struct that is packed."""
    return decode(unpack_bytes(place, text), kind, place)


def unpack_path(place: str, text: str) -> list[bytes]:
    """Return the hashes that are packed."""
    data = unpack_bytes(place, text)
    if len(data) % 32:
        raise Refused(place, "not hashes one after another")
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def check_path(place: str, data: bytes, leaf: tuple[int, int], text: str, root: bytes) -> None:
    """Check that a packed path leads from ``data``, leaf (index, size), to ``root``."""
    path = unpack_path(place, text)
    if leaf[0] >= leaf[1]:
        raise Refused(f"{place}.index", "beyond the last leaf")
    found_root = root_by_path(data, *leaf, path)
    if found_root is None:
        raise Refused(place, "not of the length that leads to the root")
    expect(f"{place}.root", found_root, root)
