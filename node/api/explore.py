"""What the explorer shows: figures, blocks with names, and what an id is the id of.

Source: docs/api.md, "Explorer".
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from audit.final import sealed_headers
from audit.voting import founding_set
from consensus.schedule import producer_at
from consensus.tree import BlockNode
from consensus.votes import VotingSet
from ledger.block import Block, BodyItem, Certificate, Header, bitmap_indexes, block_id_of
from ledger.cdr import Band, MosKind, QualityMethod
from ledger.errors import EncodingError, LedgerError
from ledger.models.tables import CODECS
from ledger.readable import to_readable
from ledger.transaction import Kind
from ledger.transition import block_time_ms
from node.api import views
from node.api.backend import Backend
from node.api.parts import CONTEXT, Context
from node.api.problems import json_response
from node.api.search import search
from node.statistics import MINUTE_MS, MosFigures, Read, Statistics, Tally, sum_of
from node.survey import Counted, Survey, run_survey

SLOTS_SHOWN: Final = 60
BLOCKS_SHOWN: Final = 12
BLOCKS_MAX: Final = 100
"""Of one answer of ``/v1/explore/blocks``."""
TRANSACTIONS_MAX: Final = 50
"""Of one answer of ``/v1/explore/blocks/{block}``: the body of each is read."""
CERTIFIED_WITHIN: Final = 8
"""Blocks after one in which its certificate is looked for; on a healthy chain it is in the next."""
QUERY_MAX: Final = 200

SURVEY: web.AppKey[Survey] = web.AppKey("survey", Survey)
SEARCHING: web.AppKey[asyncio.Lock] = web.AppKey("searching", asyncio.Lock)
"""Held by the search that runs: one at a time, for some read megabytes."""


def set_up(app: web.Application) -> None:
    """Give ``app``, which has its context, the statistics and what keeps them up to date."""
    node = app[CONTEXT].node
    app[SURVEY] = Survey(node.store, node.genesis, node.engine.final.height)
    app[SEARCHING] = asyncio.Lock()
    app.cleanup_ctx.append(_following)


async def _following(app: web.Application) -> AsyncIterator[None]:
    survey = app[SURVEY]
    task = asyncio.create_task(run_survey(survey), name="survey")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # A step may be under way in its thread, on a store that is about to be closed.
    await asyncio.to_thread(survey.close)


async def get_overview(request: web.Request) -> web.Response:
    """Return everything that the explorer's first page shows."""
    context, survey = request.app[CONTEXT], request.app[SURVEY]
    now_ms = context.parts.now_ms()

    def look() -> dict[str, Any]:
        # What cannot be read is in the log of the survey; what is live needs none of it.
        with suppress(LedgerError):
            survey.catch_up()
        return survey.look(lambda statistics, counted: _figures(statistics, counted, now_ms))

    figures = await asyncio.to_thread(look)
    return json_response({**_live_view(context, now_ms), **figures})


async def get_blocks(request: web.Request) -> web.Response:
    """Return blocks of the best chain in a few facts each, downwards from below ``?before=`` or the tip."""
    node = request.app[CONTEXT].node
    before = _number(request, "before", node.engine.head.height + 1)
    count = min(_number(request, "count", BLOCKS_MAX), BLOCKS_MAX)
    top = min(before - 1, node.engine.head.height)
    return json_response({**views.head_view(node), "blocks": _blocks_down(node, top, count)})


async def get_block(request: web.Request) -> web.Response:
    """Return a block with the names of all who made it, and from ``?from=`` on what its transactions are."""
    context = request.app[CONTEXT]
    block = views.find_block(context.node, request.match_info["block"])
    first = _number(request, "from", 0)
    view = _block_view(context, block)
    page = block.body[first : first + TRANSACTIONS_MAX]
    transactions = await asyncio.to_thread(lambda: [_transaction_summary(context.node, item) for item in page])
    return json_response({**view, "transactions": transactions, "first_transaction": first})


async def get_codecs(_request: web.Request) -> web.Response:
    """Return the codec registry that records refer to."""
    rows = [
        {"row": row, "name": codec.name, "concealment": codec.concealment, "packet_us": codec.packet_us}
        for row, codec in sorted(CODECS.items())
    ]
    return json_response({"codecs": rows})


async def get_search(request: web.Request) -> web.Response:
    """Return what ``?q=`` is the id, or the beginning of the id, of."""
    text = request.query.get("q", "").strip()
    if not text or len(text) > QUERY_MAX:
        raise EncodingError("not something to search for", where="q", expected=f"1 to {QUERY_MAX} characters")
    async with request.app[SEARCHING]:
        results = await asyncio.to_thread(search, request.app[CONTEXT].node, text)
    return json_response({"q": text, "results": results})


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise EncodingError("not a number", where=name, expected="a number from 0", actual=text)
    return int(text)


# -- what is live ------------------------------------------------------------------------------------------------------


def _live_view(context: Context, now_ms: int) -> dict[str, Any]:
    """Return how chain and node are at this moment."""
    node = context.node
    status, engine, genesis = node.status(), node.engine, node.genesis
    return {
        "now_ms": now_ms,
        "chain": {
            "chain_id": node.chain_id.hex(),
            "name": genesis.name,
            "genesis_time_ms": genesis.genesis_time_ms,
            "slot_ms": genesis.parameters.slot_ms,
        },
        "node": {
            "version": status.version,
            "member_id": node.member_id,
            "state": views.health_of(status)[0],
            "reason": views.health_of(status)[1],
            "peers": status.peers,
            "pool_records": status.pool_records,
        },
        "head": views.point_view(node, engine.head),
        "final": views.point_view(node, engine.final),
        "final_age_ms": status.final_age_ms,
        "producers": _producers(node),
        "slots": _slots(node),
        "blocks": _blocks_down(node, engine.head.height, BLOCKS_SHOWN),
    }


def _producers(node: Backend) -> list[dict[str, Any]]:
    """Return who may seal in this epoch, by rank, with their turns in it."""
    head = node.engine.head
    state = head.chain.state
    return [
        {
            "member_id": seat.member_id,
            "key_id": seat.key_id.hex(),
            "sealed": turn.sealed,
            "missed": turn.missed,
            "votes": seat in state.voting.producers,
        }
        for seat, turn in zip(state.epoch.seats, state.turns.turns, strict=True)
    ]


def _slots(node: Backend) -> list[dict[str, Any]]:
    """Return the last slots of the epoch up to the tip's: whose they were, and the height sealed in each."""
    head = node.engine.head
    if head.slot < 0:
        return []
    first = max(head.schedule.first_slot, head.slot - SLOTS_SHOWN + 1)
    heights: dict[int, int] = {}
    for header in _down_from(node, head.height):
        if header.slot < first:
            break
        heights[header.slot] = header.height
    return [
        {"slot": slot, "member_id": producer_at(head.schedule, slot).member_id, "height": heights.get(slot)}
        for slot in range(first, head.slot + 1)
    ]


def _down_from(node: Backend, height: int) -> Iterable[Header]:
    """Return the headers of the best chain from ``height`` down to 1; of blocks on disk nothing else is read."""
    here: BlockNode | None = node.engine.head
    while here is not None and here.block is not None and height > 0:
        if here.height == height:
            yield here.block.sealed.header
            height -= 1
        here = here.parent
    while height > 0:
        found = sealed_headers(node.engine, node.store, height, 1)
        if not found:
            return
        yield found[0].header
        height -= 1


def _blocks_down(node: Backend, height: int, count: int) -> list[dict[str, Any]]:
    return [_summary(node, header) for header in itertools.islice(_down_from(node, height), count)]


def _summary(node: Backend, header: Header) -> dict[str, Any]:
    """Return a block in a few facts."""
    return {
        "height": header.height,
        "block_id": block_id_of(header).hex(),
        "slot": header.slot,
        "time_ms": block_time_ms(node.genesis, header.slot),
        "producer": _owner(node, header.producer_key_id),
        "transactions": header.tx_count,
        "records": header.totals.records,
        "void": header.totals.void,
        "is_final": header.height <= node.engine.final.height,
    }


def _owner(node: Backend, key_id: bytes) -> str:
    """Return the member whose key it is, empty for one that the chain does not know."""
    entry = node.engine.key_entry(key_id)
    return entry.member_id if entry else ""


# -- one block ---------------------------------------------------------------------------------------------------------


def _block_view(context: Context, block: Block) -> dict[str, Any]:
    """Return a block with names, but for its transactions."""
    node = context.node
    carries, certified = block.sealed.certificate, _certificate_on(node, block)
    sets = _voting_sets(context, carries, certified)
    return {
        **views.block_view(node, block),
        "producer": _owner(node, block.sealed.header.producer_key_id),
        "carries": _signers(carries, sets),
        "certified": _signers(certified, sets),
    }


def _transaction_summary(node: Backend, item: BodyItem) -> dict[str, Any]:
    """Return what a transaction of a block is; reads the store alone."""
    _, transaction = views.find_transaction(node, item.tx_id)
    envelope = transaction.envelope
    return {
        "tx_id": item.tx_id.hex(),
        "kind": Kind(envelope.kind).name.lower(),
        "member_id": envelope.member_id,
        "created_ms": envelope.created_ms,
        "items": envelope.item_count,
        "void": len(bitmap_indexes(item.void_bitmap)),
    }


def _certificate_on(node: Backend, block: Block) -> Certificate | None:
    """Return the certificate on a block that a later one carries, or the best one known; None where there is none."""
    engine = node.engine
    header = block.sealed.header
    block_id = block_id_of(header)
    for height in range(header.height + 1, header.height + 1 + CERTIFIED_WITHIN):
        later_id = engine.block_id_at(height)
        later = None if later_id is None else engine.block(later_id)
        if later is None:
            break
        certificate = later.sealed.certificate
        if certificate is not None and certificate.t_id == block_id:
            return certificate
    best = engine.best_certificate
    return best if best is not None and best.t_id == block_id else None


def _voting_sets(context: Context, *certificates: Certificate | None) -> dict[int, VotingSet]:
    """Return the voting sets that signed certificates, by number: however often the set changed, two for each."""
    head = context.node.engine.head
    sets = {one.set_id: one for one in (founding_set(context.node.genesis), *head.voting, *head.next_voting)}
    parts = [part for certificate in certificates if certificate is not None for part in certificate.parts]
    for set_id in {part.set_id for part in parts} - sets.keys():
        # The change that led to a set is in the proof of the one before.
        for change in context.reader.set_changes(set_id - 1, count=1):
            if change.voting.pending is not None:
                sets[set_id] = VotingSet(set_id, tuple(change.voting.pending.producers))
    return sets


def _signers(certificate: Certificate | None, sets: dict[int, VotingSet]) -> dict[str, Any] | None:
    """Return who signed a certificate and who of the set did not, by name."""
    if certificate is None:
        return None
    parts = []
    for part in certificate.parts:
        producers = sets[part.set_id].producers if part.set_id in sets else ()
        signed = set(bitmap_indexes(part.signers))
        names = [producer.member_id for producer in producers]
        parts.append(
            {
                "set_id": part.set_id,
                "signed": [name for place, name in enumerate(names) if place in signed],
                "not_signed": [name for place, name in enumerate(names) if place not in signed],
                "quorum": sets[part.set_id].quorum if part.set_id in sets else len(signed),
            }
        )
    return {"height": certificate.t_height, "block_id": certificate.t_id.hex(), "parts": parts}


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(statistics: Statistics, counted: Counted, now_ms: int) -> dict[str, Any]:
    """Return what blocks add up to, over the last minute, hour and day and over all that were counted."""
    minutes, hours = statistics.minutes(now_ms), statistics.hours(now_ms)
    return {
        "counted": counted._asdict(),
        "records_last_minute": statistics.records_since(now_ms - MINUTE_MS),
        "periods": {
            "hour": _tally_view(sum_of(tally for _, tally in minutes)),
            "day": _tally_view(sum_of(tally for _, tally in hours)),
            "all": _tally_view(statistics.all),
        },
        "minutes": [_bucket_view(start_ms, tally) for start_ms, tally in minutes],
        "hours": [_bucket_view(start_ms, tally) for start_ms, tally in hours],
    }


def _tally_view(tally: Tally) -> dict[str, Any]:
    read = tally.read
    return {
        "blocks": tally.blocks,
        "transactions": tally.transactions,
        "records": tally.records,
        "void": tally.void,
        "talk_ms": tally.talk_ms,
        "octets": tally.octets,
        "device_mj": tally.device_mj,
        "network_mj": tally.network_mj,
        "server_mj": tally.server_mj,
        "co2_ug": tally.co2_ug,
        "mos": _mos_totals(tally),
        "read": _read_view(read),
    }


def _read_view(read: Read) -> dict[str, Any]:
    zones = sorted(read.zones.items(), key=lambda item: (-item[1].energy_mj, item[0]))
    return {
        "records": read.records,
        "answered": read.answered,
        "talk_ms": read.talk_ms,
        "mos": [_mos_view(*key, figures) for key, figures in sorted(read.mos.items())],
        "zones": [
            {"zone": name, "records": zone.records, "energy_mj": zone.energy_mj, "co2_ug": zone.co2_ug}
            for name, zone in zones
        ],
    }


def _mos_view(method: int, kind: int, band: int, figures: MosFigures) -> dict[str, Any]:
    return {
        "method": to_readable(QualityMethod(method)),
        "kind": to_readable(MosKind(kind)),
        "band": to_readable(Band(band)),
        "count": figures.count,
        "sum_milli": figures.sum_milli,
        "minimum_milli": figures.minimum_milli,
        "bins": figures.bins,
    }


def _bucket_view(start_ms: int, tally: Tally) -> dict[str, Any]:
    mos = _mos_totals(tally)
    return {"start_ms": start_ms, "records": tally.records, "void": tally.void, "mos": mos}


def _mos_totals(tally: Tally) -> list[dict[str, Any]]:
    return [
        {
            "method": to_readable(QualityMethod(method)),
            "kind": to_readable(MosKind(kind)),
            "count": count,
            "sum_milli": sum_milli,
            "minimum_milli": minimum_milli,
        }
        for (method, kind), (count, sum_milli, minimum_milli) in sorted(tally.mos.items())
    ]
