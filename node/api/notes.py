"""The notes that a node signs of its final blocks, what witnesses said of them, and which one it shows.

Source: C2SP tlog-checkpoint, tlog-cosignature; docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

from audit.final import FinalView
from audit.lognote import finality_of, make_note, origin_of
from audit.notes import LogKey, Note, NoteKey, parse_note, parse_tree_head
from ledger.codec import Count, Wire, decode, encode
from ledger.errors import BadSignature
from ledger.store import Space

NOTES_KEPT: Final = 64
"""Notes signed last: a witness answers within seconds, blocks become final about once a second."""
COSIGNED_SHOWN_MS: Final = 600_000
"""For so long a cosigned note is preferred to newer ones without: witnesses are asked about once a minute."""
NOTES_ROW: Final = Space.META.value + b"notes"
"""KeptNotes: of no consensus, and nothing follows from it."""


class KeptNotes(Wire, frozen=True):
    """What of the notes outlasts a restart."""

    version: Literal[1]
    cosigned_ms: Count
    """When the last cosignature came in, by the node's clock."""
    cosigned: bytes
    """The note that was cosigned last, with what the witnesses said."""
    shown: bytes
    """The note that was shown last until then: nothing smaller may be shown again."""


class LogNotes:
    """The notes that a node signs, and what witnesses said of them.

    Attributes:
        key: of the node; without it no notes are made.
        witnesses: whose cosignatures are taken.
    """

    def __init__(
        self,
        chain_id: bytes,
        key: LogKey | None,
        witnesses: Sequence[NoteKey],
        now_ms: Callable[[], int],
        keep: Callable[[Sequence[tuple[bytes, bytes]]], Awaitable[None]],
    ) -> None:
        """Begin without notes. keep: makes rows durable; raises StoreError."""
        self.key = key
        self.witnesses = tuple(witnesses)
        self._chain_id = chain_id
        self._origin = origin_of(chain_id)
        self._now_ms = now_ms
        self._keep = keep
        self._made: OrderedDict[int, Note] = OrderedDict()
        self._cosigned: Note | None = None
        self._cosigned_ms = 0
        self._shown: Note | None = None
        self._taking = asyncio.Lock()
        self._held: Note | None = None

    def restore(self, row: bytes, key: LogKey) -> None:
        """Take up what was kept, as far as the log's key and the witnesses are those of now.

        Raises EncodingError or BadSignature where it is none of this node's; then nothing of it is taken up.
        """
        kept = decode(row, KeptNotes)
        shown, cosigned = self._own(kept.shown, key), self._own(kept.cosigned, key)
        self._shown = shown
        if self._count(cosigned):
            self._cosigned, self._cosigned_ms = cosigned, kept.cosigned_ms

    def newest(self, view: FinalView, key: LogKey) -> Note:
        """Return the note of the final block."""
        height = view.header.height
        if height not in self._made:
            self._made[height] = make_note(view.voting_proof(), key)
            while len(self._made) > NOTES_KEPT:
                self._made.popitem(last=False)
        return self._made[height]

    def published(self, view: FinalView, key: LogKey) -> Note:
        """Return the last note that a witness cosigned while that is not long ago, else the newest.

        Its tree is never smaller than that of the one before: where a newer note was shown when an older one was
        cosigned, that one stays until one as large is cosigned, or the witnesses are silent for long.
        """
        if self._held is not None:
            return self._held
        newest, cosigned = self.newest(view, key), self._cosigned
        is_recent = 0 <= self._now_ms() - self._cosigned_ms <= COSIGNED_SHOWN_MS
        # While a chain rests, its last block's note stays the one to show however old the signature is.
        is_preferred = cosigned is not None and (is_recent or _size(cosigned) >= _size(newest))
        best = cosigned if cosigned is not None and is_preferred else newest
        if self._shown is None or (_size(best), best is cosigned) > (_size(self._shown), False):
            self._shown = best
        return self._shown

    async def cosign(self, data: bytes, view: FinalView, key: LogKey) -> tuple[int, int]:
        """Take in what witnesses say of a note that this node signed; return its height, and how many they are now.

        Durable on return. Raises EncodingError, BadSignature where the node did not sign it or no witness known here
        did, or StoreError: then nothing is taken in.
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
        async with self._taking:
            old = self._cosigned
            if old is not None and _size(note) < _size(old):
                return _size(old), self._count(old)
            if old is None or _size(note) > _size(old):
                made = self._made.get(_size(note))
                # Beside signatures that were verified nothing of what was sent is kept.
                old = made if made is not None and made.text == note.text else Note(note.text, (own[0].signature,))
            cosigned = old.signed(*(one.signature for one in found))
            # While it is written nothing else is shown: after a crash the row says all that was.
            self._held = self.published(view, key)
            try:
                now_ms = self._now_ms()
                kept = KeptNotes(1, now_ms, cosigned.to_bytes(), self._held.to_bytes())
                await self._keep([(NOTES_ROW, encode(kept))])
                self._cosigned, self._cosigned_ms = cosigned, now_ms
            finally:
                self._held = None
            return _size(cosigned), self._count(cosigned)

    def _own(self, data: bytes, key: LogKey) -> Note:
        """Return a note that was kept, with the lines of this node and of the witnesses of now."""
        note = parse_note(data)
        # [REJECT] This node signed it, and the proof in it is of the same block
        if not note.verify([key.note_key(self._origin)]):
            raise BadSignature("not a note that this node signed", where="note", expected=f"by {self._origin}")
        finality_of(note, self._chain_id)
        own = [one for one in note.signatures if one.name == self._origin]
        return Note(note.text, (*own, *(one.signature for one in note.verify(self.witnesses))))

    def _count(self, note: Note) -> int:
        return len(note.verify(self.witnesses))


def _size(note: Note) -> int:
    return parse_tree_head(note.text).size
