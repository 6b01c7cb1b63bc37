"""Following sources that nobody trusts: what becomes final, and what to say where it does not fit together.

Source: docs/audit.md, "Following a chain".
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from audit.accuse import Accusation, accuse
from audit.fork import Fork, find_fork
from audit.light import HEADERS_MAX, LightClient, LightSource, OtherHistory, check_history, point_of
from consensus.params import faults_tolerated
from consensus.setchange import VotingProof
from consensus.votes import VotingSet
from ledger.block import Certificate, Header, SealedHeader
from ledger.errors import InvalidProof, LedgerError
from ledger.readable import to_readable

HEADERS_SHOWN_MAX: Final = HEADERS_MAX
"""A gap up to this long is filled with its headers; a longer one is crossed by one path, unless all are asked for."""
RECENT_MAX: Final = 1_024
"""Final headers remembered, to compare with what a source that is behind says."""
BLAME_ABOVE: Final = 64
"""Headers above a conflict whose certificates are read: the link that leaps over it is in one of the first."""


@dataclass(frozen=True, slots=True)
class BecameFinal:
    """A header that was verified."""

    header: Header


@dataclass(frozen=True, slots=True)
class Crossed:
    """Heights between two blocks that are final: final as well, and not looked at."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class VotersChanged:
    """Another voting set is trusted; ``height``: of the final block whose state has the change."""

    height: int
    old: VotingSet
    new: VotingSet


News = BecameFinal | Crossed | VotersChanged


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two final blocks at one height.

    Attributes:
        lower: one of them, with the certificate that makes it final.
        other: the other one.
        higher: the final block in whose history that is, or itself, with its certificate.
        accused: those proven to have voted for both histories.
        tolerated: how many faulty producers the voting set bears.
        fork: where the histories part, where two sources were there to be asked.
    """

    lower: VotingProof
    other: Header
    higher: VotingProof
    accused: list[Accusation]
    tolerated: int
    fork: Fork | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything that proves it."""
        fork = self.fork
        return {
            "height": self.lower.header.height,
            "headers": [to_readable(self.lower.header), to_readable(self.other)],
            "proofs": [to_readable(self.lower), to_readable(self.higher)],
            "accused": [
                {"member_id": each.producer.member_id, "evidence": to_readable(each.evidence)} for each in self.accused
            ],
            "first_difference": None
            if fork is None
            else {"height": fork.height, "sides": [side.to_json() for side in fork.sides]},
        }


class TwoHistories(InvalidProof):
    """Two conflicting blocks are final: more producers are faulty than the chain bears.

    Attributes:
        conflict: the proof.
    """

    code = "two-histories"

    def __init__(self, conflict: Conflict) -> None:
        self.conflict = conflict
        super().__init__(
            "two blocks are final at one height",
            where=f"height {conflict.lower.header.height}",
            expected=point_of(conflict.lower.header).block_id,
            actual=point_of(conflict.other).block_id,
        )


class Follower:
    """One source, followed by a light client of its own.

    Attributes:
        client: what is known to be final.
        is_behind: the source's final block was below the client's when last asked.
    """

    def __init__(self, client: LightClient, source: LightSource, *, all_headers: bool = False) -> None:
        """``all_headers``: look at every header, however long the gap."""
        self.client = client
        self.source = source
        self.is_behind = False
        self._all_headers = all_headers
        self._recent: dict[int, SealedHeader] = {}

    def poll(self) -> Iterator[News]:
        """Ask the source for its final block, and yield what became final since, each once it is verified.

        Raises InvalidProof at the first lie, TwoHistories where two histories are proven to be final.
        """
        before = None if self.client.final is None else self.client.final.header
        is_new = yield from self._catch_up()
        if is_new:
            yield from self._show(before)

    def catch_up(self) -> list[VotersChanged]:
        """Go on to the source's final block as ``poll`` does, by proofs alone: no header in between is asked for."""
        return list(self._catch_up())

    def _catch_up(self) -> Generator[VotersChanged, None, bool]:
        """Go on to the source's final block; return whether it is not below the last one."""
        proof = self.source.final()
        self.is_behind = (0 if proof is None else proof.header.height) < self.client.point.height
        if proof is None or self.is_behind:
            if proof is not None:
                self._check_behind(proof)
            return False
        try:
            while self.client.trusted.set_id < proof.voting.set_id:
                yield from self._follow_changes(proof.voting.set_id)
            # Changes may have led further than the final block of a moment ago.
            if proof.header.height >= self.client.point.height:
                self.client.advance(proof, self._path_to(proof))
        except OtherHistory as error:
            self.investigate(error)
        return True

    def compare(self, higher: Follower) -> None:
        """Check that this one's final block is in the history of the other's, which is not lower.

        Raises InvalidProof where the other's source cannot show that, TwoHistories where it shows another block there.
        """
        lower, final = self.client.final, higher.client.final
        if lower is None or final is None:
            return
        point, end = point_of(lower.header), point_of(final.header)
        try:
            if point.height == end.height:
                if point != end:
                    raise OtherHistory(lower, final, "two blocks are final at one height")
            else:
                check_history(point, final.header, higher.path(point.height, end.height))
        except InvalidProof as error:
            higher.investigate(OtherHistory(lower, final, error.what), other=self)

    def path(self, low: int, high: int) -> list[bytes] | None:
        """Return the source's path from a height to the history of a higher one; None where that is the next."""
        return None if high - low <= 1 else self.source.history(low, high)

    # -- what became final -----------------------------------------------------------------------------------------

    def _follow_changes(self, wanted: int) -> Iterator[VotersChanged]:
        """Take in some set changes, none beyond the set ``wanted``."""
        old = self.client.trusted
        changes = self.source.set_changes(old.set_id)[: wanted - old.set_id]
        if not changes:
            raise InvalidProof(
                "the voting set is said to have changed, without proof",
                where=f"set {old.set_id + 1}",
                expected=f"a final block whose state has the change, certified by set {old.set_id} and the new one",
            )
        for proof in changes:
            old = self.client.trusted
            new = self.client.change(proof, self._path_to(proof))
            yield VotersChanged(proof.header.height, old, new)

    def _path_to(self, proof: VotingProof) -> list[bytes] | None:
        heights = sorted((self.client.point.height, proof.header.height))
        return self.path(*heights)

    def _show(self, before: Header | None) -> Iterator[News]:
        """Yield the headers above ``before`` up to the final block."""
        assert self.client.final is not None
        last = self.client.final.header
        height = 0 if before is None else before.height
        if last.height - height > HEADERS_SHOWN_MAX and not self._all_headers:
            yield Crossed(height + 1, last.height - 1)
            height = last.height - 1
        while height + 1 < last.height:
            page = self._page(before, height + 1, last.height)
            for sealed in page:
                self._remember(sealed)
                yield BecameFinal(sealed.header)
            before, height = page[-1].header, height + len(page)
        if height < last.height:
            yield BecameFinal(last)

    def _page(self, before: Header | None, first: int, end: int) -> Sequence[SealedHeader]:
        """Return verified headers from height ``first`` on, below ``end``."""
        count = min(HEADERS_MAX, end - first)
        page = self.source.headers(first, count)
        if not 0 < len(page) <= count:
            raise InvalidProof(
                "not the headers asked for", where=f"height {first}", expected=f"1 to {count}", actual=len(page)
            )
        self.client.check_page(before, page, self.path(first + len(page) - 1, end))
        return page

    def _remember(self, sealed: SealedHeader) -> None:
        self._recent[sealed.header.height] = sealed
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]

    # -- what does not fit together --------------------------------------------------------------------------------

    def _check_behind(self, proof: VotingProof) -> None:
        """Compare the final block of a source that is behind with what was final at that height before."""
        known, final = self._recent.get(proof.header.height), self.client.final
        if known is not None and final is not None and known.header != proof.header:
            if self.client.is_final(proof):
                raise TwoHistories(self._conflict(proof, known.header, final, None))
            raise InvalidProof(
                "it says that another block is final than the one it proved before",
                where=f"height {proof.header.height}, field block_id",
                expected=point_of(known.header).block_id,
                actual=point_of(proof.header).block_id,
            )

    def investigate(self, error: OtherHistory, *, other: Follower | None = None) -> None:
        """Find out what is at the lower of two final blocks' height in the history of the higher, this source's.

        other: who has the lower one. Raises TwoHistories where the source proves another block there, else ``error``.
        """
        lower, higher = error.lower, error.higher
        height = lower.header.height
        if height == higher.header.height:
            raise TwoHistories(self._conflict(lower, higher.header, higher, other)) from None
        rival = self.block_in_history(height, higher.header)
        if rival is None or rival == lower.header:
            raise error
        raise TwoHistories(self._conflict(lower, rival, higher, other)) from None

    def block_in_history(self, height: int, final: Header) -> Header | None:
        """Return the header at ``height``, 1 and up, in the history of a higher one; None where it is not given.

        final: the source proved it final. Raises InvalidProof where the one given is not shown to be in its history.
        """
        page = self.source.headers(height, 1)
        if not page:
            return None
        check_history(point_of(page[0].header), final, self.path(height, final.height))
        return page[0].header

    def _conflict(self, lower: VotingProof, rival: Header, higher: VotingProof, other: Follower | None) -> Conflict:
        if other is not None:
            try:
                fork = find_fork(other, self)
            except LedgerError:
                # A source that now holds something back: what is proven already is told all the same.
                pass
            else:
                return Conflict(lower, rival, higher, fork.accused, fork.tolerated, fork)
        height = lower.header.height
        first = [lower.certificate, *_carried(list(self._recent.values()))]
        second = [higher.certificate, *self.certificates(height, BLAME_ABOVE)]
        sets = dict(self.client.sets)
        for proof in (lower, higher):
            voting = proof.voting
            if voting.pending is not None:
                sets.setdefault(voting.set_id + 1, VotingSet(voting.set_id + 1, tuple(voting.pending.producers)))
        accused = accuse(first, second, sets, self.client.chain_id)
        return Conflict(lower, rival, higher, accused, faults_tolerated(len(lower.voting.producers)))

    def certificates(self, height: int, count: int) -> list[Certificate]:
        """Return the certificates that ``count`` headers from ``height`` on carry, as far as the source gives them."""
        try:
            return _carried(self.source.headers(height, count))
        except LedgerError:
            return []


def _carried(page: Sequence[SealedHeader]) -> list[Certificate]:
    return [sealed.certificate for sealed in page if sealed.certificate is not None]
