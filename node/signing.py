"""Whether this node may sign, in words; and what it tells each peer of what that peer has signed.

Source: docs/operations.md, "A node that does not sign".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consensus.caution import Standing, Wait, Word
from consensus.engine import Engine
from ledger.transition import block_time_ms
from node.clock import now_ms as wall_ms
from node.clockwatch import ClockWatch
from p2p import limits
from p2p.messages import Seen
from p2p.scores import PeerId

CLOCK_OFF: Final = "clock-off"
STATES: Final = (*(standing.value for standing in Standing), CLOCK_OFF)
"""Of ``NodeSigning.state``, in API, commands, metrics and docs."""
SAY_MS: Final = 60_000
"""Said again this often, while it lasts."""

_REASONS: Final = {
    Standing.ASKING: "after the start, before it votes",
    Standing.NEW: "this data directory is new to its key",
    Standing.LOST: "this data directory has no record of the votes its key has cast",
    Standing.OLD: "its key has signed more than this data directory knows of: a restored backup, or a second node",
}


@dataclass(frozen=True, slots=True)
class NodeSigning:
    """Whether the node may vote and seal.

    Attributes:
        state: one of STATES. ``clear``: it may. ``asking``: it hears its peers first, and seals meanwhile. ``new``,
            ``lost``, ``old``: its vote record is new, missing, or older than what it has signed; it neither votes nor
            seals. ``clock-off``: it votes and does not seal.
        reason: why, in words; empty where it may.
        waits_for: what must happen, in words; empty where it may.
        until_ms: when the wait is over at the latest, null where that is not known.
    """

    state: str
    reason: str = ""
    waits_for: str = ""
    until_ms: int | None = None


def describe(engine: Engine, wait: Wait, *, is_clock_off: bool) -> NodeSigning:
    """Return a wait in words."""
    if wait.standing is Standing.CLEAR:
        if not is_clock_off:
            return NodeSigning(Standing.CLEAR.value)
        allowed_ms = engine.genesis.parameters.slot_ms // 4
        what = f"its clock to be within {allowed_ms} ms of its peers'"
        return NodeSigning(CLOCK_OFF, "its clock is off by more than half a slot: it votes, but seals no blocks", what)
    until_ms = None if wait.until_slot is None else block_time_ms(engine.genesis, wait.until_slot)
    parts = []
    if wait.words:
        some = "1 more producer" if wait.words == 1 else f"{wait.words} more producers"
        parts.append(f"{some} to tell what they have seen it sign")
    if wait.height:
        parts.append(f"block {wait.height}, which is final at its peers")
    end = f"slot {wait.until_slot}"
    if wait.final_slot is not None:
        parts.append(f"a block sealed after slot {wait.final_slot} to be final, or {end}")
    elif until_ms is not None and wait.standing is not Standing.NEW:
        parts.append(end)
    return NodeSigning(wait.standing.value, _REASONS[wait.standing], ", and ".join(parts), until_ms)


class SigningWatch:
    """Watches the clock for an engine, and says in the log whether it may sign: at every change, and each minute.

    clocks_ms: returns by how much those of peers are ahead. log: takes ``warning`` and ``info``, an event with fields.
    """

    def __init__(self, engine: Engine, clocks_ms: Callable[[], Sequence[int]], log: Any) -> None:
        self._engine = engine
        self._clocks_ms = clocks_ms
        self._clock = ClockWatch(engine.genesis.parameters.slot_ms, log)
        self._log = log
        self._said: str | None = None
        self._said_ms = 0

    def signing(self, *, now_ms: int) -> NodeSigning:
        """Return how it is."""
        wait = self._engine.signing.wait(self._engine.slot_at(now_ms))
        return describe(self._engine, wait, is_clock_off=self._clock.is_off)

    def look(self, *, now_ms: int) -> None:
        """Compare clocks, if it is time to."""
        if self._clock.is_due(now_ms=now_ms):
            self._clock.look(self._clocks_ms(), now_ms=now_ms)
            self._engine.signing.caution.is_clock_off = self._clock.is_off
            self._say(self.signing(now_ms=now_ms), now_ms)

    def _say(self, signing: NodeSigning, now_ms: int) -> None:
        is_changed = signing.state != self._said
        lately = self._said_ms <= now_ms < self._said_ms + SAY_MS
        if not is_changed and (signing.state == Standing.CLEAR.value or lately):
            return
        self._said, self._said_ms = signing.state, now_ms
        if signing.state == Standing.CLEAR.value:
            self._log.info("may vote and seal")
        elif signing.state in {Standing.ASKING.value, Standing.NEW.value} and is_changed:
            # Every start and every founding begins so.
            self._log.info("does not vote yet", waits_for=signing.waits_for)
        else:
            what = "seals no blocks" if signing.state == CLOCK_OFF else "neither votes nor seals"
            self._log.warning(what, state=signing.state, reason=signing.reason, waits_for=signing.waits_for)


class SeenByUs:
    """What ``p2p.seen.SeenExchange`` tells and hears for an engine.

    now_ms: the wall clock.
    """

    def __init__(self, engine: Engine, now_ms: Callable[[], int] = wall_ms) -> None:
        self._engine = engine
        self._now_ms = now_ms

    def tell(self, peer_id: PeerId, skew_ms: int | None) -> Seen:
        """Return what was seen of the keys of a peer's member."""
        keys = self._engine.head.chain.state.keys
        owner = keys.get(peer_id)
        ids = [key_id for key_id, key in keys.items() if owner is not None and key.member_id == owner.member_id]
        votes, headers = self._engine.signing.told_to(ids)
        most = limits.SEEN_KEYS_MAX
        return Seen(self._engine.final.height, self._now_ms(), skew_ms, votes[:most], headers[:most])

    def hear(self, peer_id: PeerId, seen: Seen) -> None:
        """Take what a peer has seen of our keys. Raises InvalidVote or InvalidBlock for what they did not sign."""
        engine = self._engine
        word = Word(seen.final_height, engine.slot_at(seen.now_ms))
        engine.signing.hear(peer_id, word, seen.votes, seen.headers, slot=engine.slot_at(self._now_ms()))
