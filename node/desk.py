"""A member's desk: signs what governs, hands it to a node, and follows it until it is final.

Source: docs/operations.md, "Governing the chain".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.codec import encode
from ledger.crypto import PrivateKey
from ledger.errors import ConfigError, LedgerError
from ledger.payloads import Payload
from ledger.transaction import Kind, Transaction, make_transaction, tx_id_of
from node.client import ApiFault, Client

POLL_S: Final = 0.2
TURNED_AWAY: Final = frozenset({401, 403})
"""Answers that say something about the asker, not about the transaction."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How far a transaction came: its promise, and the height of its block."""

    state: str
    height: int | None


class Desk:
    """A govern key, and the nodes to ask.

    Attributes:
        clients: asked in turn until one answers.
        key: signs.
    """

    def __init__(
        self, clients: Sequence[Client], key: PrivateKey, *, chain_id: bytes | None = None, member_id: str | None = None
    ) -> None:
        """Prepare; nothing is asked yet: chain and member are asked of a node when needed and not given."""
        self.clients = list(clients)
        self.key = key
        self._chain_id = chain_id
        self._member_id = member_id

    def get(self, path: str) -> Any:
        """Return the JSON at ``path`` of the first node that answers. Raises ApiFault."""
        fault: ApiFault | None = None
        for client in self.clients:
            try:
                return client.get(path)
            except ApiFault as error:
                if error.status and error.status < 500:
                    raise
                fault = fault or error
        raise fault or ConfigError("no node to ask", where="--node")

    @property
    def chain_id(self) -> bytes:
        """Return the chain's id."""
        if self._chain_id is None:
            self._chain_id = bytes.fromhex(self.get("/v1/head")["chain_id"])
        return self._chain_id

    @property
    def member_id(self) -> str:
        """Return whose key it is. Raises ConfigError for one that may not govern."""
        if self._member_id is None:
            key_id = self.key.key_id.hex()
            found = next((key for key in self.get("/v1/keys")["keys"] if key["key_id"] == key_id), None)
            if found is None:
                raise ConfigError(
                    "the chain does not know this key",
                    where="--key",
                    expected="a member's govern key",
                    actual=key_id,
                    hint="ledgerctl key show FILE and ledgerctl key list tell which it is",
                )
            if found["standing"] != "active" or "govern" not in found["roles"]:
                raise ConfigError(
                    "this key may not govern",
                    where="--key",
                    expected=f"an active govern key of {found['member_id']}",
                    actual=f"{found['standing']}, {' and '.join(found['roles'])}",
                )
            self._member_id = str(found["member_id"])
        return self._member_id

    def sign(self, kind: Kind, payload: Payload, *, lifetime_ms: int) -> Transaction:
        """Return a signed transaction that may be in blocks from now on for ``lifetime_ms``."""
        now_ms = time.time_ns() // 1_000_000
        return make_transaction(
            [encode(payload)],
            key=self.key,
            member_id=self.member_id,
            chain_id=self.chain_id,
            created_ms=now_ms,
            expires_ms=now_ms + lifetime_ms,
            kind=kind,
        )

    def submit(self, raw: bytes) -> Client:
        """Hand a transaction in; return the node that has it on disk. Raises ApiFault where it is refused."""
        return submit_to_any(self.clients, raw)

    def follow(self, client: Client, transaction: Transaction, *, timeout_s: float) -> Followed:
        """Return how far a transaction is once it is final or lost, or the time is over."""
        return follow(client, tx_id_of(transaction.envelope).hex(), timeout_s=timeout_s)


def submit_to_any(clients: Sequence[Client], raw: bytes) -> Client:
    """Hand a transaction to the first node that takes it. Raises ApiFault where one refuses it, or none answers."""
    fault: ApiFault | None = None
    for client in clients:
        try:
            client.submit_transaction(raw)
        except ApiFault as error:
            # What one refuses for the transaction's sake the others refuse as well.
            if 400 <= error.status < 500 and error.status not in TURNED_AWAY:
                raise
            fault = fault or error
        else:
            return client
    raise fault or ConfigError("no node to hand it to", where="--node")


def follow(client: Client, tx_id: str, *, timeout_s: float) -> Followed:
    """Return how far a transaction is once it is final or lost, or the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        promise = client.get(f"/v1/transactions/{tx_id}")["promise"]
        if promise["state"] in {"final", "expired", "void"} or time.monotonic() >= deadline:
            return Followed(promise["state"], promise["height"])
        time.sleep(POLL_S)


def not_final(followed: Followed, tx_id: str, expires: str) -> LedgerError:
    """Return the error for a transaction that was taken and is not final."""
    if followed.state == "expired":
        return LedgerError(
            "no block took it within its lifetime: it did not fit the chain any more, or no block was sealed",
            where=tx_id,
            hint="See ledgerctl status, look what changed, and sign it anew",
        )
    return LedgerError(
        "not final in time",
        where=tx_id,
        expected="final",
        actual=followed.state,
        hint=f"A block may take it until {expires}; see ledgerctl show tx {tx_id}. Is a quorum of producers running?",
    )
