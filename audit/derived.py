"""The rows of a data directory that follow from its blocks: held against the blocks, never used.

A node finds records, transactions and heights by them, so a wrong row makes a true chain look like another.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from audit.report import Difference, difference_of
from audit.voting import check_set_change
from consensus.rows import FinalPoint, VotableRow, read_final_point, read_set_changes
from consensus.votes import VotingSet
from ledger.block import BodyItem, block_id_of, is_void
from ledger.cdr import CallRecord
from ledger.codec import Count, Wire, decode_each, decode_loose
from ledger.errors import EncodingError, InvalidProof
from ledger.record_index import Overlay, is_row_of
from ledger.state import EMPTY_STATE, State, state_changes, state_puts
from ledger.store import Space, Store, height_key, record_key_row, space_range
from ledger.transaction import Kind, Transaction
from ledger.validation import MINUTE_MS

MINUTES_CACHED_BLOCKS: Final = 4_096
"""Blocks whose minutes are remembered while a row that no block gives is looked for."""


class RowCounts(Wire, frozen=True):
    """How many rows the blocks so far give."""

    heights: Count
    transactions: Count
    record_rows: Count
    checked: Count
    """How many rows were compared."""


class DerivedRows:
    """The height index, the record index, the locations of transactions and the final point of a store.

    Attributes:
        checked: how many rows were compared.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._transactions = 0
        self._heights = 0
        self._record_rows = 0
        self.checked = 0

    def counts(self) -> RowCounts:
        """Return what has to be known to go on after the last block compared."""
        return RowCounts(self._heights, self._transactions, self._record_rows, self.checked)

    def go_on(self, counts: RowCounts) -> None:
        """Go on after a block up to which the rows were compared before."""
        self._heights, self._transactions, self._record_rows, self.checked = (
            counts.heights,
            counts.transactions,
            counts.record_rows,
            counts.checked,
        )

    def check_block(self, height: int, tx_ids: list[bytes], overlay: Overlay) -> Difference | None:
        """Compare the rows that a final block has: its transactions' and its record keys'."""
        self._heights += 1
        suffix = height.to_bytes(8)
        for tx_id in tx_ids:
            found = self._store.get_checked(Space.LOCATION.value + tx_id)
            if found != suffix:
                return Difference(
                    height,
                    f"location_row[{tx_id.hex()}]",
                    "the index of transactions differs from the blocks",
                    str(height),
                    "no row" if found is None else str(int.from_bytes(found)),
                )
        self._transactions += len(tx_ids)
        self._record_rows += len(overlay.minutes)
        for minute, keys in overlay.minutes.items():
            found = self._store.get_checked(record_key_row(minute, suffix))
            if found is None or not is_row_of(found, keys):
                return Difference(
                    height,
                    f"record_row[minute {minute}]",
                    "the record index differs from the blocks",
                    f"{len(keys)} keys",
                    "no row" if found is None else f"{len(found)} bytes that are not they",
                )
        self.checked += 1 + len(tx_ids) + len(overlay.minutes)
        return None

    def check_end(self, point: FinalPoint, state: State, founders: VotingSet) -> Difference | None:
        """Look for rows that no block gives, compare final point, state and set changes; after the last block.

        state: after the last block. founders: the voting set of genesis.
        """
        for find in (self._extra_heights, self._extra_locations, self._extra_records):
            for found in find():
                return found
        return (
            self._check_final_point(point)
            or self._check_state(point, state)
            or self._check_set_changes(point, state, founders)
        )

    def _extra_heights(self) -> Iterator[Difference]:
        _, stop = space_range(Space.HEIGHT)
        for key, block_id in self._store.scan(height_key(self._heights + 1), stop):
            height = int.from_bytes(key[1:])
            yield Difference(height, "height_row", "a row above the final block", "no row", block_id.hex())
        for key, block_id in self._store.scan(*space_range(Space.HEIGHT)):
            if len(key) != len(height_key(0)) or key == height_key(0):
                yield Difference(0, "height_row", "a row that no block gives", "no row", block_id.hex())

    def _extra_locations(self) -> Iterator[Difference]:
        if sum(1 for _ in self._store.scan(*space_range(Space.LOCATION))) == self._transactions:
            return
        for key, row in self._store.scan(*space_range(Space.LOCATION)):
            height = int.from_bytes(row[:8])
            if key[1:] not in self._tx_ids_at(height):
                field = f"location_row[{key[1:].hex()}]"
                yield Difference(height, field, "a row for a transaction that is not there", "no row", str(height))

    def _tx_ids_at(self, height: int) -> set[bytes]:
        return {item.tx_id for item in self._body_at(height)}

    def _body_at(self, height: int) -> list[BodyItem]:
        """Return the list of a block's transactions; empty where there is no such block."""
        block_id = self._store.get(height_key(height)) if 0 < height <= self._heights else None
        body = self._store.get(Space.BODY_LIST.value + block_id) if block_id else None
        try:
            return decode_loose(body, list[BodyItem]) if body else []
        except EncodingError:
            return []

    def _extra_records(self) -> Iterator[Difference]:
        # Each that a block gives was found: what is more than those is of no block.
        if sum(1 for _ in self._store.scan(*space_range(Space.RECORD))) == self._record_rows:
            return
        minutes_at = lru_cache(MINUTES_CACHED_BLOCKS)(self._minutes_at)
        for key, _ in self._store.scan(*space_range(Space.RECORD)):
            minute, height = int.from_bytes(key[1:5]), int.from_bytes(key[5:])
            if len(key) != 13 or minute not in minutes_at(height):
                what = "a row of record keys that no block gives"
                yield Difference(height, f"record_row[minute {minute}]", what, "no row", key.hex())

    def _minutes_at(self, height: int) -> set[int]:
        """Return the minutes in which the block at ``height`` counted a record."""
        return {
            record.setup_ms // MINUTE_MS
            for item in self._body_at(height)
            for index, record in enumerate(self._records_of(item.tx_id))
            if not is_void(item.void_bitmap, index)
        }

    def _records_of(self, tx_id: bytes) -> list[CallRecord]:
        raw = self._store.body(tx_id)
        transaction = decode_loose(raw, Transaction) if raw else None
        if transaction is None or transaction.envelope.kind is not Kind.RECORDS:
            return []
        return decode_each(transaction.items, CallRecord)

    def _check_final_point(self, point: FinalPoint) -> Difference | None:
        found = read_final_point(self._store)
        if found is None:
            return None if not point.height else Difference(point.height, "final_point", "the row is missing")
        for name in FinalPoint.__struct_fields__:
            expected, actual = getattr(point, name), getattr(found, name)
            if name == "below":
                actual = sorted(actual, key=_target_height)
            if expected != actual:
                return Difference(
                    point.height, f"final_point.{name}", "not what the blocks give", _shown(expected), _shown(actual)
                )
        self.checked += 1
        return None

    def _check_state(self, point: FinalPoint, state: State) -> Difference | None:
        """Compare the entries of the state one by one: a node goes on from them."""
        if not point.height:
            return None
        right = dict(state_puts(state_changes(EMPTY_STATE, state)))
        found = dict(self._store.scan(*space_range(Space.STATE)))
        for key in sorted(right.keys() | found.keys()):
            if right.get(key) != found.get(key):
                expected, actual = ("no row" if row is None else row.hex() for row in (right.get(key), found.get(key)))
                what = "the state kept is not what the blocks give"
                return Difference(point.height, f"state_row[{key[1:].hex()}]", what, expected, actual)
        self.checked += len(right)
        return None

    def _check_set_changes(self, point: FinalPoint, state: State, trusted: VotingSet) -> Difference | None:
        """Verify the proofs of set changes that a node hands out: one for each, of blocks of this chain."""
        proofs = read_set_changes(self._store)
        # While a change is pending, its proof is there already.
        expected = state.voting.set_id + (state.voting.pending is not None)
        if len(proofs) != expected:
            what = "not one proof for each change of the voting set"
            return Difference(point.height, "set_change_row", what, str(expected), str(len(proofs)))
        for number, proof in enumerate(proofs, 1):
            field, height = f"set_change_row[{number}]", proof.header.height
            try:
                trusted = check_set_change(proof, trusted, proof.header.chain_id, where=field)
            except InvalidProof as error:
                return difference_of(error, height)
            if self._store.get(height_key(height)) != block_id_of(proof.header):
                return Difference(
                    height, f"{field}.header", "it is of another chain", "", block_id_of(proof.header).hex()
                )
            self.checked += 1
        return None


def _target_height(row: VotableRow) -> int:
    return row.t_height


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
