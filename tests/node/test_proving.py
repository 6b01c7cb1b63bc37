"""Entries of the final state, proved to whoever has the genesis file; and every lie about them refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from audit.final import FinalReader
from ledger.errors import EncodingError, InvalidProof
from ledger.genesis import Parameters
from ledger.payloads import DelegationPart, Delegations
from ledger.transaction import Kind
from node.api.govern import parse_state_key, state_proof
from node.api.problems import NotFound
from node.proving import Proved, check_state_answer
from node.sim.world import EPOCH_SLOTS, is_stand_in_signature, member_name, producer_key
from tests.consensus.bench_kit import Bench, time_of

WHO = f"member/{member_name(0)}"


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A chain on which the voting set has changed twice."""
    made = Bench(6, seats=4)
    for first, by, to in ((0, 3, 4), (4 * EPOCH_SLOTS, 2, 5)):
        made.govern(by, Kind.DELEGATE, Delegations([DelegationPart(member_name(to), 100)]), slot=first)
        for slot in range(first, first + 4 * EPOCH_SLOTS):
            made.submit([slot + 1], now_ms=time_of(slot))
            made.run_slot(slot)
    return made


def ask(bench: Bench, text: str) -> dict[str, Any]:
    """Return what a node answers."""
    reader = FinalReader(bench.stores[-1], bench.world.genesis)
    return state_proof(reader, parse_state_key(text))


def check(bench: Bench, answer: Any, text: str = WHO) -> Proved:
    """Check an answer as a client does."""
    return check_state_answer(answer, bench.world.genesis, text, is_valid=is_stand_in_signature)


def test_every_entry_is_proved(bench: Bench) -> None:
    state = bench.observer.final.chain.state
    entries: list[tuple[str, Any]] = [
        (WHO, state.members[member_name(0)]),
        (f"key/{producer_key(5).key_id.hex()}", state.keys[producer_key(5).key_id]),
        (f"candidate/{member_name(4)}", state.candidates[member_name(4)]),
        (f"delegation/{member_name(3)}/{member_name(4)}", 100),
        ("parameters", state.parameters),
        ("rules", state.rules),
        ("epoch", state.epoch),
        ("turns", state.turns),
        ("voting", state.voting),
    ]
    for text, value in entries:
        proved = check(bench, ask(bench, text), text)
        assert proved.value == value
        assert (proved.header.height, proved.set_changes) == (bench.observer.final.height, 2)


@pytest.mark.parametrize("text", ["member/nobody", "struck/carrier-00", f"proposal/{'00' * 32}", f"key/{'ab' * 20}"])
def test_what_is_not_there_is_proved_absent(bench: Bench, text: str) -> None:
    answer = ask(bench, text)
    assert (answer["value"], answer["value_encoded"], check(bench, answer, text).value) == (None, None, None)


@pytest.mark.parametrize(
    "text",
    ["", "member", "member/a/b", "key/xyz", f"key/{'AB' * 20}", "delegation/a", "epoch/1", "nothing", "member/ä"],
)
def test_what_is_no_entry(text: str) -> None:
    with pytest.raises(EncodingError) as caught:
        parse_state_key(text)
    assert caught.value.where == "key"


def test_before_anything_is_final_there_is_nothing_to_prove() -> None:
    with pytest.raises(NotFound, match="nothing is final yet"):
        ask(Bench(4), WHO)


def flipped(text: str) -> str:
    """Return hex with another first digit."""
    return ("1" if text[0] == "0" else "0") + text[1:]


def lie(*path: Any, to: Any = None) -> Callable[[dict[str, Any]], None]:
    """Return what changes one place of an answer; without ``to``, the first digit of the hex there."""

    def change(answer: dict[str, Any]) -> None:
        *way, last = path
        node: Any = answer
        for step in way:
            node = node[step]
        node[last] = flipped(node[last]) if to is None else to

    return change


LIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "another value": lie("value_encoded", to="920100"),
    "no value": lambda a: a.update(value_encoded=None),
    "value that is no member": lie("value_encoded", to="01"),
    "a sibling": lie("siblings", 0),
    "a sibling short": lambda answer: answer["siblings"].pop(),
    "absent at another path": lie("other_path", to="00" * 32),
    "another state root": lie("final", "header", "state_root"),
    "another height": lie("final", "header", "height", to=3),
    "another chain": lie("final", "header", "chain_id"),
    "no such certificate": lie("final", "certificate", "t_id"),
    "merely justified": lambda a: a["final"]["certificate"].update(t_height=a["final"]["certificate"]["t_height"] + 1),
    "a signature": lie("final", "certificate", "parts", 0, "signatures", 0),
    "a signature less": lambda a: a["final"]["certificate"]["parts"][0]["signatures"].pop(),
    "no parts": lie("final", "certificate", "parts", to=[]),
    "a voter swapped": lie("final", "voting", "producers", 0, "key_id"),
    "an older set": lie("final", "voting", "set_id", to=1),
    "a change skipped": lambda a: a["set_changes"].pop(0),
    "changes in another order": lambda a: a["set_changes"].reverse(),
    "no changes": lie("set_changes", to=[]),
    "a change twice": lambda a: a["set_changes"].insert(0, a["set_changes"][0]),
    "a voter to come swapped": lie("set_changes", 1, "voting", "pending", "producers", 0, "public_key"),
    "a change that is none": lambda a: a["set_changes"][0]["voting"].update(pending=None),
    "a change signed by the old set alone": lambda a: a["set_changes"][0]["certificate"]["parts"].pop(),
    "not hex": lie("siblings", 0, to="zz"),
    "a field missing": lambda a: a.pop("final"),
    "a list": lie("final", to=[]),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused(bench: Bench, name: str) -> None:
    answer = deepcopy(ask(bench, WHO))
    assert check(bench, answer).value
    LIES[name](answer)
    with pytest.raises(InvalidProof) as caught:
        check(bench, answer)
    assert caught.value.where


def test_the_answer_to_another_question_is_refused(bench: Bench) -> None:
    for text in (f"member/{member_name(1)}", "member/nobody"):
        with pytest.raises(InvalidProof):
            check(bench, ask(bench, text))


def test_another_genesis_refuses_it(bench: Bench) -> None:
    with pytest.raises(InvalidProof, match="of another chain"):
        check_state_answer(ask(bench, WHO), Bench(5).world.genesis, WHO, is_valid=is_stand_in_signature)


def test_whatever_is_no_answer(bench: Bench) -> None:
    for nonsense in (None, [], "x", 5, {}, {"final": None}):
        with pytest.raises(InvalidProof, match="not the answer of a node"):
            check(bench, nonsense)


def test_parameters_are_read_as_what_they_are(bench: Bench) -> None:
    assert isinstance(check(bench, ask(bench, "parameters"), "parameters").value, Parameters)
