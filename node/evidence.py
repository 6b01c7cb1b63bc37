"""From evidence to the chain: whose turn it is to pack it, and the transaction that accuses.

Every node that found a fault keeps the proof; one of them is enough to bring it into a block. The producers take
turns, a few slots each, so that they do not all accuse at once; all other nodes share one turn, for the case that only
they saw it. Whoever's turn it is looks whether somebody was faster. So nothing has to be remembered: an accusation that
expired, or was lost with its branch, is signed anew in the next turn, until the member is struck in the final state.

Source: docs/consensus.md, "Faults".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from consensus.engine import Engine
from consensus.pending import PAYLOAD_FAILURES_MAX
from consensus.ready import FaultProven
from ledger.codec import encode
from ledger.crypto import PrivateKey, key_id_of
from ledger.errors import LedgerError, UnusableTransaction
from ledger.genesis import Role
from ledger.governance import check_accusation
from ledger.payloads import Evidence
from ledger.state import State
from ledger.transaction import Kind, make_transaction
from ledger.validation import check_in_context
from node.logs import get_log

TURN_SLOTS = 3
"""How long a turn lasts: within this, an accusation is with everybody and in a block."""
LIFETIME_MS = 600_000
"""An accusation that is in no block by then is made anew."""


def accusations_due(engine: Engine, keys: Sequence[PrivateKey], *, now_ms: int) -> list[bytes]:
    """Return the encoded transactions that this node is to hand in now, one for each member to be struck.

    keys: node keys of this node's member, of which one that is active signs. Nobody accuses itself.
    """
    state = engine.head.chain.state
    signer = next(((k, entry) for k in keys if (entry := state.key_with_role(k.key_id, Role.NODE))), None)
    if signer is None or not engine.faults.kept:
        return []
    key, entry = signer
    due: dict[str, Evidence] = {}
    for evidence in engine.faults.kept.values():
        accused = accused_by(state, evidence)
        if accused is not None and accused != entry.member_id:
            due.setdefault(accused, evidence)
    slot = engine.slot_at(now_ms)
    due = {accused: evidence for accused, evidence in due.items() if is_turn_of(state, entry.member_id, accused, slot)}
    pending = pending_accusations(engine, now_ms) if due else set()
    transactions = [
        make_transaction(
            [encode(evidence)],
            key=key,
            member_id=entry.member_id,
            chain_id=engine.chain_id,
            created_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
            kind=Kind.EVIDENCE,
        )
        for accused, evidence in due.items()
        if accused not in pending
    ]
    return [encode(transaction) for transaction in transactions]


def is_turn_of(state: State, member_id: str, accused: str, slot: int) -> bool:
    """Tell whether in ``slot`` a member may accuse another: a producer by its rank, all others after the last."""
    seats = [seat.member_id for seat in state.epoch.seats if seat.member_id != accused]
    place = seats.index(member_id) if member_id in seats else len(seats)
    return slot // TURN_SLOTS % (len(seats) + 1) == place


def pending_accusations(engine: Engine, now_ms: int) -> set[str]:
    """Return the members accused by transactions that the next block may well hold.

    A friend of the accused could keep the others waiting with one that no block will hold: made for tomorrow, with a
    key that may not sign any more, or behind more changes of its own than a producer tries.
    """
    state = engine.head.chain.state
    payloads = [tx for tx in engine.pool if tx.payload is not None]
    tried = Counter(tx.envelope.member_id for tx in payloads)
    found: set[str | None] = set()
    for tx in payloads:
        if isinstance(tx.payload, Evidence) and tried[tx.envelope.member_id] <= PAYLOAD_FAILURES_MAX:
            with suppress(UnusableTransaction):
                check_in_context(tx, state, now_ms)
                found.add(accused_by(state, tx.payload))
    return {member_id for member_id in found if member_id is not None}


def accused_by(state: State, evidence: Evidence) -> str | None:
    """Return the member that evidence would strike on ``state``, None where it would strike nobody."""
    try:
        return check_accusation(state, evidence)
    except UnusableTransaction:
        return None


def log_fault(log: Any, event: FaultProven, own_key_ids: Collection[bytes]) -> None:
    """Say that a producer is proven faulty; if it is this node, another process has its key, or an old copy ran."""
    key_id = key_id_of(event.evidence.public_key)
    log.warning(
        "a producer is proven faulty",
        fault=event.evidence.fault,
        member=event.member_id,
        key_id=key_id.hex(),
        height=event.evidence.height,
        is_own_key=key_id in own_key_ids,
    )


class Accuser:
    """Looks in every slot whether this node is to accuse somebody, and hands the transaction in.

    submit: takes a raw transaction in; the future ends when it is on disk.
    """

    def __init__(
        self,
        engine: Engine,
        keys: Sequence[PrivateKey],
        *,
        submit: Callable[[bytes], asyncio.Future[bool]],
        now_ms: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._submit = submit
        self._now_ms = now_ms
        self._log = get_log("evidence")

    async def run(self) -> None:
        """Work until cancelled."""
        slot_ms = self._engine.genesis.parameters.slot_ms
        while True:
            await asyncio.sleep(slot_ms / 1000)
            for raw in accusations_due(self._engine, self._keys, now_ms=self._now_ms()):
                await self._hand_in(raw)

    async def _hand_in(self, raw: bytes) -> None:
        try:
            await self._submit(raw)
        except LedgerError as error:
            # As when the disk is full: the next turn comes.
            self._log.warning("evidence not handed in", error=error.sentence())
        else:
            self._log.info("evidence handed in", bytes=len(raw))
