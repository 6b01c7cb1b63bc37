"""Transactions on their way in: handed in by submitters and received from peers, checked in turns, ready to be written.

Source: docs/architecture.md, "The way of one record".
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from consensus.engine import Engine
from ledger.errors import EncodingError, InvalidTransaction, LedgerError, UnusableTransaction
from ledger.payloads import ROLES
from ledger.transition import check_payload
from ledger.validation import CheckedTransaction, check_in_context
from node.clock import now_ms, steady_ms
from node.intake import Overloaded, Submission
from p2p.gossip import Gossip
from p2p.scores import PeerId
from p2p.sync import Sync

CHECK_BUDGET_S = 0.02
"""Checking of transactions gives way to blocks and votes after this long."""
WRITE_BODIES_MAX = 64
"""Transactions written in one group: the sync is shared, the wait for it stays short."""
SUBMISSIONS_BYTES_MAX = 64 * 1024 * 1024
"""Transactions handed in that wait to be checked: a second's worth at most, but for a disk that is full or stuck."""


@dataclass(slots=True)
class Checked:
    """A transaction that passed, to be written with the next group; ``submission``: of a submitter of this node."""

    tx: CheckedTransaction
    raw: bytes
    submission: Submission | None


class CheckDesk:
    """What waits to be checked, and what passed.

    check: checks a raw transaction context-free.
    reject: charges a peer for a lie.
    """

    def __init__(
        self,
        engine: Engine,
        gossip: Gossip,
        sync: Sync,
        *,
        check: Callable[[bytes], CheckedTransaction],
        reject: Callable[[PeerId, LedgerError], None],
    ) -> None:
        self.passed: list[Checked] = []
        self._engine = engine
        self._gossip = gossip
        self._sync = sync
        self._check = check
        self._reject = reject
        self._submissions: deque[Submission] = deque()
        self._submitted_bytes = 0
        self._received: deque[tuple[bytes, PeerId, bytes]] = deque()

    def __bool__(self) -> bool:
        """Tell whether there is anything to check or to write."""
        return bool(self._received or self._submissions or self.passed)

    def submit(self, raw: bytes) -> asyncio.Future[bool]:
        """Take in a raw transaction of a submitter.

        The future ends when it is on disk, with whether it is new here, or with its error.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        submission = Submission(raw, future)
        if self._submitted_bytes + len(raw) > SUBMISSIONS_BYTES_MAX:
            submission.fail(Overloaded("too much waits to be checked", hint="Keep the records and submit them again"))
            return future
        self._submitted_bytes += len(raw)
        self._submissions.append(submission)
        return future

    def receive(self, raw: bytes, sender: PeerId, tx_id: bytes) -> None:
        """Take in a raw transaction of a peer; gossip or sync is told what becomes of it."""
        self._received.append((raw, sender, tx_id))

    @property
    def waiting(self) -> int:
        """Return how many transactions handed in wait to be checked."""
        return len(self._submissions)

    def take_passed(self) -> list[Checked]:
        """Return what passed, to be written now."""
        passed, self.passed = self.passed, []
        return passed

    def check_some(self) -> None:
        """Check what was handed in and what came from peers, within the budget of one turn."""
        deadline = time.monotonic() + CHECK_BUDGET_S
        while self.check_next() and time.monotonic() < deadline:
            pass

    def fail_submissions(self, error: LedgerError) -> None:
        """Tell those who handed something in that waits to be checked that it was not stored."""
        while self._submissions:
            self._next_submission().fail(error)

    def _next_submission(self) -> Submission:
        submission = self._submissions.popleft()
        self._submitted_bytes -= len(submission.raw)
        return submission

    def check_next(self) -> bool:
        """Check one transaction handed in and one received; tell whether there was any, and room for it."""
        if not (self._submissions or self._received) or len(self.passed) >= WRITE_BODIES_MAX:
            return False
        # Those who wait for an answer and those who relay take turns.
        if self._submissions:
            self._check_submission(self._next_submission())
        if self._received:
            self._check_received(*self._received.popleft())
        return True

    def _check_submission(self, submission: Submission) -> None:
        engine = self._engine
        try:
            tx = self._check(submission.raw)
            check_in_context(tx, engine.head.chain.state, now_ms())
            if engine.has_transaction(tx.tx_id):
                submission.succeed(is_new=False)
                return
            check_payload(tx, engine.head.chain, now_ms())
            if not engine.pool.has_room_for(tx):
                raise Overloaded(
                    "too much of this member waits for finality", hint="Keep the transaction and submit it again"
                )
        except LedgerError as error:
            submission.fail(error)
        else:
            self.passed.append(Checked(tx, submission.raw, submission))

    def _check_received(self, raw: bytes, sender: PeerId, tx_id: bytes) -> None:
        is_needed = self._gossip.is_needed(tx_id)
        if self._engine.pool.is_full and not is_needed:
            # Members may push faster than blocks are sealed.
            self._gossip.transaction_refused(tx_id, sender, invalid=False, now_ms=steady_ms())
            return
        try:
            tx = self._check(raw)
            # What a block names is taken in whatever becomes of it; the rest is not to fill the pool for nothing.
            if not is_needed:
                self._check_worth(tx)
        except UnusableTransaction:
            self._gossip.transaction_refused(tx_id, sender, invalid=False, now_ms=steady_ms())
            self._sync.transaction_refused(tx_id)
        except (InvalidTransaction, EncodingError) as error:
            self._gossip.transaction_refused(tx_id, sender, invalid=True, now_ms=steady_ms())
            self._reject(sender, error)
        else:
            self.passed.append(Checked(tx, raw, None))

    def _check_worth(self, tx: CheckedTransaction) -> None:
        """Raise UnusableTransaction for what no block will hold as things stand, or too much of one member."""
        # [IGNORE] Its key has not ended
        envelope = tx.envelope
        if self._engine.head.chain.state.key_with_role(envelope.key_id, ROLES[envelope.kind]) is None:
            raise UnusableTransaction("the key has ended", where="envelope.key_id", actual=envelope.key_id)
        # [IGNORE] Its member has not filled its share of the pool
        if not self._engine.pool.has_room_for(tx):
            raise UnusableTransaction("too much of this member waits for finality", where="pool")
