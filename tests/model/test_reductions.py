"""What the models leave out changes nothing: compared, state by state, with models that do not leave it out."""

from __future__ import annotations

import pytest

from tests.model.chains import Instance, Rules, Second, Signers, without_v2
from tests.model.checker import explore
from tests.model.instances import DISJOINT, FOUR, REPLACEMENT, SINGLES, Sets, instance
from tests.model.set_change_model import SetChangeModel
from tests.model.set_change_model import State as ChangeState
from tests.model.votes_model import State as VotesState
from tests.model.votes_model import VotesModel

Outcome = tuple[int, frozenset[tuple[tuple[int, int], ...]]]
"""The height of the fork, and the links that are certified on one chain and on the other."""


class Votes(VotesModel):
    """Votes one by one, and which outcomes there are."""

    outcomes: set[Outcome]

    def violation(self, state: VotesState) -> str | None:
        pair = []
        for chain, proved in zip((state.x, state.y), self.certified(state), strict=True):
            sources = [facts.source for facts in self.facts(chain)]
            pair.append(tuple((sources[h], h) for h in range(1, len(chain) + 1) if proved >> h & 1))
        self.outcomes.add((state.fork, frozenset(pair)))
        return None


class Changes(SetChangeModel):
    """Height by height, and which outcomes there are."""

    outcomes: set[Outcome]

    def violation(self, state: ChangeState) -> str | None:
        if state.fork is not None:
            self.outcomes.add((state.fork, frozenset({state.x.links, state.y.links})))
        return None


@pytest.mark.parametrize(
    ("sets", "byzantine", "height_max", "rules"),
    [
        (FOUR, {0}, 3, Rules()),
        (FOUR, {0}, 3, Rules(may_vote=without_v2)),
        (REPLACEMENT, {0, 4}, 2, Rules()),
        (DISJOINT, {0, 4}, 2, Rules()),
        (SINGLES, set(), 3, Rules()),
        (SINGLES, set(), 3, Rules(signers=Signers.NEW)),
        (SINGLES, set(), 3, Rules(signers=Signers.OLD)),
        (SINGLES, set(), 3, Rules(completes_when_justified=True)),
        (SINGLES, set(), 3, Rules(second=Second.SHIFTS)),
        (SINGLES, set(), 3, Rules(second=Second.AT_COMPLETION)),
    ],
)
def test_votes_one_by_one_come_to_the_same_as_height_by_height(
    sets: Sets, byzantine: set[int], height_max: int, rules: Rules
) -> None:
    """Any order and surplus votes against ascending targets and smallest quorums."""
    of = instance(sets, byzantine, height_max, rules)
    votes, changes = Votes(of), Changes(of, keeps_all=True)
    votes.outcomes, changes.outcomes = set(), set()
    explore(votes)
    explore(changes)
    assert changes.outcomes == votes.outcomes


@pytest.mark.parametrize(
    ("sets", "byzantine", "height_max", "rules"),
    [
        (FOUR, {0}, 6, Rules()),
        (FOUR, {0}, 3, Rules(may_vote=without_v2)),
        (FOUR, {0}, 4, Rules(may_vote=without_v2)),
        (DISJOINT, {0, 4}, 5, Rules()),
        (DISJOINT, {0, 4}, 3, Rules(completes_when_justified=True)),
        (DISJOINT, {0, 4}, 4, Rules(completes_when_justified=True)),
        (DISJOINT, {0, 4}, 4, Rules(signers=Signers.OLD)),
        (DISJOINT, {0, 4}, 5, Rules(signers=Signers.OLD)),
        (SINGLES, set(), 4, Rules(second=Second.REPLACES)),
        (SINGLES, set(), 3, Rules(second=Second.SHIFTS)),
        (SINGLES, set(), 4, Rules(second=Second.SHIFTS)),
    ],
)
def test_what_cannot_become_worse_is_left_out_rightly(
    sets: Sets, byzantine: set[int], height_max: int, rules: Rules
) -> None:
    """The last height at which a broken rule does no harm, and the first at which it does."""
    of = instance(sets, byzantine, height_max, rules)
    assert is_safe(of) == (explore(SetChangeModel(of, keeps_all=True)).violation is None)


def is_safe(of: Instance) -> bool:
    """Tell whether the model finds nothing."""
    return explore(SetChangeModel(of)).violation is None


def test_surplus_votes_do_no_harm() -> None:
    of = instance(FOUR, {0}, 3)
    all_votes, needed_votes = Votes(of), Votes(of, surplus=False)
    all_votes.outcomes, needed_votes.outcomes = set(), set()
    assert explore(all_votes).states > explore(needed_votes).states
    assert needed_votes.outcomes == all_votes.outcomes
