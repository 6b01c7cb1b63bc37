"""What a certificate proves."""

from __future__ import annotations

from consensus.finality import BranchFinality, makes_final
from consensus.votes import Link
from tests.consensus.bench_kit import ZERO, point


def test_final_only_where_the_target_is_the_next_height() -> None:
    assert makes_final(Link(point(3), point(4)))
    assert not makes_final(Link(point(3), point(5)))


def test_a_branch_advances_with_what_it_carries() -> None:
    begin = BranchFinality(ZERO, ZERO)
    skipped = begin.after(Link(ZERO, point(2)))
    assert skipped == BranchFinality(point(2), ZERO)
    assert skipped.after(Link(point(2), point(3))) == BranchFinality(point(3), point(2))
