"""Which keys a node has, whose they are on the chain, and which keys may meet peers.

Source: docs/operations.md, "Governing the chain".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from consensus.engine import Engine
from ledger.crypto import PrivateKey
from ledger.entries import KeyEntry
from ledger.errors import ConfigError
from ledger.genesis import Role
from ledger.governance import keys_in_office
from ledger.state import State
from node.clock import now_ms
from node.logs import get_log

BEHIND_HEARTBEATS: Final = 2
"""A chain that goes on has a head that is younger than this: otherwise this node is behind, or all have stopped."""


class Identity:
    """A node's keys in the state at the head of its best chain."""

    def __init__(
        self,
        engine: Engine,
        keys: tuple[PrivateKey, ...],
        *,
        is_joining: bool = False,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        """Check the keys. Raises ConfigError where they are nobody's, of two members, or ended.

        keys: the node key and, while it rotates, the one that takes its place.
        is_joining: they may be nobody's yet.
        """
        self._engine = engine
        self._clock_ms = clock_ms
        self._keys = keys
        self._present = keys[0]
        self._was_known = False
        self._log = get_log("node")
        self._check(is_joining)

    def _check(self, is_joining: bool) -> None:
        owners = {entry.member_id for key in self._keys if (entry := self._state.keys.get(key.key_id))}
        if len(owners) > 1:
            raise ConfigError(
                "the two node keys are of different members",
                where="--key, --next-key",
                actual=", ".join(sorted(owners)),
            )
        if self.is_known or (is_joining and not owners):
            return
        if owners:
            raise ConfigError(
                "the node key has ended",
                where="--key",
                expected=f"an active node key of {owners.pop()}",
                actual=self._keys[0].key_id,
                hint="Start with the key that took its place; ledgerctl key list shows which it is",
            )
        raise ConfigError(
            "the node key belongs to no member of this chain",
            where="--key",
            expected="a node key of a member",
            actual=self._keys[0].key_id,
            hint="Start with the member's own key; one that was admitted after the chain's founding needs --joining",
        )

    @property
    def _state(self) -> State:
        return self._engine.head.chain.state

    @property
    def member_id(self) -> str | None:
        """Return whose node this is, None while the chain does not know its keys here."""
        entries = (self._state.keys.get(key.key_id) for key in self._keys)
        return next((entry.member_id for entry in entries if entry is not None), None)

    @property
    def is_known(self) -> bool:
        """Tell whether one of the keys may meet peers."""
        return any(self.node_key(key.key_id) for key in self._keys)

    @property
    def key(self) -> PrivateKey:
        """Return the key to meet peers with: the first that may; the last one that might where none may."""
        fit = next((key for key in self._keys if self.node_key(key.key_id)), None)
        if fit is None:
            if self._was_known:
                self._was_known = False
                self._log.warning("node key has ended", key_id=self._present.key_id.hex())
            return self._present
        self._was_known = True
        if fit is not self._present:
            self._present = fit
            self._log.info("next key in use", key_id=fit.key_id.hex())
        return fit

    def node_key(self, key_id: bytes) -> KeyEntry | None:
        """Return a key that may meet peers: an active node key of a member, or one that is in office still."""
        state = self._state
        entry = state.key_with_role(key_id, Role.NODE)
        return state.keys[key_id] if entry is None and key_id in keys_in_office(state) else entry

    def is_unknown(self, key_id: bytes) -> bool:
        """Tell whether a key may be a member's for all that is known here: it is new, and this node is far behind."""
        if key_id in self._state.keys:
            return False
        age_slots = self._engine.slot_at(self._clock_ms()) - self._engine.head.slot
        return age_slots > BEHIND_HEARTBEATS * self._state.parameters.heartbeat_slots

    def is_candidate(self, key_id: bytes) -> bool:
        """Tell whether a member stands for a seat with a key, or holds one with it."""
        stands = any(candidate.key_id == key_id for candidate in self._state.candidates.values())
        return stands or key_id in keys_in_office(self._state)

    def voting_keys(self, key_ids: Iterable[bytes]) -> set[bytes]:
        """Return the keys that vote on the next block for the members who have ``key_ids``.

        A member whose key rotates meets peers with one key and votes with another, or both.
        """
        keys = self._state.keys
        members = {keys[key_id].member_id for key_id in key_ids if key_id in keys}
        sets = self._engine.head.next_voting
        return {p.key_id for voting_set in sets for p in voting_set.producers if p.member_id in members}
