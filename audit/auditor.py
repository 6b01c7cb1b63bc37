"""One block after the other, derived again from its raw bytes: the checks of an audit, in their order.

Source: docs/audit.md, "What is checked, in order".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from audit.index import AuditIndex
from audit.raw import RawBlock, RawFinality
from audit.vouch import NOTHING, Vouched
from consensus.election import Election
from consensus.epochs import NextEpoch, Position, begin_block, genesis_position, schedule_of, voting_sets
from consensus.finality import BranchFinality
from consensus.recovery import make_final_point, restore_position
from consensus.rows import FinalPoint
from consensus.schedule import Schedule, producer_at
from consensus.setchange import VotingProof, prove_voting
from consensus.tree import Votable
from consensus.votes import Checkpoint, Link, VotingSet, check_certificate, link_of
from ledger.block import (
    Block,
    BodyItem,
    BodyItems,
    Certificate,
    Header,
    SealedHeader,
    Totals,
    block_id_of,
    certificate_hash,
)
from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each, type_name
from ledger.errors import EncodingError, InvalidBlock, InvalidVote, LedgerError, WrongProducer
from ledger.genesis import Genesis
from ledger.record_index import Overlay, SeenRecords
from ledger.state import State
from ledger.transaction import Transaction
from ledger.transition import ChainState, apply_block, block_time_ms
from ledger.validation import CheckedTransaction, Rules, check_transaction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Applied:
    """A block that held.

    Attributes:
        is_election: it is the first of an epoch.
        struck: members that its election passed over for a proven fault.
        set_id: the voting set that is current after it.
    """

    height: int
    block_id: bytes
    tx_ids: list[bytes]
    totals: Totals
    overlay: Overlay
    is_election: bool
    struck: list[str]
    set_id: int


class ChainAuditor:
    """The chain so far, one verified block after the other.

    Attributes:
        position: after the last block.
        schedule: of its epoch.
        voting: the sets that had to sign the last block.
        founders: the voting set of genesis.
        header: of the last block; None for genesis.
        index: of the record keys and transactions that counted.
    """

    def __init__(self, genesis: Genesis, rules: Rules, index: AuditIndex | None = None) -> None:
        """index: of what counted, where it is to be saved; it is closed with this."""
        self._genesis = genesis
        self._rules = rules
        self.index = AuditIndex() if index is None else index
        self._raw: dict[bytes, bytes] = {}
        self.position = genesis_position(genesis)
        self.schedule = schedule_of(self.chain.state)
        self.voting = self.next_voting = voting_sets(self.chain.state)
        self.founders = self.voting[0]
        self.header: Header | None = None
        self._vouched = NOTHING
        # How votes count for each block that a certificate may still have as its target.
        self._votables: dict[int, Votable] = {}

    @property
    def chain(self) -> ChainState:
        """Return the chain after the last block."""
        return self.position.chain

    @property
    def finality(self) -> BranchFinality:
        """Return what the certificates carried up to the last block prove."""
        return self.position.finality

    def go_on(self, point: FinalPoint, header: Header, state: State) -> None:
        """Go on after a block that was verified before, as its ``final_point`` and what it comes with say."""
        self.position, self.voting, below = restore_position(point, self.chain.chain_id, state)
        self.schedule, self.next_voting, self.header = schedule_of(state), voting_sets(state), header
        here = Checkpoint(self.chain.height, self.chain.block_id)
        votables = [*below, Votable(Link(self.finality.justified, here), self.voting)]
        self._votables = {votable.link.target.height: votable for votable in votables}

    def close(self) -> None:
        """Let go of temporary files."""
        self.index.close()

    def add(self, raw: RawBlock, vouched: Vouched = NOTHING) -> Applied:
        """Verify the next block and take it in. Raises a LedgerError whose ``where`` names the first difference.

        vouched: what was checked ahead, of this very block.
        """
        self._vouched = vouched
        sealed = _decode(raw.sealed, SealedHeader, "header")
        header = sealed.header
        self._check_place(header, raw.stated_id)
        schedule, election = self._check_slot(header)
        finality = self._finality_after(sealed.certificate)
        body = _decode(raw.body, BodyItems, "body")
        transactions = self._check_transactions(raw, body)
        seen = SeenRecords(self.index, [])
        time_ms = block_time_ms(self._genesis, header.slot)
        begin = begin_block(self.position, schedule, election, header.slot, finality.final)
        # [REJECT] Bounds, void records, counts, totals and roots are what the contents give
        chain = apply_block(self.chain, begin, Block(sealed, body), transactions, time_ms, seen, self._read_records)
        self._check_signature(sealed, schedule)
        # [REJECT] It lies under its own id
        if raw.stated_id is not None and raw.stated_id != chain.block_id:
            raise InvalidBlock(
                "stored under another id", where="block_id", expected=chain.block_id, actual=raw.stated_id
            )
        expiries: dict[bytes, int] = {tx.tx_id: tx.envelope.expires_ms for tx in transactions}
        self.index.count(header.height, seen.overlay, expiries, time_ms)
        self._raw.clear()
        self.header = header
        self._advance(Position(chain, finality, header.height if body else self.position.last_records_height), schedule)
        return Applied(
            chain.height,
            chain.block_id,
            [tx.tx_id for tx in transactions],
            header.totals,
            seen.overlay,
            election is not None,
            election.struck if election else [],
            chain.state.voting.set_id,
        )

    def _advance(self, position: Position, schedule: Schedule) -> None:
        """Take the last block in."""
        is_same = position.chain.state.voting is self.chain.state.voting
        self.position, self.schedule = position, schedule
        self.voting = self.next_voting
        self.next_voting = self.next_voting if is_same else voting_sets(self.chain.state)
        here = Checkpoint(self.chain.height, self.chain.block_id)
        justified = self.finality.justified
        self._votables[here.height] = Votable(Link(justified, here), self.voting)
        for height in [height for height in self._votables if height <= justified.height]:
            del self._votables[height]

    def add_finality(self, found: RawFinality) -> Certificate | None:
        """Verify what makes the last block final, and return that certificate; None where there are no blocks.

        found: what the source has. Raises a LedgerError as ``add`` does.
        """
        if not self.chain.height:
            return None
        # [REJECT] There is a certificate on a link from the last block to a child of it
        if found.certificate is None or found.child is None:
            raise InvalidBlock(
                "nothing proves that the last block is final",
                where="finality",
                expected="a certificate on a link from it to its child, and that child's header",
                actual=f"blocks up to height {self.finality.final.height} are final by certificates carried",
            )
        certificate = _decode(found.certificate, Certificate, "final_certificate")
        child = _decode(found.child, SealedHeader, "child")
        try:
            self._check_place(child.header, None)
            schedule, _ = self._check_slot(child.header)
            finality = self._finality_after(child.certificate)
            _check_equal("qc_hash", certificate_hash(child.certificate), child.header.qc_hash)
            self._check_signature(child, schedule)
        except LedgerError as error:
            error.where = f"child.{error.where}"
            raise
        target = Checkpoint(child.header.height, block_id_of(child.header))
        link = Link(finality.justified, target)
        # [REJECT] The last block is justified by what its child carries, and the link leads from it to that child
        _check_equal("final_certificate.s_height", self.chain.height, certificate.s_height)
        _check_equal("final_certificate.s_id", self.chain.block_id, certificate.s_id)
        _check_equal("final_certificate.t_height", target.height, certificate.t_height)
        _check_equal("final_certificate.t_id", target.block_id, certificate.t_id)
        _check_equal("child.certificate.t_id", self.chain.block_id, link.source.block_id)
        self._check_quorum(certificate, self.next_voting, "final_certificate")
        return certificate

    def voting_proof(self, certificate: Certificate) -> VotingProof:
        """Return the last block's proof for those who follow no block; certificate: what add_finality gave."""
        assert self.header is not None
        return prove_voting(self.header, self.chain.state, certificate)

    def final_point(self) -> FinalPoint:
        """Return the row by which a node remembers the last block as final; links in order of height."""
        below = [votable for height, votable in sorted(self._votables.items()) if height < self.chain.height]
        return make_final_point(self.position, self.voting, below)

    def _check_place(self, header: Header, stated_id: bytes | None) -> None:
        """Check that a header continues this chain."""
        # [REJECT] It is for this chain
        _check_equal("chain_id", self.chain.chain_id, header.chain_id)
        if header.height != self.chain.height + 1 and stated_id == block_id_of(header):
            raise InvalidBlock(
                "the height index names a block of another height",
                where="height_row",
                expected=f"the block of height {self.chain.height + 1}",
                actual=f"{stated_id.hex()} of height {header.height}",
            )
        # [REJECT] It is the next block
        _check_equal("height", self.chain.height + 1, header.height)
        # [REJECT] Its parent is the block before
        _check_equal("parent_id", self.chain.block_id, header.parent_id)
        # [REJECT] The rules in force are named
        _check_equal("rule_set", self.chain.state.rule_set, header.rule_set)

    def _check_slot(self, header: Header) -> tuple[Schedule, Election | None]:
        """Check the slot and who owns it; return the schedule of its epoch, and the election that began it, if any."""
        # [REJECT] Slots only go up
        if header.slot <= self.chain.slot:
            raise InvalidBlock(
                "the slot is not after the parent's", where="slot", expected=f"> {self.chain.slot}", actual=header.slot
            )
        schedule, election = self.schedule, None
        epoch = header.slot // schedule.epoch_slots
        if epoch != schedule.epoch:
            following = NextEpoch(self.position, schedule)
            schedule, election = following.schedule(epoch), following.election
        owner = producer_at(schedule, header.slot)
        # [REJECT] The producer owns this slot
        if owner.key_id != header.producer_key_id:
            raise WrongProducer(
                "the slot is another producer's",
                where="producer_key_id",
                expected=f"{owner.key_id.hex()} ({owner.member_id}) in slot {header.slot}",
                actual=header.producer_key_id,
            )
        return schedule, election

    def _finality_after(self, certificate: Certificate | None) -> BranchFinality:
        """Return what is proved once ``certificate`` is carried by the next block."""
        if certificate is None:
            return self.finality
        link = link_of(certificate)
        votable = self._votables.get(link.target.height)
        # [REJECT] The target is an ancestor, above every target before it in this chain
        if votable is None:
            raise InvalidBlock(
                "the target is not an ancestor above the last one certified",
                where="certificate.t_height",
                expected=f"{self.finality.justified.height + 1} to {self.chain.height}",
                actual=link.target.height,
            )
        right = votable.link
        _check_equal("certificate.t_id", right.target.block_id, link.target.block_id)
        # [REJECT] The source is the one that the target's own chain gives
        _check_equal("certificate.s_height", right.source.height, link.source.height)
        _check_equal("certificate.s_id", right.source.block_id, link.source.block_id)
        self._check_quorum(certificate, votable.voting, "certificate")
        return self.finality.after(link)

    def _check_quorum(self, certificate: Certificate, sets: Sequence[VotingSet], name: str) -> None:
        """Check a certificate's signatures."""
        try:
            check_certificate(certificate, sets, self.chain.chain_id, is_valid=self._vouched.is_valid)
        except InvalidVote as error:
            error.where = f"{name}.{error.where}"
            raise

    def _check_signature(self, sealed: SealedHeader, schedule: Schedule) -> None:
        """Check the seal of the slot's owner."""
        owner = producer_at(schedule, sealed.header.slot)
        # [REJECT] The producer signed it
        if not self._vouched.is_valid(owner.public_key, block_id_of(sealed.header), sealed.signature):
            raise InvalidBlock(
                "the producer's signature does not verify",
                where="signature",
                expected=f"a signature by {owner.member_id} over {block_id_of(sealed.header).hex()}",
                actual=sealed.signature,
            )

    def _check_transactions(self, raw: RawBlock, body: list[BodyItem]) -> list[CheckedTransaction]:
        """Return the transactions of a body, each checked from its bytes."""
        # [REJECT] The body has a transaction for each of its items
        _check_equal("transactions", len(body), len(raw.transactions))
        checked = []
        for index, (item, data) in enumerate(zip(body, raw.transactions, strict=True)):
            where = f"transactions[{index}]"
            if data is None:
                raise InvalidBlock("the transaction is missing", where=where, expected=item.tx_id)
            try:
                tx = self._vouched_for(index) or check_transaction(
                    data, chain_id=self.chain.chain_id, key_of=self.chain.state.keys.get, rules=self._rules
                )
            except LedgerError as error:
                error.where = where + _field_of(error.where)
                raise
            # [REJECT] It is the one that the body names
            _check_equal(f"{where}.tx_id", item.tx_id, tx.tx_id)
            self._raw[tx.tx_id] = data
            checked.append(tx)
        return checked

    def _vouched_for(self, index: int) -> CheckedTransaction | None:
        """Return a transaction that was checked ahead; None where that was not under the key that it has here."""
        found = self._vouched.transactions[index] if index < len(self._vouched.transactions) else None
        key = self.chain.state.keys.get(found.tx.envelope.key_id) if found is not None else None
        if found is None or key is None:
            return None
        ahead = found.key
        is_same = (key.member_id, key.public_key, key.roles) == (ahead.member_id, ahead.public_key, ahead.roles)
        return found.tx if is_same else None

    def _read_records(self, tx_id: bytes) -> list[CallRecord]:
        return decode_each(decode(self._raw[tx_id], Transaction).items, CallRecord)


def _field_of(where: str) -> str:
    """Return what an error says about a transaction as the rest of a field's name."""
    # A spelling is wrong as a whole: the error then names the type.
    where = where.removesuffix(Transaction.__name__).removesuffix(CallRecord.__name__).rstrip(".")
    return f".{where}" if where else ""


def _check_equal(name: str, expected: object, actual: object) -> None:
    if actual != expected:
        raise InvalidBlock("not what the chain gives", where=name, expected=expected, actual=actual)


def _decode(data: bytes, kind: type[T], name: str) -> T:
    try:
        return decode(data, kind)
    except EncodingError as error:
        # A wrong spelling is the whole value's: the error then names the type.
        where = "" if error.where == type_name(kind) else error.where
        error.where = f"{name}.{where}" if where and not where.startswith("[") else f"{name}{where}"
        raise
