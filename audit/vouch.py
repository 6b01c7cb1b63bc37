"""What a worker process vouches for: the checks that need no place in the chain, done ahead of their turn.

A worker says only that something holds. What it does not vouch for, because it does not hold, or because a key was not
known yet, the auditor checks itself, at its turn: so the verdict and its place are the same with any number of workers.

Source: docs/audit.md, "Across cores".
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from consensus.epochs import voting_sets
from consensus.votes import digest_of, link_of
from ledger.block import Certificate, SealedHeader, Totals, TxId, bitmap_indexes, block_id_of
from ledger.codec import Bytes20, Bytes32, Bytes33, Bytes64, Count, Wire, decode_loose
from ledger.crypto import is_valid_signature
from ledger.entries import KeyEntry
from ledger.errors import EncodingError, LedgerError
from ledger.genesis import Genesis, chain_id_of
from ledger.record_index import split_keys
from ledger.state import State
from ledger.transaction import Envelope
from ledger.validation import CheckedTransaction, MinuteKeys, Rules, check_transaction


class KnownKey(Wire, frozen=True):
    """A key of the chain."""

    key_id: Bytes20
    entry: KeyEntry


class KnownSet(Wire, frozen=True):
    """A voting set: its members' public keys, in its order."""

    set_id: Count
    public_keys: list[Bytes33]


class News(Wire, frozen=True):
    """What came to be known of the chain."""

    keys: list[KnownKey]
    sets: list[KnownSet]


class Task(Wire, frozen=True):
    """What a worker is asked to check: bytes as they were found, by kind."""

    news: list[News]
    """What this worker was not told yet."""
    sealed: list[bytes]
    transactions: list[bytes]


class GoodSignature(Wire, frozen=True):
    """A signature that verifies."""

    public_key: Bytes33
    digest: Bytes32
    signature: Bytes64


class MinuteRow(Wire, frozen=True):
    """A MinuteKeys, its sets as bytes one after the other."""

    minute: Count
    keys: bytes
    near_previous: bytes
    near_next: bytes


class Summary(Wire, frozen=True):
    """A CheckedTransaction of records, and the key that it was checked with."""

    key: KeyEntry
    tx_id: Bytes32
    envelope: Envelope
    size: Count
    totals: Totals
    minutes: list[MinuteRow]
    has_repeats: bool
    first_end_ms: Count
    last_end_ms: Count
    rule_set: Bytes32

    def to_checked(self) -> CheckedTransaction:
        """Return what ``check_transaction`` gave."""
        return CheckedTransaction(
            TxId(self.tx_id),
            self.envelope,
            self.size,
            self.totals,
            tuple(_minute_of(row) for row in self.minutes),
            self.has_repeats,
            self.first_end_ms,
            self.last_end_ms,
            self.rule_set,
        )


class Answer(Wire, frozen=True):
    """What a worker vouches for, of one task."""

    signatures: list[GoodSignature]
    """Of the headers and certificates in ``sealed``."""
    transactions: list[Summary | None]
    """In the order of the task; null for what the auditor must check itself."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """What was vouched for, of one block.

    Attributes:
        signatures: (public key, digest, signature) of those that verify.
        transactions: in the order of the body; empty where nobody was asked.
    """

    signatures: AbstractSet[tuple[bytes, bytes, bytes]] = frozenset()
    transactions: tuple[Summary | None, ...] = ()

    def is_valid(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        """Tell whether a signature is good, verifying it where nobody has vouched for it."""
        return (public_key, digest, signature) in self.signatures or is_valid_signature(public_key, digest, signature)


NOTHING: Final = Vouched()
"""Nobody was asked."""


class Voucher:
    """A worker's side: what it was told of the chain, and the checks."""

    def __init__(self, genesis: Genesis, rules: Rules) -> None:
        self._chain_id = chain_id_of(genesis)
        self._rules = rules
        self._keys: dict[bytes, KeyEntry] = {}
        self._sets: dict[int, list[bytes]] = {}

    def answer(self, task: Task) -> Answer:
        """Return what holds of ``task``."""
        for news in task.news:
            self._keys |= {key.key_id: key.entry for key in news.keys}
            self._sets |= {known.set_id: known.public_keys for known in news.sets}
        signatures = [good for raw in task.sealed for good in self._good_signatures(raw)]
        return Answer(signatures, [self._summary(raw) for raw in task.transactions])

    def _good_signatures(self, raw: bytes) -> list[GoodSignature]:
        """Return the signatures of a sealed header that verify, as far as the keys are known."""
        try:
            sealed = decode_loose(raw, SealedHeader)
        except EncodingError:
            return []
        signed = self._signed_by(sealed.certificate) if sealed.certificate is not None else []
        producer = self._keys.get(sealed.header.producer_key_id)
        if producer is not None:
            signed.append(GoodSignature(producer.public_key, block_id_of(sealed.header), sealed.signature))
        return [one for one in signed if is_valid_signature(one.public_key, one.digest, one.signature)]

    def _signed_by(self, certificate: Certificate) -> list[GoodSignature]:
        """Return the signatures of a certificate with the keys of whoever ought to have signed, not verified yet."""
        digest = digest_of(self._chain_id, link_of(certificate))
        return [
            GoodSignature(keys[index], digest, signature)
            for part in certificate.parts
            if (keys := self._sets.get(part.set_id)) is not None
            for index, signature in zip(bitmap_indexes(part.signers), part.signatures, strict=False)
            if index < len(keys)
        ]

    def _summary(self, raw: bytes) -> Summary | None:
        """Return the summary of a transaction of records that holds, else None."""
        try:
            tx = check_transaction(raw, chain_id=self._chain_id, key_of=self._keys.get, rules=self._rules)
        except LedgerError:
            return None
        if tx.payload is not None:
            return None
        return Summary(
            self._keys[tx.envelope.key_id],
            tx.tx_id,
            tx.envelope,
            tx.size,
            tx.totals,
            [_row_of(group) for group in tx.minutes],
            tx.has_repeats,
            tx.first_end_ms,
            tx.last_end_ms,
            tx.rule_set,
        )


class Teller:
    """The auditor's side: notices what workers have to be told."""

    def __init__(self) -> None:
        self._keys: dict[bytes, KeyEntry] = {}
        self._sets: set[int] = set()
        self._state: State | None = None

    def news(self, state: State) -> News | None:
        """Return what ``state`` adds to what was told before; None where that is nothing."""
        before, self._state = self._state, state
        if before is not None and before.keys is state.keys and before.voting is state.voting:
            return None
        keys = [KnownKey(key_id, entry) for key_id, entry in state.keys.items() if self._keys.get(key_id) != entry]
        sets = [one for one in voting_sets(state) if one.set_id not in self._sets]
        self._keys |= {key.key_id: key.entry for key in keys}
        self._sets |= {one.set_id for one in sets}
        return News(keys, [KnownSet(one.set_id, [p.public_key for p in one.producers]) for one in sets])


def _row_of(group: MinuteKeys) -> MinuteRow:
    return MinuteRow(group.minute, b"".join(group.keys), b"".join(group.near_previous), b"".join(group.near_next))


def _minute_of(row: MinuteRow) -> MinuteKeys:
    near_previous, near_next = frozenset(split_keys(row.near_previous)), frozenset(split_keys(row.near_next))
    return MinuteKeys(row.minute, frozenset(split_keys(row.keys)), near_previous, near_next)
