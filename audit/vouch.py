"""What is vouched for ahead of its turn: the checks that need no place in the chain, here or in another process.

A voucher says only that something holds. What it does not vouch for, because it does not hold, or because a key was not
known yet, the auditor checks itself, at its turn: so the verdict and its place are the same with any number of jobs.

Source: docs/audit.md, "Across cores".
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

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
    """What a voucher is asked to check: bytes as they were found, by kind."""

    news: list[News]
    """What it was not told yet."""
    sealed: list[bytes]
    transactions: list[bytes]


class GoodSignature(Wire, frozen=True):
    """A signature that verifies."""

    public_key: Bytes33
    digest: Bytes32
    signature: Bytes64


class Checked(NamedTuple):
    """A transaction of records that holds, and the key that it was checked with."""

    key: KeyEntry
    tx: CheckedTransaction


class Found(NamedTuple):
    """What holds of one task."""

    signatures: list[GoodSignature]
    """Of the headers and certificates in ``sealed``."""
    transactions: list[Checked | None]
    """In the order of the task; None for what the auditor must check itself."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """What was vouched for, of one block.

    Attributes:
        signatures: (public key, digest, signature) of those that verify.
        transactions: in the order of the body; empty where nobody was asked.
    """

    signatures: AbstractSet[tuple[bytes, bytes, bytes]] = frozenset()
    transactions: tuple[Checked | None, ...] = ()

    def is_valid(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        """Tell whether a signature is good, verifying it where nobody has vouched for it."""
        return (public_key, digest, signature) in self.signatures or is_valid_signature(public_key, digest, signature)


NOTHING: Final = Vouched()
"""Nobody was asked."""


class Voucher:
    """What was told of the chain, and the checks."""

    def __init__(self, genesis: Genesis, rules: Rules) -> None:
        self._chain_id = chain_id_of(genesis)
        self._rules = rules
        self._keys: dict[bytes, KeyEntry] = {}
        self._sets: dict[int, list[bytes]] = {}

    def check(self, task: Task) -> Found:
        """Return what holds of ``task``."""
        for news in task.news:
            self._keys |= {key.key_id: key.entry for key in news.keys}
            self._sets |= {known.set_id: known.public_keys for known in news.sets}
        signatures = [good for raw in task.sealed for good in self._good_signatures(raw)]
        return Found(signatures, [self._checked(raw) for raw in task.transactions])

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

    def _checked(self, raw: bytes) -> Checked | None:
        """Return a transaction of records that holds, else None."""
        try:
            tx = check_transaction(raw, chain_id=self._chain_id, key_of=self._keys.get, rules=self._rules)
        except LedgerError:
            return None
        return Checked(self._keys[tx.envelope.key_id], tx) if tx.payload is None else None


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


# -- on the way from a worker -----------------------------------------------------------------------------------------


class MinuteRow(Wire, frozen=True):
    """A MinuteKeys, its sets as bytes one after the other."""

    minute: Count
    keys: bytes
    near_previous: bytes
    near_next: bytes


class Summary(Wire, frozen=True):
    """A Checked."""

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


class Answer(Wire, frozen=True):
    """A Found."""

    signatures: list[GoodSignature]
    transactions: list[Summary | None]

    @classmethod
    def of(cls, found: Found) -> Self:
        """Return what to send of ``found``."""
        return cls(found.signatures, [None if one is None else _summary_of(one) for one in found.transactions])

    def to_found(self) -> Found:
        """Return what was sent."""
        return Found(self.signatures, [None if one is None else _checked_of(one) for one in self.transactions])


def _summary_of(checked: Checked) -> Summary:
    tx = checked.tx
    return Summary(
        checked.key,
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


def _checked_of(summary: Summary) -> Checked:
    tx = CheckedTransaction(
        TxId(summary.tx_id),
        summary.envelope,
        summary.size,
        summary.totals,
        tuple(_minute_of(row) for row in summary.minutes),
        summary.has_repeats,
        summary.first_end_ms,
        summary.last_end_ms,
        summary.rule_set,
    )
    return Checked(summary.key, tx)


def _row_of(group: MinuteKeys) -> MinuteRow:
    return MinuteRow(group.minute, b"".join(group.keys), b"".join(group.near_previous), b"".join(group.near_next))


def _minute_of(row: MinuteRow) -> MinuteKeys:
    near_previous, near_next = frozenset(split_keys(row.near_previous)), frozenset(split_keys(row.near_next))
    return MinuteKeys(row.minute, frozenset(split_keys(row.keys)), near_previous, near_next)
