"""The history tree as a transparency log: its checkpoint, which the node signs (``notes``), and its tiles.

Only final blocks are in it. What is signed can therefore never be taken back by the node, and tiles never change.

Source: C2SP tlog-tiles, tlog-checkpoint, tlog-witness; docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from aiohttp import web

from audit.final import FinalReader, FinalView
from audit.history import HistoryTree
from audit.notes import NOTE_BYTES_MAX, LogKey
from audit.tiles import Tile, parse_tile, tile_bytes
from ledger.errors import LedgerError
from node.api.access import read_body
from node.api.gathering import check_gathered
from node.api.notes import NOTES_ROW, LogNotes
from node.api.parts import CONTEXT, Context
from node.api.problems import NotConfigured, NotFound, json_response
from node.logs import get_log

TILES_KEPT: Final = 1_024
"""Tiles above level 0, of 8 KB: each hash stands for 256 blocks and more that need not be read again. All those of
two years of one-second blocks, so that nobody can ask for the one that was just let go."""
READERS_MAX: Final = 2
"""Tiles made at once; the first of a high level needs a pass over the chain."""
FOREVER: Final = "public, max-age=31536000, immutable"
NOTE_CACHE: Final = "public, max-age=1"


class TileReader:
    """Makes tiles, and keeps those that took long."""

    def __init__(self, history: HistoryTree) -> None:
        self._history = history
        # As much of each tile as was asked for until now: what is partial grows with the chain.
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._busy = asyncio.Semaphore(READERS_MAX)

    async def read(self, tile: Tile) -> bytes:
        """Return what is in a tile that the tree has. Raises StoreDamaged."""
        place = tile.level, tile.index
        async with self._busy:
            kept = self._kept.get(place, b"") if tile.level else b""
            data = await asyncio.to_thread(tile_bytes, tile, self._history, begin=kept)
        if tile.level:
            self._kept[place] = max(data, self._kept.get(place, b""), key=len)
            self._kept.move_to_end(place)
            while len(self._kept) > TILES_KEPT:
                self._kept.popitem(last=False)
        return data


NOTES: web.AppKey[LogNotes] = web.AppKey("notes", LogNotes)
TILES: web.AppKey[TileReader] = web.AppKey("tiles", TileReader)


def add_log(app: web.Application, context: Context) -> None:
    """Give an application its notes and tiles."""
    parts, node = context.parts, context.node
    app[NOTES] = notes = LogNotes(node.chain_id, parts.log_key, parts.witnesses, parts.now_ms, node.keep_rows)
    if parts.log_key is not None:
        try:
            row = node.store.get_checked(NOTES_ROW)
            if row is not None:
                notes.restore(row, parts.log_key)
        except LedgerError as error:
            # The next cosignature takes its place; nothing else depends on it.
            get_log("api").warning("the notes that were kept are not taken up", error=error.sentence())
    app[TILES] = TileReader(context.reader.history)


async def get_checkpoint(request: web.Request) -> web.Response:
    """Return the final block as a signed note: the one cosigned last, or with ``?newest=1`` the newest."""
    notes = request.app[NOTES]
    key = _key_of(notes)
    view = await _final(request.app[CONTEXT].reader)
    note = notes.newest(view, key) if request.query.get("newest") == "1" else notes.published(view, key)
    headers = {"Cache-Control": NOTE_CACHE, "Content-Type": "text/plain; charset=utf-8"}
    return web.Response(body=note.to_bytes(), headers=headers)


async def get_tile(request: web.Request) -> web.Response:
    """Return a tile, or a bundle of entries."""
    tile = parse_tile(f"{request.match_info['level']}/{request.match_info['tile']}")
    view = await _final(request.app[CONTEXT].reader)
    if not tile.is_in(view.header.height):
        raise NotFound("the tree is not that large", where="tile", actual=f"a tree of {view.header.height} leaves")
    if tile.level:
        await check_gathered(request.app[CONTEXT], view.header.height)
    data = await request.app[TILES].read(tile)
    headers = {"Cache-Control": FOREVER, "Content-Type": "application/octet-stream"}
    return web.Response(body=data, headers=headers)


async def post_cosignatures(request: web.Request) -> web.Response:
    """Take in a note of this node with cosignatures of witnesses that it knows."""
    request.app[CONTEXT].tokens.require(request, "submit")
    notes = request.app[NOTES]
    key = _key_of(notes)
    if not notes.witnesses:
        raise NotConfigured("this node knows no witnesses", where="witnesses", hint="Start it with --witnesses")
    body = await read_body(request, content_type="text/plain", bytes_max=NOTE_BYTES_MAX)
    height, count = await notes.cosign(body, await _final(request.app[CONTEXT].reader), key)
    return json_response({"height": height, "cosignatures": count})


def _key_of(notes: LogNotes) -> LogKey:
    if notes.key is None:
        raise NotConfigured("this node has no log key", where="log_key", hint="Start it with --log-key")
    return notes.key


async def _final(reader: FinalReader) -> FinalView:
    view = await asyncio.to_thread(reader.view)
    if view is None:
        raise NotFound("nothing is final yet", where="checkpoint")
    return view
