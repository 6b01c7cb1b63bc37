"""The live stream: what happened, for whoever listens, after it is durable.

Source: docs/api.md, "Events".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from consensus.ready import BlockFinal, Event, FaultProven, HeadChanged, TransactionDropped
from ledger.crypto import key_id_of
from ledger.readable import to_readable

SUBSCRIPTION_EVENTS_MAX = 1_000
"""A listener this far behind is dropped, never waited for."""
SUBSCRIPTIONS_MAX = 256


class Subscription:
    """One listener's queue of events."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(SUBSCRIPTION_EVENTS_MAX + 1)

    def offer(self, event: dict[str, Any]) -> None:
        """Queue an event; a listener too far behind is closed."""
        if self._queue.qsize() >= SUBSCRIPTION_EVENTS_MAX:
            self.close()
        else:
            self._queue.put_nowait(event)

    def close(self) -> None:
        """End the stream; a second time does nothing."""
        if self._hub.remove(self):
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while (event := await self._queue.get()) is not None:
            yield event


class EventHub:
    """Turns the engine's events into readable ones and hands them to every listener."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def subscribe(self) -> Subscription | None:
        """Return a new listener's queue, None where there are too many already."""
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            return None
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> bool:
        """Forget a listener; False where it was forgotten already."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            return True
        return False

    def close(self) -> None:
        """End every stream."""
        for subscription in list(self._subscriptions):
            subscription.close()

    def on_event(self, event: Event) -> None:
        """Tell everybody."""
        if not self._subscriptions:
            return
        readable = readable_event(event)
        for subscription in list(self._subscriptions):
            subscription.offer(readable)


def readable_event(event: Event) -> dict[str, Any]:
    """Return an event as JSON; nothing private is in any of them."""
    match event:
        case HeadChanged(head, is_reorg):
            assert head.block is not None or head.height == 0
            totals = to_readable(head.block.sealed.header.totals) if head.block else None
            return {
                "event": "block",
                "height": head.height,
                "id": head.block_id.hex(),
                "slot": head.slot,
                "transactions": len(head.block.body) if head.block else 0,
                "totals": totals,
                "reorganisation": is_reorg,
            }
        case BlockFinal(node, block):
            header = block.sealed.header
            return {
                "event": "final",
                "height": node.height,
                "id": node.block_id.hex(),
                "slot": node.slot,
                "producer_key_id": header.producer_key_id.hex(),
                "transactions": len(block.body),
                "totals": to_readable(header.totals),
            }
        case TransactionDropped(tx_id, reason):
            return {"event": "dropped", "tx_id": tx_id.hex(), "reason": reason}
        case FaultProven(member_id, evidence):
            return {
                "event": "fault",
                "fault": evidence.fault,
                "member_id": member_id,
                "key_id": key_id_of(evidence.public_key).hex(),
                "height": evidence.height,
            }
