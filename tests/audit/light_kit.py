"""A source for light clients that asks an engine directly, and forged answers in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audit.final import FinalReader, sealed_headers
from audit.light import HEADERS_MAX, SET_CHANGES_MAX, LightSource
from consensus.setchange import VotingProof
from ledger.block import SealedHeader
from ledger.genesis import Genesis
from tests.audit.chains import Peer


class PeerSource(LightSource):
    """What a node answers, without HTTP; ``forge`` may change each answer: it is given the question and the answer."""

    def __init__(self, peer: Peer, genesis: Genesis, *, name: str = "node") -> None:
        self.name = name
        self.peer = peer
        self.reader = FinalReader(peer.store, genesis)
        self.forge: Callable[[str, Any], Any] = lambda _question, answer: answer
        self.asked: list[str] = []

    def _answer(self, question: str, answer: Any) -> Any:
        self.asked.append(question)
        return self.forge(question, answer)

    def final(self) -> VotingProof | None:
        view = self.reader.view()
        return self._answer("final", None if view is None else view.voting_proof())

    def set_changes(self, after: int) -> list[VotingProof]:
        return self._answer("set_changes", self.reader.set_changes(after, count=SET_CHANGES_MAX))

    def headers(self, first: int, count: int) -> list[SealedHeader]:
        assert 1 <= count <= HEADERS_MAX
        return self._answer("headers", sealed_headers(self.peer.engine, self.peer.store, first, count))

    def history(self, height: int, size: int) -> list[bytes]:
        return self._answer("history", self.reader.history.path(height, size))

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        return self._answer("consistency", self.reader.history.consistency(old_size, new_size))
