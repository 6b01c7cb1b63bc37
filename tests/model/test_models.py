"""The rules hold in every state; each of them, broken, is found out; and what is found is real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from consensus.votes import Link, VoteGuard
from tests.model.chains import Rules
from tests.model.checker import Violation, explore
from tests.model.instances import BROKEN, FOUR, RIGHT, Broken, Right, instance
from tests.model.judge import Judge, judge_changes, judge_votes
from tests.model.naive_model import NaiveModel, final_height, known_height
from tests.model.votes_model import VotesModel

DOCUMENT = (Path(__file__).parents[2] / "docs" / "model.md").read_text()

LONG = 100_000
"""States that take about ten seconds."""


def marked(right: Right) -> object:
    """Return a parameter, marked slow where it is."""
    return pytest.param(right, id=right.name, marks=pytest.mark.slow if right.states > LONG else ())


@pytest.mark.parametrize("right", [marked(right) for right in RIGHT])
def test_nothing_is_found_and_everything_is_visited(right: Right) -> None:
    found = explore(right.model())
    assert found.violation is None or found.violation.told() == ""
    assert found.states == right.states


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_rule_is_found_out(broken: Broken) -> None:
    """The counterexample is replayed with the code that nodes run."""
    found = explore(broken.make(broken.instance)).violation
    assert found is not None
    judge = judged(broken, found)
    assert len(judge.conflicts()) == 1
    assert (len(found.actions), frozenset(judge.broken)) == (broken.steps, broken.breaks)


def judged(broken: Broken, violation: Violation) -> Judge:  # type: ignore[type-arg]
    """Return the judge after a counterexample of either model."""
    is_votes = isinstance(broken.make(broken.instance), VotesModel)
    return (judge_votes if is_votes else judge_changes)(broken.instance, violation)


@pytest.mark.parametrize("byzantine", [0, 1])
def test_naive_finality_is_found_out(byzantine: int) -> None:
    """Even where all are honest. Six blocks are enough, each of which the producer had reason to seal."""
    model = NaiveModel(4, byzantine, 4)
    found = explore(model).violation
    assert found is not None
    chains: dict[str, tuple[int, ...]] = {"X": (), "Y": ()}
    for (producer, name, height), _ in found.actions:
        here, other = chains[name], chains["Y" if name == "X" else "X"]
        own = {at: known_height(chain, producer) for at, chain in (("here", here), ("other", other))}
        if producer >= byzantine and own["other"] > own["here"]:
            assert len(here) > own["other"]
        assert height == len(here) + 1
        chains[name] = (*here, producer)
    assert len(found.actions) == 6
    assert [len(set(chain)) for chain in chains.values()] == [3, 3]
    assert [final_height(chain, 3) for chain in chains.values()] == [1, 1]


def test_finality_that_stops_is_found_out() -> None:
    """A V2 that asks for a higher source each time leaves nobody to vote after one vote that came to nothing."""

    def stricter(guard: VoteGuard, link: Link) -> bool:
        return guard.may_vote(link) and (link.source.height > guard.max_source or not guard.next_target)

    found = explore(VotesModel(instance(FOUR, {0}, 3, Rules(may_vote=stricter)), progress=True)).violation
    assert found is not None
    assert found.told().split("\n") == [
        "  1. X1 carries nothing; P1 votes 0 -> X1",
        "     honest producers alone can make no higher block final",
    ]


def test_a_counterexample_can_be_read() -> None:
    broken = next(broken for broken in BROKEN if broken.name == "complete when justified")
    found = explore(broken.make(broken.instance)).violation
    assert found is not None
    assert f"```\n{found.told()}\n```" in DOCUMENT


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: right.name)
def test_the_document_has_the_number_of_states(right: Right) -> None:
    assert re.search(rf"^\| {re.escape(right.name)} \|.*\| {right.states:,} \|", DOCUMENT, flags=re.MULTILINE)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_the_document_has_the_length_of_a_counterexample(broken: Broken) -> None:
    assert re.search(rf"^\| {re.escape(broken.name)} \|.*\| {broken.steps} ", DOCUMENT, flags=re.MULTILINE)


def test_more_than_f_byzantine_producers_are_no_instance() -> None:
    with pytest.raises(ValueError, match="more than f"):
        instance(FOUR, {0, 1}, 3)
