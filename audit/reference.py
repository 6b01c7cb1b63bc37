"""A second, independent verifier: the same verdict as the audit, by code that shares nothing with it.

``python -m audit.reference chain.export genesis.json``

It is written from docs/protocol.md, docs/rules.md and docs/audit.md, in the order in which docs/audit.md lists what is
checked, with the ``ecdsa`` and ``msgpack`` packages and the standard library; nothing of the project is imported but
its own files, ``audit/reference_*.py``. Slow and simple on purpose: it can be read.

An export is read once, front to back, holding one block; only the keys of counted records stay in memory.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from audit.reference_receipts import prove
from audit.reference_rules import check_record, open_tables, run_vectors
from audit.reference_state import State, founders_state, read_genesis
from audit.reference_transactions import Body, Checked, CheckRecord, Index, check_transaction
from audit.reference_types import BODY, CERTIFICATE, HEAD, SEALED_HEADER, TOTALS
from audit.reference_votes import (
    Point,
    Schedule,
    VotingSet,
    begin_block,
    check_certificate,
    found,
    schedule_for,
    schedule_of,
    sets_to_sign,
)
from audit.reference_wire import (
    ZERO32,
    History,
    Refused,
    Unusable,
    decode,
    encode,
    expect,
    is_signed,
    merkle_root,
    tagged_hash,
    within,
)

MAGIC = b"ledgerd export\n\0\1"
FRAME_BYTES_MAX = 16 << 20
GENESIS, HEAD_FRAME, SEALED, BODY_FRAME, TRANSACTION, CHILD, CERTIFICATE_FRAME, END = range(1, 9)
TRANSACTIONS_MAX = 65_535


class Damaged(Refused):
    """Bytes are not those that were written; ``where`` is the file and the offset in it."""


@dataclass
class Verdict:
    """What there is to say.

    Attributes:
        ok: everything holds.
        height: the last block where it does, else that of the first difference; 0 is genesis or what comes before it.
        where: the field of the first difference, or file and offset of damage; empty where everything holds.
        sentence: all of it in one line.
        counts: ``blocks``, ``transactions``, ``records``, ``void``, ``elections``, ``set_changes`` of what held.
        is_damage: bytes cannot be read, rather than say something wrong.
    """

    ok: bool
    height: int
    where: str
    sentence: str
    counts: dict[str, int] = field(default_factory=dict)
    is_damage: bool = False


# -- exports -------------------------------------------------------------------------------------------------------


class Export:
    """The frames of an export. The one behind those that are taken is read already: damage shows a frame ahead."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name, self.offset = file, name, 0
        preamble = self.read(len(MAGIC))
        if preamble[:-2] != MAGIC[:-2]:
            raise self.damaged("this is no export")
        if preamble != MAGIC:
            raise Unusable(f"{name}: an export of another format version")
        self.kind, self.payload = self.frame()
        self.genesis = self.payload if self.kind == GENESIS else self.refuse_order()
        self.kind, self.payload = self.frame()
        head = self.payload if self.kind == HEAD_FRAME else self.refuse_order()
        try:
            self.head = decode(head, HEAD)
        except Refused as error:
            raise self.damaged(f"HEAD: {error}") from None
        self.kind, self.payload = self.frame()

    def damaged(self, what: str, at: int | None = None) -> Damaged:
        """Return the refusal of bytes at an offset, else at the present one."""
        return Damaged(f"{self.name} at {self.offset if at is None else at}", what)

    def refuse_order(self) -> bytes:
        """Refuse the frame at hand."""
        raise self.damaged("frames out of order")

    def read(self, size: int) -> bytes:
        """Return the next bytes of the file."""
        pieces, wanted = [], size
        while wanted and (piece := self.file.read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        if wanted:
            raise self.damaged("the export ends too early")
        self.offset += size
        return b"".join(pieces)

    def frame(self) -> tuple[int, bytes]:
        """Return type and payload of the next frame."""
        begin, front = self.offset, self.read(9)
        kind, length, checksum = front[0], int.from_bytes(front[1:5]), int.from_bytes(front[5:])
        if length > FRAME_BYTES_MAX:
            raise self.damaged("a frame is too long", begin)
        payload = self.read(length)
        if zlib.crc32(front[:5] + payload) != checksum:
            raise self.damaged("a frame's checksum does not fit", begin)
        if not GENESIS <= kind <= END:
            raise self.damaged("a frame of an unknown type", begin)
        return kind, payload

    def take(self, kind: int) -> bytes | None:
        """Return the payload at hand where it is of ``kind``, having read the next frame; else None."""
        if self.kind != kind:
            return None
        payload = self.payload
        self.kind, self.payload = self.frame()
        return payload

    def blocks(self) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
        """Yield header, body and transactions of each block."""
        while (sealed := self.take(SEALED)) is not None:
            if (body := self.take(BODY_FRAME)) is None:
                raise self.damaged("frames out of order")
            transactions: list[bytes] = []
            while (raw := self.take(TRANSACTION)) is not None:
                transactions.append(raw)
                if len(transactions) > TRANSACTIONS_MAX:
                    raise self.damaged("more transactions than a block may hold")
            yield sealed, body, transactions

    def end(self) -> tuple[bytes | None, bytes | None]:
        """Return what makes the last block final: a child's header and a certificate, as far as they are there."""
        child, certificate = self.take(CHILD), self.take(CERTIFICATE_FRAME)
        if self.kind != END:
            raise self.damaged("frames out of order")
        if self.file.read(1):
            raise self.damaged("bytes after the END frame")
        return child, certificate


# -- the chain -----------------------------------------------------------------------------------------------------


class Chain:
    """A chain up to its last block that held."""

    def __init__(self, genesis: Any, check: CheckRecord) -> None:
        self.genesis, self.check_record = genesis, check
        self.chain_id = tagged_hash("genesis", genesis)
        self.rule_set = tagged_hash("rules", genesis.rules)
        self.state: State = founders_state(genesis)
        found(self.state, self.chain_id)
        epoch = self.state.entries["epoch",]
        self.schedule: Schedule = schedule_of(epoch.seats, 0, epoch.seed, genesis.parameters.epoch_slots)
        self.height, self.slot, self.block_id = 0, -1, self.chain_id
        self.history = History()
        self.history.append(self.chain_id)
        self.justified = self.final = Point(0, self.chain_id)
        self.last_records_height = 0
        self.links: dict[int, tuple[Point, Point, list[VotingSet]]] = {}
        self.sets = sets_to_sign(self.state.entries["voting",])
        self.index = Index()
        self.counts = dict.fromkeys(("blocks", "transactions", "records", "void", "elections", "set_changes"), 0)
        self.struck: list[str] = []

    @property
    def is_owed(self) -> bool:
        """Tell whether votes are owed at the last block."""
        return self.last_records_height > self.justified.height

    def add(self, raw_sealed: bytes, raw_body: bytes, raws: list[bytes]) -> None:
        """Check the next block. Raises Refused."""
        sealed = decode(raw_sealed, SEALED_HEADER, "header")
        header = sealed.header
        self.check_place(header)
        schedule, election = self.check_slot(header)
        justified, final = self.check_carried(sealed.certificate)
        body = decode(raw_body, BODY, "body")
        transactions = self.check_transactions(body, raws)
        place = self.height, self.slot
        begin_block(self.state, schedule, election, header.slot, place, final, self.is_owed)
        time_ms = self.genesis.genesis_time_ms + header.slot * self.genesis.parameters.slot_ms
        block = Body(self.state, self.height + 1, time_ms, self.index)
        for index, (item, transaction) in enumerate(zip(body, transactions, strict=True)):
            with within(f"body[{index}]"):
                block.add(transaction, item.void_bitmap)
        totals = block.sums.totals()
        self.check_contents(sealed, body, totals)
        self.check_seal(sealed, schedule)
        # It holds: from here on it is the last block.
        self.height, self.slot, self.schedule = header.height, header.slot, schedule
        self.block_id = tagged_hash("header", header)
        self.history.append(self.block_id)
        self.links[self.height] = justified, Point(self.height, self.block_id), self.sets
        self.links = {height: link for height, link in self.links.items() if height > justified.height}
        self.justified, self.final = justified, final
        self.sets = sets_to_sign(self.state.entries["voting",])
        self.last_records_height = self.height if body else self.last_records_height
        self.struck += election.struck if election else []
        found = 1, len(body), totals.records + totals.void, totals.void, int(election is not None)
        for name, count in zip(self.counts, found, strict=False):
            self.counts[name] += count
        self.counts["set_changes"] = self.sets[0][0]

    def check_place(self, header: Any) -> None:
        """Check that a header continues the chain."""
        expect("chain_id", header.chain_id, self.chain_id)
        expect("height", header.height, self.height + 1)
        expect("parent_id", header.parent_id, self.block_id)
        expect("rule_set", header.rule_set, self.rule_set)

    def check_slot(self, header: Any) -> tuple[Schedule, Any]:
        """Check slot and producer; return the schedule of the slot, and the election that the block begins with."""
        if header.slot <= self.slot:
            raise Refused("slot", f"not above the parent's, {self.slot}")
        schedule, election = schedule_for(self.state, self.schedule, header.slot, self.slot, self.final, self.is_owed)
        expect("producer_key_id", header.producer_key_id, schedule.owner(header.slot).key_id)
        return schedule, election

    def check_carried(self, certificate: Any) -> tuple[Point, Point]:
        """Check a certificate that is carried; return what is justified and what is final by it."""
        if certificate is None:
            return self.justified, self.final
        with within("certificate"):
            if certificate.t_height not in self.links:
                raise Refused("t_height", "the target is no ancestor above the last one certified")
            source, target, sets = self.links[certificate.t_height]
            expect("t_id", certificate.t_id, target.block_id)
            expect("s_height", certificate.s_height, source.height)
            expect("s_id", certificate.s_id, source.block_id)
            check_certificate(certificate, sets, self.chain_id)
        return target, source if target.height == source.height + 1 else self.final

    def check_transactions(self, body: list[Any], raws: list[bytes]) -> list[Checked]:
        """Check each transaction of a body by itself."""
        expect("transactions", len(raws), len(body))
        checked = []
        for index, (item, raw) in enumerate(zip(body, raws, strict=True)):
            with within(f"transactions[{index}]"):
                checked.append(check_transaction(raw, self.state, self.chain_id, self.check_record))
                expect("tx_id", checked[-1].tx_id, item.tx_id)
        return checked

    def check_contents(self, sealed: Any, body: list[Any], totals: Any) -> None:
        """Check every field of the header that follows from what the block holds."""
        header = sealed.header
        expect("tx_count", header.tx_count, len(body))
        expect("tx_root", header.tx_root, merkle_root([encode(item) for item in body]))
        for name in TOTALS.fields:
            expect(f"totals.{name}", getattr(header.totals, name), getattr(totals, name))
        expect("state_root", header.state_root, self.state.root)
        expect("history_root", header.history_root, self.history.root())
        expect("qc_hash", header.qc_hash, qc_hash_of(sealed.certificate))

    def check_seal(self, sealed: Any, schedule: Schedule) -> None:
        """Check the producer's signature."""
        owner = schedule.owner(sealed.header.slot)
        if not is_signed(owner.public_key, tagged_hash("header", sealed.header), sealed.signature):
            raise Refused("signature", f"not by {owner.member_id} over the block id")

    def check_end(self, head: Any, raw_child: bytes | None, raw_certificate: bytes | None) -> None:
        """Check that the export ends where it says, and that its last block is final."""
        if head.final_height != self.height:
            raise Refused("block", f"blocks up to {head.final_height} were announced", self.height + 1)
        expect("head.final_id", head.final_id, self.block_id)
        if not self.height:
            return
        if raw_child is None or raw_certificate is None:
            raise Refused("finality", "nothing proves that the last block is final")
        certificate = decode(raw_certificate, CERTIFICATE, "final_certificate")
        child = decode(raw_child, SEALED_HEADER, "child")
        with within("child"):
            self.check_place(child.header)
            schedule, _ = self.check_slot(child.header)
            justified, _ = self.check_carried(child.certificate)
            expect("qc_hash", child.header.qc_hash, qc_hash_of(child.certificate))
            self.check_seal(child, schedule)
        with within("final_certificate"):
            expect("s_height", certificate.s_height, self.height)
            expect("s_id", certificate.s_id, self.block_id)
            expect("t_height", certificate.t_height, child.header.height)
            expect("t_id", certificate.t_id, tagged_hash("header", child.header))
        expect("child.certificate.t_id", justified.block_id, self.block_id)
        with within("final_certificate"):
            check_certificate(certificate, self.sets, self.chain_id)


def qc_hash_of(certificate: Any) -> bytes:
    """Return the hash of the certificate carried, as the header has it."""
    return ZERO32 if certificate is None else sha256(encode(certificate)).digest()


# -- verdicts ------------------------------------------------------------------------------------------------------


def rules_of(genesis: Any) -> CheckRecord:
    """Return the check of a record under the rules of a chain, proved by their vectors. Raises Unusable."""
    tables = open_tables(genesis.rules, genesis.parameters.carbon_basis)
    run_vectors(genesis.rules)
    return partial(check_record, pin=genesis.rules, tables=tables)


def begin_chain(export: Export, genesis: Any, rules: CheckRecord | None) -> Chain:
    """Return the chain at height 0 of an export that is to be of this genesis. Raises Refused, Unusable."""
    if export.genesis != encode(genesis):
        raise Refused("genesis", "the genesis carried is not the one given", 0)
    chain = Chain(genesis, rules or rules_of(genesis))
    if export.head.first_height != 1:
        raise Refused("head", "it does not begin with the first block", 1)
    return chain


def verify_export(
    target: str | Path | BinaryIO,
    genesis_json: bytes,
    *,
    name: str = "",
    rules: CheckRecord | None = None,
    on_block: Callable[[int, int, int], None] = lambda _height, _last, _records: None,
) -> Verdict:
    """Return the verdict on an export, held against a genesis file.

    target: a path, or a stream read once. name: what it is called in places of damage; the path where not given.
    rules: those of the genesis, of ``rules_of``, where they are at hand; else they are read and proved here.
    on_block: told height, last height and records after each block.
    Raises Unusable where nothing can be said, OSError where the file cannot be read.
    """
    if isinstance(target, str | Path):
        with Path(target).open("rb") as file:
            return verify_export(file, genesis_json, name=name or str(target), rules=rules, on_block=on_block)
    chain: Chain | None = None
    try:
        export = Export(target, name or "export")
        chain = begin_chain(export, read_genesis(genesis_json), rules)
        for sealed, body, transactions in export.blocks():
            chain.add(sealed, body, transactions)
            on_block(chain.height, export.head.final_height, chain.counts["records"])
        child, certificate = export.end()
        try:
            chain.check_end(export.head, child, certificate)
        except Refused as error:
            raise Refused(error.where, error.what, error.height or chain.height) from None
    except Refused as error:
        height = error.height if error.height is not None else chain.height + 1 if chain else 0
        counts = chain.counts if chain else {}
        if isinstance(error, Damaged):
            sentence = f"NOT OK: damaged store at height {height}, {error}"
            return Verdict(False, height, error.where, sentence, counts, is_damage=True)
        return Verdict(False, height, error.where, f"NOT OK: height {height}, field {error}", counts)
    return Verdict(True, chain.height, "", sentence_of(chain), chain.counts)


def verify_receipt(data: bytes, genesis_json: bytes) -> Verdict:
    """Return the verdict on a receipt, held against a genesis file. Raises Unusable for the genesis."""
    try:
        proven = prove(data, genesis_json)
    except Refused as error:
        return Verdict(False, 0, error.where, f"NOT OK: receipt, field {error}")
    return Verdict(True, proven.receipt.height, "", proven.sentence())


def sentence_of(chain: Chain) -> str:
    """Return what holds, in one line."""
    counts = chain.counts
    parts = [f"{counts['blocks']:,} blocks, {counts['records']:,} records ({counts['void']:,} void)"]
    for count, one, many in (
        (counts["elections"], "election", "elections"),
        (counts["set_changes"], "change of the voting set", "changes of the voting set"),
    ):
        parts += [f"{count:,} {one if count == 1 else many}"] if count else []
    parts += [f"struck: {' '.join(chain.struck)}"] if chain.struck else []
    return "OK: " + ", ".join([*parts, f"final at height {chain.height} id {chain.block_id.hex()}"])


def verify_file(path: Path, genesis_json: bytes) -> Verdict:
    """Return the verdict on a file, a receipt if it begins as JSON does."""
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"{"):
            return verify_export(path, genesis_json)
    return verify_receipt(path.read_bytes(), genesis_json)


def main(arguments: list[str]) -> int:
    """Verify a file; return the exit status: 0 everything holds, 1 something does not, 2 nothing can be said."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m audit.reference chain.export|receipt.json genesis.json\n")
        return 2
    try:
        verdict = verify_file(Path(arguments[0]), Path(arguments[1]).read_bytes())
    except (Unusable, OSError) as error:
        sys.stderr.write(f"audit.reference: {error}\n")
        return 2
    sys.stdout.write(f"{verdict.sentence}\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
