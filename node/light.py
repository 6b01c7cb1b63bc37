"""A node's answers to a light client, over its HTTP API: read strictly, and believed by nobody.

Source: docs/api.md, "Following without trust".
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from audit.light import LightSource
from consensus.setchange import VotingProof
from ledger.block import SealedHeader
from ledger.codec import Bytes32
from ledger.errors import EncodingError, InvalidProof
from ledger.readable import from_readable, parse_json
from node.client import Client

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 4 << 20
"""Longer ones are cut, and then no JSON any more."""


class ApiSource(LightSource):
    """A node behind its API. Raises ApiFault where it does not answer, InvalidProof for an answer that is none."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        """Check the address. Raises ConfigError."""
        self._client = Client(url, timeout_s=timeout_s)
        self.name = self._client.url

    def final(self) -> VotingProof | None:
        """See ``LightSource.final``."""
        found = self._ask("/v1/light/final", "final")
        return None if found is None else self._read(found, VotingProof, "final")

    def set_changes(self, after: int) -> list[VotingProof]:
        """See ``LightSource.set_changes``."""
        found = self._ask(f"/v1/light/set-changes?after={after}", "set_changes")
        return self._read(found, list[VotingProof], "set_changes")

    def headers(self, first: int, count: int) -> list[SealedHeader]:
        """See ``LightSource.headers``."""
        found = self._ask(f"/v1/light/headers?from={first}&count={count}", "headers")
        return self._read(found, list[SealedHeader], "headers")

    def history(self, height: int, size: int) -> list[bytes]:
        """See ``LightSource.history``."""
        found = self._ask(f"/v1/light/history?height={height}&size={size}", "path")
        return self._read(found, list[Bytes32], "path")

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """See ``LightSource.consistency``."""
        found = self._ask(f"/v1/light/consistency?old={old_size}&new={new_size}", "path")
        return self._read(found, list[Bytes32], "path")

    def _ask(self, path: str, name: str) -> Any:
        body = self._client.get_bytes(path, bytes_max=ANSWER_BYTES_MAX)
        try:
            document = parse_json(body)
        except EncodingError as error:
            raise _no_answer(error, name) from None
        if not isinstance(document, dict) or list(document) != [name]:
            raise InvalidProof("not the answer to this question", where=path, expected=f"an object with {name!r}")
        return document[name]

    def _read(self, found: Any, kind: type[T], name: str) -> T:
        try:
            return from_readable(found, kind)
        except EncodingError as error:
            raise _no_answer(error, name) from None


def _no_answer(error: EncodingError, name: str) -> InvalidProof:
    where = f"{name}.{error.where}" if error.where else name
    return InvalidProof(error.what, where=where, expected=error.expected, actual=error.actual)
