"""The history tree as a transparency log: its checkpoint, which the node signs and witnesses cosign, and its tiles.

Only final blocks are in it. What is signed can therefore never be taken back by the node, and tiles never change.

Source: C2SP tlog-tiles, tlog-checkpoint, tlog-witness; docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from audit.final import FinalReader, FinalView
from audit.history import HistoryTree
from audit.lognote import make_note, origin_of
from audit.notes import NOTE_BYTES_MAX, LogKey, Note, NoteKey, parse_note, parse_tree_head
from audit.tiles import Tile, parse_tile, tile_bytes
from ledger.errors import BadSignature
from node.api.access import read_body
from node.api.parts import CONTEXT, Context
from node.api.problems import NotConfigured, NotFound, json_response

NOTES_KEPT: Final = 64
"""Notes signed last: a witness answers within seconds, blocks become final about once a second."""
COSIGNED_SHOWN_MS: Final = 600_000
"""For so long a cosigned note is preferred to newer ones without: witnesses are asked about once a minute."""
TILES_KEPT: Final = 1_024
"""Tiles above level 0, of 8 KB: each hash stands for 256 blocks and more that need not be read again. All those of
two years of one-second blocks, so that nobody can ask for the one that was just let go."""
READERS_MAX: Final = 2
"""Tiles made at once; the first of a high level needs a pass over the chain."""
FOREVER: Final = "public, max-age=31536000, immutable"
NOTE_CACHE: Final = "public, max-age=1"


class LogNotes:
    """The notes that a node signs, and what witnesses said of them.

    Attributes:
        key: of the node; without it no notes are made.
        witnesses: whose cosignatures are taken.
    """

    def __init__(
        self, chain_id: bytes, key: LogKey | None, witnesses: Sequence[NoteKey], now_ms: Callable[[], int]
    ) -> None:
        self.key = key
        self.witnesses = tuple(witnesses)
        self._origin = origin_of(chain_id)
        self._now_ms = now_ms
        self._made: OrderedDict[int, Note] = OrderedDict()
        self._cosigned: Note | None = None
        self._cosigned_height = 0
        self._cosigned_ms = 0

    def newest(self, view: FinalView, key: LogKey) -> Note:
        """Return the note of the final block."""
        height = view.header.height
        if height not in self._made:
            self._made[height] = make_note(view.voting_proof(), key)
            while len(self._made) > NOTES_KEPT:
                self._made.popitem(last=False)
        return self._made[height]

    def published(self, view: FinalView, key: LogKey) -> Note:
        """Return the last note that a witness cosigned while that is not long ago, else the newest."""
        is_recent = self._now_ms() - self._cosigned_ms <= COSIGNED_SHOWN_MS
        return self._cosigned if self._cosigned is not None and is_recent else self.newest(view, key)

    def cosign(self, data: bytes, key: LogKey) -> tuple[int, int]:
        """Take in what witnesses say of a note that this node signed; return its height, and how many they are now.

        Raises EncodingError, or BadSignature where the node did not sign it or no witness known here did.
        """
        note = parse_note(data)
        own = note.verify([key.note_key(self._origin)])
        # [REJECT] It is a note of this node
        if not own:
            raise BadSignature("not a note that this node signed", where="note", expected=f"by {self._origin}")
        found = note.verify(self.witnesses)
        # [REJECT] A witness that this node knows cosigned it
        if not found:
            expected = ", ".join(witness.to_text() for witness in self.witnesses)
            raise BadSignature("no witness known here cosigned it", where="note", expected=expected)
        height = parse_tree_head(note.text).size
        if height < self._cosigned_height:
            return self._cosigned_height, self._count(self._cosigned)
        if self._cosigned is None or height > self._cosigned_height:
            made = self._made.get(height)
            # Beside signatures that were verified nothing of what was sent is kept.
            self._cosigned = (
                made if made is not None and made.text == note.text else Note(note.text, (own[0].signature,))
            )
        self._cosigned = self._cosigned.signed(*(one.signature for one in found))
        self._cosigned_height, self._cosigned_ms = height, self._now_ms()
        return height, self._count(self._cosigned)

    def _count(self, note: Note | None) -> int:
        return 0 if note is None else len(note.verify(self.witnesses))


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
    parts = context.parts
    app[NOTES] = LogNotes(context.node.chain_id, parts.log_key, parts.witnesses, parts.now_ms)
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
    height, count = notes.cosign(body, key)
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
