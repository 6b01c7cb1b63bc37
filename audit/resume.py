"""The file from which an interrupted audit goes on.

It belongs to the auditor, who trusts it as much as the program: whoever can write to it chooses the verdict on all that
it says was verified. It holds how far the audit came and every record key that counted, and only grows: after a crash
of any kind the last whole state counts, and what lies beyond it is cut off. It is bound to one chain by the chain id,
and to the blocks below by the id of the last one, which the next block must name as its parent.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from audit.auditor import ChainAuditor
from audit.derived import RowCounts
from audit.index import AuditIndex
from audit.spill import Spill, SpillType
from consensus.rows import FinalPoint
from ledger.block import Header, Totals
from ledger.codec import Bytes32, Count, Wire, decode, encode
from ledger.errors import ConfigError, EncodingError, StoreDamaged, StoreError
from ledger.genesis import Genesis, chain_id_of
from ledger.state import EMPTY_STATE, state_changes, state_from_rows, state_puts
from ledger.transition import block_time_ms

MAGIC: Final = b"ledger-verify resume\n"
VERSION: Final = 1
SAVE_EVERY_S: Final = 10.0
"""What an interruption costs at most, unless saving itself takes long."""
SAVE_SHARE: Final = 20
"""No more than one part in so many of the time goes into saving."""

_BEGIN_BYTES: Final = len(MAGIC) + 2 + 32


class KnownRow(Wire, frozen=True):
    """A block known from elsewhere that was found in the chain."""

    height: Count
    block_id: Bytes32 | None
    history_root: Bytes32 | None


class Sums(Wire, frozen=True):
    """The sums of an AuditReport so far, by its names."""

    blocks: Count
    transactions: Count
    records: Count
    void: Count
    totals: Totals
    elections: Count
    set_changes: Count
    struck: list[str]


class SavedAudit(Wire, frozen=True):
    """How far an audit came."""

    point: FinalPoint
    """Of the last block that held."""
    header: Header
    """Its header."""
    state: list[tuple[bytes, bytes]]
    """After it, as rows of a store."""
    sums: Sums
    found: list[KnownRow]
    rows: RowCounts | None
    """Null where the source has no derived rows."""


class ResumeFile:
    """The open file, locked against a second audit. Use as a context manager or call ``close``.

    Attributes:
        saved: how far the audit came when it was last saved; None where it begins.
    """

    def __init__(self, path: Path, genesis: Genesis) -> None:
        """Open or make the file for the chain of ``genesis``.

        Raises ConfigError where it is something else, of another chain or in use; OSError where it cannot be opened.
        """
        self._path = path
        self._genesis = genesis
        self._save_at = time.monotonic() + SAVE_EVERY_S
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = cast("BinaryIO", os.fdopen(fd, "r+b"))
        try:
            self._lock()
            self._read_begin()
            self.spill = Spill(self._file, name=str(path))
            self.saved, self._end = self._last_state()
            self.spill.cut(self._end)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def index(self) -> AuditIndex:
        """Return the index of what counted up to the saved state, which goes on in this file."""
        index = AuditIndex(self.spill)
        if self.saved is not None:
            index.restore(self.spill, self._end, block_time_ms(self._genesis, self.saved.header.slot))
        return index

    def go_on(self, auditor: ChainAuditor) -> None:
        """Bring an auditor that was made with ``index`` to the saved state, if there is one. Raises StoreError."""
        if self.saved is None:
            return
        try:
            state = state_from_rows(self.saved.state, self.saved.header.state_root)
        except StoreDamaged as error:
            raise _unusable(self._path, error.what) from None
        auditor.go_on(self.saved.point, self.saved.header, state)

    def is_due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() >= self._save_at

    def save(self, auditor: ChainAuditor, sums: Sums, found: list[KnownRow], rows: RowCounts | None) -> None:
        """Save how far the audit came, durably. Raises OSError."""
        started = time.monotonic()
        assert auditor.header is not None
        auditor.index.save(self.spill)
        # What the state builds on is on disk before it: a crash here leaves the state before.
        self._sync()
        puts = state_puts(state_changes(EMPTY_STATE, auditor.chain.state))
        rows_of_state = [(key, value) for key, value in puts if value is not None]
        saved = SavedAudit(auditor.final_point(), auditor.header, rows_of_state, sums, found, rows)
        self.spill.append(SpillType.STATE, encode(saved))
        self._sync()
        now = time.monotonic()
        self._save_at = now + max(SAVE_EVERY_S, SAVE_SHARE * (now - started))

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("another audit has it open", where=str(self._path)) from None

    def _read_begin(self) -> None:
        """Read what the file begins with, or write it into a new one."""
        chain_id = chain_id_of(self._genesis)
        right = MAGIC + VERSION.to_bytes(2) + chain_id
        begin = self._file.read(_BEGIN_BYTES)
        if right.startswith(begin) and len(begin) < _BEGIN_BYTES:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(right)
            return
        if not begin.startswith(MAGIC):
            raise ConfigError("not the state of an audit", where=str(self._path), expected="a file that --resume made")
        if begin[len(MAGIC) :][:2] != VERSION.to_bytes(2):
            raise ConfigError("of another release", where=str(self._path), hint="Delete it and audit from the start")
        if begin != right:
            raise ConfigError(
                "the state of an audit of another chain",
                where=str(self._path),
                expected=chain_id,
                actual=begin[len(MAGIC) + 2 :],
            )

    def _last_state(self) -> tuple[SavedAudit | None, int]:
        """Return the last whole state and where it ends."""
        states = [(offset, end) for offset, kind, end in self.spill.scan() if kind is SpillType.STATE]
        for offset, end in reversed(states):
            try:
                return decode(self.spill.read(offset, SpillType.STATE), SavedAudit), end
            except EncodingError as error:
                raise _unusable(self._path, str(error)) from None
            except StoreError:
                # Cut while it was written: the one before counts.
                continue
        return None, _BEGIN_BYTES

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _unusable(path: Path, why: str) -> StoreError:
    return StoreError(f"the state cannot be used: {why}", where=str(path), hint="Delete it and audit from the start")
