"""What the API is put together from, and the keys under which an application holds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from aiohttp import web

from audit.final import FinalReader
from audit.notes import LogKey, NoteKey
from node.api.access import Tokens
from node.api.backend import Backend
from node.api.ingest import Ingest, VaultWriter
from node.keyfile import Token
from node.metrics import Metrics
from telephony.builder import Profile
from telephony.vault import Vault


def wall_clock_ms() -> int:
    """Return the wall clock in UTC milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What may be given to ``make_app`` beside the node.

    Attributes:
        tokens: who may write and see private fields; without any, nobody.
        hosts: names, without ports, that the API answers to beside loopback.
        vault: the party vault; without it no records are taken as JSON, only signed transactions. Closed by its owner.
        profile: what the member says about the calls of its proxy; without it no CDRs are taken.
        now_ms: the wall clock.
        log_key: signs notes of the final block; without it there are none.
        witnesses: whose cosignatures of them are taken.
    """

    tokens: Sequence[Token] = ()
    hosts: Collection[str] = ()
    vault: Vault | None = None
    profile: Profile | None = None
    now_ms: Callable[[], int] = wall_clock_ms
    log_key: LogKey | None = None
    witnesses: Sequence[NoteKey] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What handlers work with.

    Attributes:
        reader: of the node's store, for what is proved under the final block.
    """

    node: Backend
    reader: FinalReader
    parts: ApiParts
    tokens: Tokens
    writer: VaultWriter | None
    ingest: Ingest | None
    metrics: Metrics


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
