"""A node that takes in records itself keeps to its vault's retention policy, as an agent does to that of its own."""

from __future__ import annotations

import asyncio
from typing import Final

from ledger.errors import StoreError
from ledger.transition import block_time_ms
from node.clock import now_ms
from node.logs import get_log
from node.node import Node
from telephony.vault import Vault

RETAIN_S: Final = 3_600.0
"""How often it is looked whether a month's time in the vault is over."""


async def keep_to_retention(vault: Vault, node: Node) -> None:
    """Shred in ``vault`` what its policy no longer keeps, until cancelled."""
    while True:
        try:
            await asyncio.to_thread(forget_what_is_over, vault, chain_ms=chain_time_ms(node))
        except StoreError as error:
            get_log("retention").error("what is over cannot be forgotten now", error=error.sentence())
        await asyncio.sleep(RETAIN_S)


def forget_what_is_over(vault: Vault, *, chain_ms: int) -> None:
    """Shred what is over by both clocks: there is no way back, so neither decides it alone. Raises StoreError."""
    for month in vault.erasure.apply_retention(min(now_ms(), chain_ms)):
        get_log("retention").info("a month is forgotten", month=month.what, records=month.records, held=month.held)


def chain_time_ms(node: Node) -> int:
    """Return the time of the final block, UTC milliseconds: a quorum's clocks agreed on it."""
    return block_time_ms(node.genesis, max(node.status().final.slot, 0))
