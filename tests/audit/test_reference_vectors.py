"""The second implementation against the known answers of ``tests/vectors``."""

from __future__ import annotations

import hmac
import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import pytest

from audit.reference import qc_hash_of
from audit.reference_receipts import prove
from audit.reference_state import State, entry_hash, founders_state, read_genesis, root_by_siblings, with_entry
from audit.reference_transactions import Body, Checked, Index, apply_payload, check_transaction, entry_of, read_payload
from audit.reference_types import (
    BODY,
    CALL_RECORD,
    CERTIFICATE,
    GENESIS,
    PAYLOADS,
    PRIVATE_FIELD,
    PRODUCER,
    SEALED_HEADER,
    TRANSACTION,
    VOTE,
)
from audit.reference_votes import check_certificate, found, quorum_of, schedule_of, sets_to_sign
from audit.reference_wire import (
    ORDER,
    ZERO32,
    Refused,
    decode,
    encode,
    is_signed,
    key_id_of,
    leaf_hash,
    merkle_root,
    root_by_path,
    tagged_hash,
    vote_hash,
)
from ledger.crypto import is_valid_signature
from tests.audit.agreement import signatures_remembered

VECTORS = Path(__file__).parent.parent / "vectors"


@cache
def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_bytes())


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


@cache
def genesis() -> Any:
    return read_genesis(vectors("genesis")["json"].encode())


def state() -> State:
    founded = founders_state(genesis())
    found(founded, raw(vectors("genesis")["chain_id"]))
    return founded


def hold(_record: Any) -> None:
    """Find every record right."""


def test_tagged_hashes() -> None:
    for case in vectors("crypto")["tagged_hashes"]:
        prefix = b"ledgerd/" + case["tag"].encode() + b"/1\0"
        assert sha256(prefix + raw(case["data"])).hexdigest() == case["hash"]
        if case["data"]:
            assert tagged_hash(case["tag"], decode_any(raw(case["data"]))).hex() == case["hash"]


def test_keys_and_signatures() -> None:
    crypto = vectors("crypto")
    digest = raw(crypto["digest"])
    for key, signature in zip(crypto["keys"], crypto["signatures"], strict=True):
        assert key_id_of(raw(key["public_key"])).hex() == key["key_id"]
        assert is_signed(raw(key["public_key"]), digest, raw(signature))
    public_key = raw(crypto["keys"][0]["public_key"])
    assert [one["why"] for one in crypto["refused"] if is_signed(public_key, digest, raw(one["signature"]))] == []


def test_a_signature_that_leads_to_the_point_at_infinity() -> None:
    """Its r is -digest / key: whoever has a key can make one, and the package computes with an x that is not there."""
    key = vectors("crypto")["keys"][0]
    digest = sha256(b"any").digest()
    r = -int.from_bytes(digest) * pow(int(key["private"], 16), -1, ORDER) % ORDER
    signature = r.to_bytes(32) + (1).to_bytes(32)
    assert not is_signed(raw(key["public_key"]), digest, signature)
    assert not is_valid_signature(raw(key["public_key"]), digest, signature)


def test_records() -> None:
    records = vectors("records")
    for case in records["records"]:
        record = decode(raw(case["encoded"]), CALL_RECORD)
        assert record == CALL_RECORD.plain(case["readable"])
        assert leaf_hash(encode(record)).hex() == case["leaf_hash"]
        entry = entry_of("alba", record)
        assert (entry.key.hex(), entry.amounts[0]) == (case["record_key"], case["talk_ms"])
    for case in records["refused"]:
        with pytest.raises(Refused):
            decode(raw(case["encoded"]), CALL_RECORD)
    for case in records["call_commitments"]:
        data = encode([case["call_id"], case["from_tag"], case["invite_cseq"]])
        assert hmac.digest(raw(records["record_key"]), data, "sha256")[:16].hex() == case["call_commitment"]


def test_private_part() -> None:
    private = vectors("private_part")
    leaves = []
    for index, case in enumerate(private["fields"]):
        leaves.append(tagged_hash("private", PRIVATE_FIELD(case["name"], raw(case["salt"]), raw(case["value"]))))
        assert leaves[-1].hex() == case["leaf"]
        root = root_by_path(leaves[-1], index, 7, [raw(step) for step in case["path"]])
        assert root == raw(private["party_commitment"])
    assert merkle_root(leaves).hex() == private["party_commitment"]


def test_genesis() -> None:
    case = vectors("genesis")
    assert encode(genesis()).hex() == case["encoded"]
    assert decode(raw(case["encoded"]), GENESIS) == genesis()
    assert tagged_hash("genesis", genesis()).hex() == case["chain_id"]
    assert (encode(genesis().rules).hex(), tagged_hash("rules", genesis().rules).hex()) == (
        case["rule_set_encoded"],
        case["rule_set"],
    )
    entries = {encode(key).hex(): encode(value).hex() for key, value in state().entries.items()}
    assert entries == {entry["key"]: entry["value"] for entry in case["state"]}
    assert state().root.hex() == case["state_root"]
    assert [seat.member_id for seat in state().entries["epoch",].seats] == case["elected"]


def test_schedule() -> None:
    schedule = vectors("schedule")
    seats = [PRODUCER(name, bytes(20), bytes(33)) for name in schedule["producers"]]
    for case in schedule["cases"]:
        made = schedule_of(seats, case["epoch"], raw(case["seed"]), 100)
        assert [seat.member_id for seat in made.order] == case["order"]
        assert made.first_slot == case["epoch"] * 100
    for case in schedule["quorums"]:
        assert quorum_of([None] * case["producers"]) == case["quorum"]


def test_transactions() -> None:
    for case in vectors("transactions")["transactions"]:
        envelope, signature, items = decode(raw(case["encoded"]), TRANSACTION)
        assert (encode(envelope).hex(), signature.hex()) == (case["envelope_encoded"], case["signature"])
        assert [item.hex() for item in items] == case["items"]
        checked = check_transaction(raw(case["encoded"]), state(), envelope.chain_id, hold)
        assert checked.tx_id.hex() == case["tx_id"]


def test_blocks() -> None:
    """Roots, totals and bitmaps follow; what blocks begin with is taken from the vectors, whose slots follow none."""
    blocks, chain_id = vectors("blocks"), raw(vectors("genesis")["chain_id"])
    present, index, ids = state(), Index(), [chain_id]
    known = {raw(case["tx_id"]): raw(case["encoded"]) for case in vectors("transactions")["transactions"]}
    for number, case in enumerate(blocks["blocks"]):
        sealed, body = decode(raw(case["encoded"]), _Block)
        header = sealed.header
        block = Body(present, number + 1, genesis().genesis_time_ms + header.slot * 1_000, index)
        for item in body:
            block.add(check_transaction(known[item.tx_id], present, chain_id, hold), item.void_bitmap)
        for change in case["state_changes"]:
            present.put(tuple(decode_any(raw(change["key"]))), decode_any(raw(change["value"])))
        assert block.sums.totals() == header.totals
        assert (header.state_root, header.history_root) == (present.root, merkle_root(ids))
        assert (header.tx_root, header.tx_count) == (merkle_root([encode(item) for item in body]), len(body))
        assert qc_hash_of(sealed.certificate) == header.qc_hash == raw(case["qc_hash"])
        ids.append(tagged_hash("header", header))
        assert ids[-1].hex() == case["block_id"]
        producer = present.get("key", header.producer_key_id)
        assert is_signed(producer[1], ids[-1], sealed.signature)


def test_votes_and_a_certificate() -> None:
    blocks, chain_id = vectors("blocks"), raw(vectors("genesis")["chain_id"])
    for case in blocks["votes"]:
        vote = decode(raw(case["encoded"]), VOTE)
        assert vote == VOTE.plain(case["readable"])
        assert vote_hash(chain_id, vote).hex() == blocks["vote_digest"]
        assert is_signed(state().get("key", vote.key_id).public_key, vote_hash(chain_id, vote), vote.signature)
    certificate = decode(raw(blocks["certificate_encoded"]), CERTIFICATE)
    assert certificate == CERTIFICATE.plain(blocks["certificate"])
    check_certificate(certificate, sets_to_sign(state().entries["voting",]), chain_id)
    with pytest.raises(Refused, match=r"^parts\.signatures"):
        check_certificate(certificate, sets_to_sign(state().entries["voting",]), bytes(32))


def test_governance() -> None:
    present, chain_id = state(), raw(vectors("genesis")["chain_id"])
    kinds = {name: number for number, name in enumerate(TRANSACTION.fields["envelope"].fields["kind"].names, 1)}
    for case in vectors("governance")["steps"]:
        kind, before = kinds[case["kind"]], present.before()
        assert encode(PAYLOADS[kind].plain(case["payload"])).hex() == case["item"]
        checked: Checked = check_transaction(raw(case["encoded"]), present, chain_id, hold)
        assert checked.tx_id.hex() == case["tx_id"]
        place = checked.envelope, checked.tx_id, checked.payload, case["height"], case["time_ms"]
        if case["does_not_fit"] is not None:
            with pytest.raises(Refused) as caught:
                apply_payload(present, *place)
            assert caught.value.where == case["does_not_fit"]
            present = before
            continue
        apply_payload(present, *place)
        names = {key for key in present.entries.keys() | before.entries.keys() if present.get(*key) != before.get(*key)}
        changes = {encode(key).hex(): None if (v := present.get(*key)) is None else encode(v).hex() for key in names}
        assert changes == {change["key"]: change["value"] for change in case["changes"]}
        assert present.root.hex() == case["state_root"]
    for case in vectors("governance")["refused"]:
        with pytest.raises(Refused) as caught:
            read_payload(kinds[case["kind"]], [raw(case["item"])], chain_id)
        assert caught.value.where == case["field"], case["why"]


def test_merkle_trees() -> None:
    merkle = vectors("merkle")
    leaves = [raw(leaf) for leaf in merkle["leaves"]]
    assert [leaf_hash(leaf).hex() for leaf in leaves] == merkle["leaf_hashes"]
    roots = {case["size"]: raw(case["root"]) for case in merkle["roots"]}
    for size, root in roots.items():
        assert merkle_root(leaves[:size]) == root
    for case in merkle["inclusion"]:
        index, size, path = case["index"], case["size"], [raw(step) for step in case["path"]]
        assert root_by_path(leaves[index], index, size, path) == roots[size]
        assert root_by_path(leaves[index], index, size, [*path, bytes(32)]) is None
        assert root_by_path(leaves[index], size, size, path) is None


def test_state_trees() -> None:
    tree: Any = None
    for step in vectors("state_tree")["steps"]:
        path = raw(step["path"])
        entry = None if step["value"] is None else (entry_hash(path, raw(step["value"])), path)
        tree = with_entry(tree, path, entry)
        assert (tree[0] if tree else ZERO32).hex() == step["root"]


def test_a_proof_of_presence() -> None:
    """The state of genesis: siblings collected on the way down lead up again."""
    founded = state()
    for key, value in founded.entries.items():
        path, node, siblings = tagged_hash("state", key), founded._tree, []
        while len(node) == 3:
            bit = path[len(siblings) // 8] >> 7 - len(siblings) % 8 & 1
            siblings.append(node[2 - bit][0] if node[2 - bit] else ZERO32)
            node = node[1 + bit]
        assert root_by_siblings(key, value, siblings) == founded.root
        assert root_by_siblings(key, value, [*siblings, ZERO32]) != founded.root


def test_what_peers_sign() -> None:
    for case in vectors("messages")["proofs"]:
        hellos = raw(case["dialler_hello"]), raw(case["acceptor_hello"])
        signed = [case["side"], *hellos, [raw(one) for one in case["fingerprints"]]]
        assert tagged_hash("hello", signed).hex() == case["digest"]


def test_receipts() -> None:
    receipts = vectors("receipts")
    for case in receipts["receipts"]:
        with signatures_remembered():
            proven = prove(case["file"].encode(), receipts["genesis"][case["genesis"]].encode())
        expected, receipt = case["expected"], proven.receipt
        assert (receipt.envelope.member_id, receipt.index, receipt.void, receipt.height, receipt.block_ms) == tuple(
            expected[name] for name in ("member_id", "index", "void", "height", "block_ms")
        )
        assert (receipt.tx_id.hex(), proven.block_id.hex()) == (expected["tx_id"], expected["block_id"])
        assert (proven.final_height, proven.set_id) == (expected["final_height"], expected["set_id"])
        assert len(proven.shown) == len(expected["revealed"])


class _Pair:
    """A Block: sealed header and body, as it travels."""

    name = "Block"

    def read(self, reader: Any) -> Any:
        assert reader.token() == (list, 2)
        return SEALED_HEADER.read(reader), BODY.read(reader)


_Block: Any = _Pair()


def decode_any(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False)
