"""The published vectors, read as another implementation would: hashlib, hmac, msgpack and ecdsa, nothing of ours."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import ecdsa
import msgpack
import pytest
from ecdsa.util import sigdecode_string

from ledger.cdr import CallRecord
from ledger.codec import decode
from ledger.errors import EncodingError, LedgerError
from ledger.genesis import chain_id_of, genesis_from_json
from ledger.payloads import read_payload
from ledger.readable import from_readable
from ledger.transaction import Kind, Transaction

DIRECTORY = Path(__file__).parents[1] / "vectors"
ORDER = ecdsa.NIST256p.order


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DIRECTORY / name).read_text())
    return loaded


def tagged(tag: str, data: bytes) -> bytes:
    return sha256(b"ledgerd/" + tag.encode() + b"/1\x00" + data).digest()


def hashed(tag: str, value: Any) -> bytes:
    return tagged(tag, msgpack.packb(value))


def merkle(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return sha256(b"\x01" + merkle(leaves[:split]) + merkle(leaves[split:])).digest()


def sparse(entries: dict[bytes, bytes], depth: int = 0) -> bytes:
    """The root of the state tree from its entries, top down."""
    if not entries:
        return bytes(32)
    if len(entries) == 1:
        ((path, value),) = entries.items()
        return sha256(b"\x00" + path + value).digest()
    halves: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for path, value in entries.items():
        halves[path[depth // 8] >> (7 - depth % 8) & 1][path] = value
    return sha256(b"\x01" + sparse(halves[0], depth + 1) + sparse(halves[1], depth + 1)).digest()


def is_signed(public_key: str, digest: str | bytes, signature: str) -> bool:
    raw, data = bytes.fromhex(signature), bytes.fromhex(digest) if isinstance(digest, str) else digest
    if len(raw) != 64 or int.from_bytes(raw[32:], "big") > ORDER // 2:
        return False
    key = ecdsa.VerifyingKey.from_string(bytes.fromhex(public_key), ecdsa.NIST256p)
    try:
        return bool(key.verify_digest(raw, data, sigdecode=sigdecode_string))
    except ecdsa.BadSignatureError:
        return False


def test_crypto() -> None:
    vectors = load("crypto.json")
    for case in vectors["tagged_hashes"]:
        assert tagged(case["tag"], bytes.fromhex(case["data"])).hex() == case["hash"]
    for case, signature in zip(vectors["keys"], vectors["signatures"], strict=True):
        secret = ecdsa.SigningKey.from_string(bytes.fromhex(case["private"]), ecdsa.NIST256p)
        assert secret.verifying_key.to_string("compressed").hex() == case["public_key"]
        assert hashed("key", bytes.fromhex(case["public_key"]))[:20].hex() == case["key_id"]
        assert is_signed(case["public_key"], vectors["digest"], signature)
        theirs = secret.sign_digest_deterministic(
            bytes.fromhex(vectors["digest"]), sha256, sigencode=ecdsa.util.sigencode_string_canonize
        )
        assert theirs.hex() == signature
    first = vectors["keys"][0]["public_key"]
    assert [case["why"] for case in vectors["refused"] if is_signed(first, vectors["digest"], case["signature"])] == []


def test_records() -> None:
    vectors = load("records.json")
    for case in vectors["records"]:
        encoded = bytes.fromhex(case["encoded"])
        fields = msgpack.unpackb(encoded)
        assert msgpack.packb(fields) == encoded
        assert len(fields) == len(case["readable"]) == 19
        assert sha256(b"\x00" + encoded).hexdigest() == case["leaf_hash"]
        assert hashed("record", ["alba", fields[4], fields[2]])[:16].hex() == case["record_key"]
        assert case["talk_ms"] == (fields[7] - fields[6] if fields[6] else 0)
        assert decode(encoded, CallRecord) == from_readable(case["readable"], CallRecord)
    key = bytes.fromhex(vectors["record_key"])
    for case in vectors["call_commitments"]:
        data = msgpack.packb([case["call_id"], case["from_tag"], case["invite_cseq"]])
        assert hmac.digest(key, data, "sha256")[:16].hex() == case["call_commitment"]


@pytest.mark.parametrize("case", load("records.json")["refused"], ids=lambda case: case["why"])
def test_refused_records(case: dict[str, str]) -> None:
    with pytest.raises(EncodingError):
        decode(bytes.fromhex(case["encoded"]), CallRecord)


def test_private_part() -> None:
    vectors = load("private_part.json")
    leaves, fields = [], []
    for case in vectors["fields"]:
        fields.append([case["name"], bytes.fromhex(case["salt"]), bytes.fromhex(case["value"])])
        leaves.append(hashed("private", fields[-1]))
        assert leaves[-1].hex() == case["leaf"]
    assert msgpack.packb([fields]).hex() == vectors["encoded"]
    assert merkle(leaves).hex() == vectors["party_commitment"]
    paths = [[bytes.fromhex(step) for step in case["path"]] for case in vectors["fields"]]
    left = sha256(b"\x01" + sha256(b"\x00" + leaves[0]).digest() + paths[0][0]).digest()
    for sibling in paths[0][1:]:
        left = sha256(b"\x01" + left + sibling).digest()
    assert left.hex() == vectors["party_commitment"]


def test_genesis() -> None:
    vectors = load("genesis.json")
    encoded = bytes.fromhex(vectors["encoded"])
    assert msgpack.packb(msgpack.unpackb(encoded)) == encoded
    assert tagged("genesis", encoded).hex() == vectors["chain_id"] == json.loads(vectors["json"])["chain_id"]
    assert tagged("rules", bytes.fromhex(vectors["rule_set_encoded"])).hex() == vectors["rule_set"]
    assert msgpack.unpackb(encoded)[6] == msgpack.unpackb(bytes.fromhex(vectors["rule_set_encoded"]))
    entries = {}
    for case in vectors["state"]:
        assert tagged("state", bytes.fromhex(case["key"])).hex() == case["path"]
        entries[bytes.fromhex(case["path"])] = bytes.fromhex(case["value"])
    assert sparse(entries).hex() == vectors["state_root"]
    weights = {member[0]: 0 for member in msgpack.unpackb(encoded)[4] if member[3]}
    for _, candidate, weight in msgpack.unpackb(encoded)[5]:
        weights[candidate] += weight
    assert sorted(weights, key=lambda name: (-weights[name], name))[:4] == vectors["elected"]
    assert chain_id_of(genesis_from_json(vectors["json"].encode())).hex() == vectors["chain_id"]


def test_schedule() -> None:
    vectors = load("schedule.json")
    for case in vectors["cases"]:
        order = list(vectors["producers"])
        for i in range(len(order) - 1, 0, -1):
            digest = hashed("schedule", [bytes.fromhex(case["seed"]), case["epoch"], i])
            j = int.from_bytes(digest, "big") % (i + 1)
            order[i], order[j] = order[j], order[i]
        assert order == case["order"]
    assert {case["producers"]: case["quorum"] for case in vectors["quorums"]} == {
        n: 2 * n // 3 + 1 for n in range(1, 22)
    }


def test_transactions() -> None:
    chain_id = load("genesis.json")["chain_id"]
    public_key = load("crypto.json")["keys"][0]["public_key"]
    for case in load("transactions.json")["transactions"]:
        envelope = msgpack.unpackb(bytes.fromhex(case["envelope_encoded"]))
        items = [bytes.fromhex(item) for item in case["items"]]
        assert envelope[1].hex() == chain_id
        assert envelope[7:] == [len(items), merkle(items)]
        assert tagged("tx", bytes.fromhex(case["envelope_encoded"])).hex() == case["tx_id"]
        assert is_signed(public_key, case["tx_id"], case["signature"])
        encoded = msgpack.packb([envelope, bytes.fromhex(case["signature"]), items])
        assert encoded.hex() == case["encoded"]
        assert decode(encoded, Transaction).items == items


def test_blocks() -> None:
    vectors, genesis = load("blocks.json"), load("genesis.json")
    ids = [bytes.fromhex(genesis["chain_id"])]
    state = {bytes.fromhex(entry["key"]): entry["value"] for entry in genesis["state"]}
    node_keys = {key["key_id"]: key["public_key"] for key in load("crypto.json")["keys"]}
    for height, case in enumerate(vectors["blocks"], start=1):
        encoded = bytes.fromhex(case["header_encoded"])
        header = msgpack.unpackb(encoded)
        assert msgpack.packb(header) == encoded
        assert header[1:3] == [ids[0], height]
        assert header[4] == ids[-1]
        assert header[8] == merkle([bytes.fromhex(item) for item in case["body_items"]])
        state |= {bytes.fromhex(change["key"]): change["value"] for change in case["state_changes"]}
        entries = {tagged("state", key): bytes.fromhex(value) for key, value in state.items() if value is not None}
        assert header[10] == sparse(entries)
        assert header[11] == merkle(ids)
        assert header[12].hex() == case["qc_hash"]
        assert tagged("header", encoded).hex() == case["block_id"]
        assert is_signed(node_keys[header[5].hex()], case["block_id"], case["signature"])
        ids.append(bytes.fromhex(case["block_id"]))
    certificate = bytes.fromhex(vectors["certificate_encoded"])
    assert vectors["blocks"][0]["qc_hash"] == "00" * 32
    assert vectors["blocks"][1]["qc_hash"] == sha256(certificate).hexdigest()
    s_height, s_id, t_height, t_id, parts = msgpack.unpackb(certificate)
    digest = hashed("vote", [ids[0], s_height, s_id, t_height, t_id])
    assert digest.hex() == vectors["vote_digest"]
    ((set_id, signers, signatures),) = parts
    assert (set_id, [i for i in range(4) if signers[0] >> i & 1]) == (0, [0, 2, 3])
    by_name = dict(zip(("alba", "bora", "cima", "dora"), load("crypto.json")["keys"][1:], strict=True))
    elected = [by_name[name]["public_key"] for name in genesis["elected"]]
    for index, signature in zip((0, 2, 3), signatures, strict=True):
        assert is_signed(elected[index], digest, signature.hex())


def test_void_records_of_the_second_block() -> None:
    """Repeated in the chain, in the transaction, and just over the minute's edge: void. Five seconds over it: not."""
    second = load("blocks.json")["blocks"][1]
    assert second["body"][0]["void_bitmap"] == "15"
    totals = second["header"]["totals"]
    assert (totals["records"], totals["void"]) == (3, 3)


def test_governance() -> None:
    """The changes of each step, applied to the entries of genesis with nothing of ours, give its state root."""
    genesis, vectors = load("genesis.json"), load("governance.json")
    entries = {bytes.fromhex(case["path"]): bytes.fromhex(case["value"]) for case in genesis["state"]}
    root = genesis["state_root"]
    for step in vectors["steps"]:
        (envelope, signature, items) = msgpack.unpackb(bytes.fromhex(step["encoded"]))
        assert [item.hex() for item in items] == [step["item"]]
        assert tagged("tx", msgpack.packb(envelope)).hex() == step["tx_id"]
        public_key = next(
            key[1]
            for value in entries.values()
            if isinstance(key := msgpack.unpackb(value), list)
            and len(key) == 4
            and isinstance(key[1], bytes)
            and hashed("key", key[1])[:20] == envelope[4]
        )
        assert is_signed(public_key.hex(), step["tx_id"], signature.hex())
        for change in step["changes"]:
            path = bytes.fromhex(change["path"])
            assert tagged("state", bytes.fromhex(change["key"])) == path
            if change["value"] is None:
                del entries[path]
            else:
                entries[path] = bytes.fromhex(change["value"])
        assert (step["state_root"] == root) == (step["does_not_fit"] is not None)
        root = step["state_root"]
        assert sparse(entries).hex() == root


def test_steps_of_governance_use_every_kind_and_action() -> None:
    steps = load("governance.json")["steps"]
    assert {step["kind"] for step in steps} == {"key", "candidate", "delegate", "propose", "approve", "evidence"}
    actions = {step["payload"]["action"] for step in steps if step["kind"] == "propose"}
    assert actions == {"admit", "reweigh", "remove", "readmit", "seats"}
    assert [step["height"] for step in steps if step["does_not_fit"]] == [2, 5, 8, 11, 13, 19]


@pytest.mark.parametrize("case", load("governance.json")["refused"], ids=lambda case: case["why"])
def test_refused_payloads(case: dict[str, str]) -> None:
    chain_id = bytes.fromhex(load("genesis.json")["chain_id"])
    with pytest.raises(LedgerError) as caught:
        read_payload(Kind[case["kind"].upper()], [bytes.fromhex(case["item"])], chain_id)
    assert caught.value.where == case["field"]


def test_every_file_is_described() -> None:
    readme = (DIRECTORY / "README.md").read_text()
    names = [path.name for path in DIRECTORY.iterdir() if path.name != "README.md"]
    assert [name for name in sorted(names) if f"`{name}`" not in readme] == []
