"""Where two final histories part, and who voted for both of them.

Both are verified to their ends before; here the first height at which they differ is found by halving, each block by
its path into the history of its side's final block. The voting set is one and the same there, whatever became of it on
either side later: so certificates from there on name more producers than the chain bears to be faulty.

Source: docs/audit.md, "Comparing nodes"; docs/consensus.md, "Why it is safe".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from audit.accuse import Accusation, accuse
from audit.light import HEADERS_MAX, point_of
from consensus.params import faults_tolerated
from consensus.votes import VotingSet
from ledger.block import Certificate, Header
from ledger.errors import InvalidProof
from ledger.readable import to_readable

if TYPE_CHECKING:
    from audit.follow import Follower

BLAME_PAGES_MAX: Final = 8
"""Pages of HEADERS_MAX headers from the fork on whose certificates are read, of each side."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two histories at the height where they part.

    Attributes:
        header: the block there.
        path: from it to the history of ``final``; None where it is that block or its parent.
        final: the final block of this side.
    """

    header: Header
    path: list[bytes] | None
    final: Header

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "block_id": point_of(self.header).block_id.hex(),
            "header": to_readable(self.header),
            "history_path": to_readable(self.path or []),
            "final_height": self.final.height,
        }


@dataclass(frozen=True, slots=True)
class Fork:
    """Where two histories part.

    Attributes:
        height: the first at which they differ.
        sides: of the one whose final block is lower, and of the other.
        accused: those proven to have voted for both.
        tolerated: how many faulty producers the voting set there bears.
    """

    height: int
    sides: tuple[Side, Side]
    accused: list[Accusation]
    tolerated: int


def find_fork(lower: Follower, higher: Follower) -> Fork:
    """Return where the final histories of two sources part; they differ at the height of the lower one's final block.

    Asks each source for about two times log2 of that height answers. Raises InvalidProof where a source does not show
    what is in its history, and what the sources raise where they do not answer.
    """
    same, differs = 0, lower.client.point.height
    while differs - same > 1:
        middle = (same + differs) // 2
        if _side(lower, middle).header == _side(higher, middle).header:
            same = middle
        else:
            differs = middle
    sides = _side(lower, differs), _side(higher, differs)
    if sides[0].header == sides[1].header:
        raise InvalidProof("the histories are said to differ and do not", where=f"height {differs}")
    return _blame(lower, higher, differs, sides)


def sets_of(follower: Follower) -> dict[int, VotingSet]:
    """Return the voting sets by number that a source proved, the one to come included."""
    sets = dict(follower.client.sets)
    final = follower.client.final
    if final is not None and final.voting.pending is not None:
        number = final.voting.set_id + 1
        sets.setdefault(number, VotingSet(number, tuple(final.voting.pending.producers)))
    return sets


def _side(follower: Follower, height: int) -> Side:
    """Return what is at a height in a source's history."""
    final = follower.client.final
    assert final is not None
    if height == final.header.height:
        return Side(final.header, None, final.header)
    found = follower.block_in_history(height, final.header)
    if found is None:
        raise InvalidProof("it does not give this header of its own history", where=f"height {height}")
    return Side(found, follower.path(height, final.header.height), final.header)


def _blame(lower: Follower, higher: Follower, height: int, sides: tuple[Side, Side]) -> Fork:
    one, other = sets_of(lower), sets_of(higher)
    first, second = _last_certificate(lower), _last_certificate(higher)
    accused: list[Accusation] = []
    tolerated = 0
    for page in range(BLAME_PAGES_MAX):
        above = height + page * HEADERS_MAX
        more = lower.certificates(above, HEADERS_MAX), higher.certificates(above, HEADERS_MAX)
        first, second = [*first, *more[0]], [*second, *more[1]]
        if not page:
            tolerated = faults_tolerated(_voters(more[0] or first, one))
        accused = accuse(first, second, one, lower.client.chain_id, other_sets=other)
        if len(accused) > tolerated or not (more[0] or more[1]):
            break
    return Fork(height, sides, accused, tolerated)


def _last_certificate(follower: Follower) -> list[Certificate]:
    return [] if follower.client.final is None else [follower.client.final.certificate]


def _voters(certificates: list[Certificate], sets: dict[int, VotingSet]) -> int:
    """Return how many vote where the first of some certificates was made."""
    number = min((part.set_id for part in certificates[0].parts), default=0)
    return len(sets[number].producers) if number in sets else 1
