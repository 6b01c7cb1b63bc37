"""The makers of the vectors of encodings, hashes and ids; ``make-vectors`` runs them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from consensus.election import founding_state
from consensus.epochs import NextEpoch, Position, begin_block, genesis_position, schedule_of, voting_sets
from consensus.params import quorum_of
from consensus.schedule import compute_schedule, producer_at
from consensus.votes import Checkpoint, Link, VotePool, digest_of, link_of
from ledger import cdr, merkle
from ledger.block import (
    Block,
    Certificate,
    SealedHeader,
    Vote,
    block_id_of,
    certificate_hash,
)
from ledger.cdr import CallRecord, call_commitment, record_key_of, talk_ms
from ledger.codec import INT_MAX, encode
from ledger.commitment import PRIVATE_FIELDS, field_leaf, make_private_part, party_commitment, prove_field
from ledger.crypto import ORDER, TAGS, PrivateKey, key_id_of, tagged_hash
from ledger.entries import KeyEntry, MemberEntry
from ledger.genesis import (
    Candidate,
    Delegation,
    Genesis,
    GenesisMember,
    MemberKey,
    Parameters,
    Role,
    chain_id_of,
    genesis_to_json,
    rule_set_id_of,
)
from ledger.models.rounding import divide_half_up
from ledger.models.tables import INTENSITY_MG_PER_KWH
from ledger.readable import to_readable
from ledger.record_index import Overlay, RecordIndex, SeenRecords
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from ledger.state import state_changes, state_path
from ledger.store import MemoryStore
from ledger.transaction import make_transaction, tx_id_of
from ledger.transition import (
    BodyBuilder,
    ChainState,
    apply_block,
    block_time_ms,
    make_header,
)
from ledger.validation import CheckedTransaction, check_transaction

GENESIS_MS = 1_767_225_600_000
MEMBERS = ("alba", "bora", "cima", "dora")
NODE_KEYS = {name: PrivateKey.from_seed(f"node {name}".encode()) for name in MEMBERS}
SUBMIT_KEY = PrivateKey.from_seed(b"submit alba")
RECORD_KEY = bytes(range(32))


def secret_of(seed: bytes) -> str:
    """Return the private scalar that ``PrivateKey.from_seed`` derives, as 32 bytes in hex."""
    number = int.from_bytes(sha256(seed).digest(), "big") % (ORDER - 1) + 1
    return number.to_bytes(32, "big").hex()


def make_crypto() -> dict[str, Any]:
    seeds = [b"submit alba", *(f"node {name}".encode() for name in MEMBERS)]
    keys = [PrivateKey.from_seed(seed) for seed in seeds]
    digest = tagged_hash("tx", b"\x01")
    good = keys[0].sign(digest)
    r, s = good[:32], int.from_bytes(good[32:], "big")
    zero, order = bytes(32), ORDER.to_bytes(32, "big")
    refused = {
        "high s": r + (ORDER - s).to_bytes(32, "big"),
        "r is zero": zero + good[32:],
        "s is zero": r + zero,
        "r is the order": order + good[32:],
        "s is the order": r + order,
        "one bit of r": bytes([good[0] ^ 1]) + good[1:],
        "63 bytes": good[:-1],
        "65 bytes": good + b"\x00",
    }
    return {
        "about": "Tagged hashes of `data`; keys (`private`: the scalar) with their ids; signatures with nonces of "
        "RFC 6979 and low s over a 32-byte digest; signatures of keys[0] over the same digest that are refused.",
        "tagged_hashes": [
            {"tag": tag, "data": data.hex(), "hash": tagged_hash(tag, data).hex()}
            for tag in TAGS
            for data in (b"", b"\x93\x01\xc4\x01\x02\xa1x")
        ],
        "keys": [
            {"private": secret_of(seed), "public_key": key.public_key.hex(), "key_id": key_id_of(key.public_key).hex()}
            for seed, key in zip(seeds, keys, strict=True)
        ],
        "digest": digest.hex(),
        "signatures": [key.sign(digest).hex() for key in keys],
        "refused": [{"why": why, "signature": signature.hex()} for why, signature in refused.items()],
    }


def typical_record(number: int = 1, **changes: Any) -> CallRecord:
    """Return a call of 60 s answered after 4 s, measured and metered."""
    intensity = INTENSITY_MG_PER_KWH["ember-2026", "DE"]
    total_mj = 120_000 + 5_000 + 2_800
    setup_ms = GENESIS_MS + 30_000
    record = CallRecord(
        version=1,
        service=cdr.Service.VOICE,
        leg=cdr.Leg.ORIGINATING,
        party_commitment=party_commitment(private_part()),
        call_commitment=call_commitment(RECORD_KEY, f"call-{number}@example.net", "tag", 1),
        setup_ms=setup_ms,
        answer_ms=setup_ms + 4_000,
        end_ms=setup_ms + 64_000,
        sip_code=200,
        q850_cause=16,
        released_by=cdr.ReleasedBy.CALLER,
        codec=0,
        packets_sent=3_000,
        packets_received=2_998,
        octets_sent=480_000,
        octets_received=479_680,
        quality=cdr.Quality(
            cdr.QualityMethod.MEASURED,
            cdr.Band.NARROWBAND,
            cdr.MosKind.CQ,
            cdr.Observer.CALLEE,
            12,
            None,
            None,
            3_000,
            2,
            0,
            1,
            cdr.Reading(4_300, 40_000, 2_000, 667, 0),
            cdr.Reading(4_200, 60_000, 4_000, 10_000, 20_000),
            cdr.Reading(4_400, 30_000, 1_000, 0, 45_000),
        ),
        levels=None,
        energy=cdr.Energy(
            cdr.EnergyMethod.METERED,
            cdr.Boundary.CORE,
            cdr.DeviceClass.PHONE,
            120_000,
            5_000,
            2_000,
            1_400,
            "DE",
            intensity,
            "ember-2026",
            divide_half_up(total_mj * intensity, 3_600_000),
        ),
    )
    return msgspec.structs.replace(record, **changes)


def sample_records() -> dict[str, CallRecord]:
    most32, latest = 2**32 - 1, 4_102_444_800_000
    reading = cdr.Reading(5_000, most32, most32, 1_000_000, most32)
    return {
        "typical": typical_record(),
        "never answered, nothing measured": typical_record(2, answer_ms=0, sip_code=486, quality=None, energy=None),
        "smallest": CallRecord(
            1, cdr.Service.VOICE, cdr.Leg.ORIGINATING, bytes(32), bytes(16), 0, 0, 0, 0, 0,
            cdr.ReleasedBy.UNKNOWN, 0, 0, 0, 0, 0, None, None, None,
        ),
        "largest": CallRecord(
            1, cdr.Service.STREAMING, cdr.Leg.TRANSIT, b"\xff" * 32, b"\xff" * 16, latest, latest, latest, 699, 127,
            cdr.ReleasedBy.NETWORK, 65_535, INT_MAX, INT_MAX, cdr.OCTETS_MAX, cdr.OCTETS_MAX,
            cdr.Quality(
                cdr.QualityMethod.MEASURED, cdr.Band.FULLBAND, cdr.MosKind.AVQ, cdr.Observer.BOTH, most32, 148_000,
                most32, INT_MAX, INT_MAX, INT_MAX, INT_MAX, reading, reading, reading,
            ),
            cdr.Levels(-128, 126, 255, 255, 255, 65_535, 65_535, 65_535, 65_535, 65_535),
            cdr.Energy(
                cdr.EnergyMethod.METERED, cdr.Boundary.MOBILE, cdr.DeviceClass.CONFERENCE, cdr.ENERGY_MJ_MAX,
                cdr.ENERGY_MJ_MAX, cdr.ENERGY_MJ_MAX, cdr.PUE_MILLI_MAX, "GB-ENG", most32, "x" * 32, cdr.CO2_UG_MAX,
            ),
        ),
    }  # fmt: skip


def make_records() -> dict[str, Any]:
    good = encode(typical_record())
    assert good[:4] == b"\xdc\x00\x13\x01"
    refused = {
        "longer array header": b"\xdd\x00\x00\x00\x13" + good[3:],
        "longer integer": good[:3] + b"\xcc\x01" + good[4:],
        "signed integer": good[:3] + b"\xd0\x01" + good[4:],
        "float": good[:3] + b"\xca\x3f\x80\x00\x00" + good[4:],
        "bool": good[:3] + b"\xc3" + good[4:],
        "longer header of bytes": good.replace(b"\xc4\x20", b"\xc5\x00\x20", 1),
        "text for bytes": good.replace(b"\xc4\x20", b"\xd9\x20", 1),
        "a byte behind the end": good + b"\x00",
        "a byte missing": good[:-1],
        "a field missing": b"\xdc\x00\x12" + good[3:-1],
        "a field too many": b"\xdc\x00\x14" + good[3:] + b"\xc0",
        "unknown version": good[:3] + b"\x02" + good[4:],
    }
    calls = [("a84b4c76e66710@pc33.example.net", "1928301774", 314159), ("", "", 0), ("ünïcode", "t", 2**31 - 1)]
    return {
        "about": "Call records: `readable` JSON, `encoded` bytes, leaf hash, record key for member alba. `refused`: "
        "bytes near those of the first record that are not its encoding, nor any other record's. "
        "`call_commitments`: of the call with `record_key`.",
        "records": [
            {
                "name": name,
                "readable": to_readable(record),
                "encoded": encode(record).hex(),
                "leaf_hash": merkle.leaf_hash(encode(record)).hex(),
                "record_key": record_key_of("alba", record).hex(),
                "talk_ms": talk_ms(record),
            }
            for name, record in sample_records().items()
        ],
        "refused": [{"why": why, "encoded": data.hex()} for why, data in refused.items()],
        "record_key": RECORD_KEY.hex(),
        "call_commitments": [
            {
                "call_id": call_id,
                "from_tag": from_tag,
                "invite_cseq": cseq,
                "call_commitment": call_commitment(RECORD_KEY, call_id, from_tag, cseq).hex(),
            }
            for call_id, from_tag, cseq in calls
        ],
    }


def private_part() -> Any:
    values = {"caller": "+442071838750", "callee": "sip:bob@example.net", "call_id": "call-1@example.net"}
    return make_private_part(values, [bytes([0xA0 + i]) * 32 for i in range(len(PRIVATE_FIELDS))])


def make_private() -> dict[str, Any]:
    part = private_part()
    return {
        "about": "A private part (`value` is hex of UTF-8), the leaf data and path of each field, and the commitment.",
        "fields": [
            {
                **to_readable(field),
                "leaf": field_leaf(field).hex(),
                "path": [h.hex() for h in prove_field(part, field.name)],
            }
            for field in part.fields
        ],
        "encoded": encode(part).hex(),
        "party_commitment": party_commitment(part).hex(),
    }


def sample_genesis() -> Genesis:
    parameters = Parameters(1_000, 100, 4, 8, 30, 35 * 86_400_000, 100_000, 64 * 1024 * 1024, 1_000, "lifecycle")
    members = []
    for number, (name, key) in enumerate(NODE_KEYS.items()):
        keys = [MemberKey(key.public_key, Role.NODE | Role.GOVERN)]
        if name == "alba":
            keys.append(MemberKey(SUBMIT_KEY.public_key, Role.SUBMIT))
        members.append(
            GenesisMember(name, 100 + number, keys, Candidate(key.key_id, f"wss://{name}.example:9090", "DE"))
        )
    delegations = [Delegation("alba", "bora", 40), Delegation("alba", "dora", 60), Delegation("cima", "cima", 102)]
    return Genesis(1, "vectors", GENESIS_MS, parameters, members, delegations, default_rule_set_pin("lifecycle"))


def make_genesis() -> dict[str, Any]:
    genesis = sample_genesis()
    state = founding_state(genesis)
    entries: list[tuple[tuple[str | bytes, ...], Any]] = [
        (("parameters",), genesis.parameters),
        (("rules",), genesis.rules),
    ]
    for member in genesis.members:
        entries.append((("member", member.member_id), MemberEntry(member.weight)))
        entries.append((("candidate", member.member_id), member.candidate))
        entries += [
            (("key", key_id_of(k.public_key)), KeyEntry(member.member_id, k.public_key, k.roles, 1))
            for k in member.keys
        ]
    entries += [(("delegation", d.member_id, d.candidate_id), d.weight) for d in genesis.delegations]
    entries += [(("epoch",), state.epoch), (("turns",), state.turns), (("voting",), state.voting)]
    return {
        "about": "A genesis as genesis.json has it and as it is hashed; the state it makes: each entry's key (an array "
        "of strings and byte strings), its path in the state tree and its value; who is elected, by rank.",
        "json": genesis_to_json(genesis).decode(),
        "encoded": encode(genesis).hex(),
        "chain_id": chain_id_of(genesis).hex(),
        "rule_set_encoded": encode(genesis.rules).hex(),
        "rule_set": rule_set_id_of(genesis.rules).hex(),
        "state": [
            {"key": encode(key).hex(), "path": state_path(*key).hex(), "value": encode(value).hex()}
            for key, value in entries
        ],
        "state_root": state.tree.root.hex(),
        "elected": [producer.member_id for producer in state.epoch.seats],
    }


def make_schedule() -> dict[str, Any]:
    producers = tuple(founding_state(sample_genesis()).epoch.seats)
    cases = [(0, bytes(32)), (1, bytes(32)), (7, b"\xff" * 32), (10**9, sha256(b"seed").digest())]
    names = [p.member_id for p in producers]
    return {
        "about": "The order of the producers (given by rank) in an epoch, shuffled with a seed; slot "
        "epoch * epoch_slots + i is that of order[i mod n]. `quorums` by number of producers.",
        "producers": names,
        "cases": [
            {
                "epoch": epoch,
                "seed": seed.hex(),
                "order": [p.member_id for p in compute_schedule(producers, epoch, 100, seed).order],
            }
            for epoch, seed in cases
        ],
        "quorums": [{"producers": n, "quorum": quorum_of(n)} for n in range(1, 22)],
    }


def sample_transactions(chain_id: bytes) -> list[tuple[str, Any]]:
    """Return transactions by name: the second repeats a record of the first, in itself and across a minute's edge."""
    edge = GENESIS_MS + 60_000
    first = [typical_record(n) for n in (1, 2, 3)]
    near = typical_record(4, setup_ms=edge - 1, answer_ms=0, end_ms=edge + 5_000, quality=None, energy=None)
    again = msgspec.structs.replace(near, setup_ms=edge + 4_999)
    far = msgspec.structs.replace(near, setup_ms=edge + 5_000, end_ms=edge + 6_000)
    second = [typical_record(2, sip_code=486), typical_record(5), typical_record(5), near, again, far]
    made = []
    for name, records in (("three records", first), ("voids", second)):
        made.append(
            (
                name,
                make_transaction(
                    [encode(record) for record in records],
                    key=SUBMIT_KEY,
                    member_id="alba",
                    chain_id=chain_id,
                    created_ms=GENESIS_MS + 120_000,
                    expires_ms=GENESIS_MS + 120_000 + 3_600_000,
                ),
            )
        )
    return made


def make_transactions() -> dict[str, Any]:
    chain_id = chain_id_of(sample_genesis())
    return {
        "about": "Transactions of the chain in genesis.json, signed by alba's submit key (keys[0] of crypto.json).",
        "transactions": [
            {
                "name": name,
                "envelope": to_readable(tx.envelope),
                "envelope_encoded": encode(tx.envelope).hex(),
                "tx_id": tx_id_of(tx.envelope).hex(),
                "signature": tx.signature.hex(),
                "items": [item.hex() for item in tx.items],
                "encoded": encode(tx).hex(),
            }
            for name, tx in sample_transactions(chain_id)
        ],
    }


class _Chain:
    """A short chain, sealed and applied as nodes do."""

    def __init__(self) -> None:
        self.genesis = sample_genesis()
        self.position = genesis_position(self.genesis)
        self.schedule = schedule_of(self.chain.state)
        self.overlays: list[Overlay] = []
        self.records: dict[bytes, list[CallRecord]] = {}
        self.checked: list[CheckedTransaction] = []
        rules = RuleSet(self.genesis.rules, carbon_basis="lifecycle")
        for _, tx in sample_transactions(self.chain.chain_id):
            checked = check_transaction(
                encode(tx), chain_id=self.chain.chain_id, key_of=self.chain.state.keys.get, rules=rules
            )
            self.checked.append(checked)
            self.records[checked.tx_id] = [msgspec.msgpack.decode(item, type=CallRecord) for item in tx.items]

    @property
    def chain(self) -> ChainState:
        """Return the chain so far."""
        return self.position.chain

    def seal(self, slot: int, transactions: list[CheckedTransaction], certificate: Certificate | None) -> Block:
        """Return the next block, sealed by the slot's producer, having applied it."""
        election = None
        if slot // self.schedule.epoch_slots != self.schedule.epoch:
            following = NextEpoch(self.position, self.schedule)
            self.schedule, election = following.schedule(slot // self.schedule.epoch_slots), following.election
        producer = NODE_KEYS[producer_at(self.schedule, slot).member_id]
        finality = self.position.finality
        if certificate is not None:
            finality = finality.after(link_of(certificate))
        begin = begin_block(self.position, self.schedule, election, slot, finality.final)
        index = RecordIndex(MemoryStore())
        time_ms = block_time_ms(self.genesis, slot)
        seen = SeenRecords(index, self.overlays)
        builder = BodyBuilder(begin, self.chain.height + 1, time_ms, seen, self.records.__getitem__)
        for tx in transactions:
            builder.add(tx)
        header = make_header(self.chain, slot, producer.key_id, builder, certificate)
        block = Block(SealedHeader(header, producer.sign(block_id_of(header)), certificate), builder.body)
        fresh = SeenRecords(index, self.overlays)
        chain = apply_block(self.chain, begin, block, transactions, time_ms, fresh, self.records.__getitem__)
        self.position = Position(chain, finality, chain.height)
        self.overlays.append(fresh.overlay)
        return block


def make_blocks() -> dict[str, Any]:
    made = _Chain()
    states = [made.chain.state]
    chain_id = made.chain.chain_id
    source = Checkpoint(0, chain_id)
    first = made.seal(120, [made.checked[0]], None)
    states.append(made.chain.state)
    target = Checkpoint(1, made.chain.block_id)
    link = Link(source, target)
    pool = VotePool(chain_id)
    votes = []
    for name in MEMBERS[:3]:
        key = NODE_KEYS[name]
        vote = Vote(*source, *target, key.key_id, key.sign(digest_of(chain_id, link)))
        pool.add(vote, key.public_key)
        votes.append(vote)
    certificate = pool.certificate(link, voting_sets(made.chain.state))
    assert certificate is not None
    second = made.seal(121, [made.checked[1]], certificate)
    states.append(made.chain.state)
    return {
        "about": "Two blocks on the genesis in genesis.json, of the transactions in transactions.json; the second has "
        "void records and carries the certificate of a quorum on the first. `state_changes`: the entries of the state "
        "that each block changes, null where one goes: the first begins epoch 1.",
        "blocks": [
            {
                "header": to_readable(block.sealed.header),
                "header_encoded": encode(block.sealed.header).hex(),
                "block_id": block_id_of(block.sealed.header).hex(),
                "signature": block.sealed.signature.hex(),
                "body": to_readable(block.body),
                "body_items": [encode(item).hex() for item in block.body],
                "qc_hash": certificate_hash(block.sealed.certificate).hex(),
                "encoded": encode(block).hex(),
                "state_changes": [
                    {"key": encode(key).hex(), "value": None if value is None else encode(value).hex()}
                    for key, value in sorted(state_changes(before, after).items(), key=lambda change: encode(change[0]))
                ],
            }
            for block, before, after in zip((first, second), states, states[1:], strict=False)
        ],
        "vote_digest": digest_of(chain_id, link).hex(),
        "votes": [{"readable": to_readable(vote), "encoded": encode(vote).hex()} for vote in votes],
        "certificate": to_readable(certificate),
        "certificate_encoded": encode(certificate).hex(),
    }


MAKERS = {
    "crypto.json": make_crypto,
    "records.json": make_records,
    "private_part.json": make_private,
    "genesis.json": make_genesis,
    "schedule.json": make_schedule,
    "transactions.json": make_transactions,
    "blocks.json": make_blocks,
}
