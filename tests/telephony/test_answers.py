"""What a node's answers mean: what is about a record costs that record, everything else is tried again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telephony.answers import Answer, Fate, Outcome, Promised, Promises, outcomes_of, promises_of

Json = dict[str, object]


def answer(status: int, *results: object) -> Answer:
    return Answer(status, json.dumps({"results": list(results)}).encode() if results else b"")


def problem(code: str, field: str = "", expected: str = "", *, status: int = 422) -> Json:
    document = {"type": f"urn:ledgerd:problem:{code}", "detail": "why", "field": field, "expected": expected}
    return {"status": status, "problem": document}


def test_an_answer_counts_for_each_transaction_by_itself() -> None:
    found = outcomes_of(answer(422, {"status": 201}, problem("rule-violation", "items[7].mos"), {"status": 503}), 3)
    assert found == [
        Outcome(Fate.STORED),
        Outcome(Fate.RECORD, "HTTP 422: why", index=7),
        Outcome(Fate.AGAIN, "HTTP 503"),
    ]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"status": 200}, Outcome(Fate.STORED)),
        (problem("field", "items[3].codec", status=400), Outcome(Fate.RECORD, "HTTP 400: why", index=3)),
        (problem("encoding", "items[999]", status=400), Outcome(Fate.RECORD, "HTTP 400: why", index=999)),
        (problem("unusable-transaction", "envelope.expires_ms"), Outcome(Fate.ENDED, "HTTP 422: why")),
        (problem("unusable-transaction", "items"), Outcome(Fate.HALVES, "HTTP 422: why")),
        (
            problem("unusable-transaction", "end_ms", ">= 1700000000000"),
            Outcome(Fate.OLD, "HTTP 422: why", 0, 17 * 10**11),
        ),
        (problem("unusable-transaction", "end_ms", "<= 1700000000000"), Outcome(Fate.LATER, "HTTP 422: why")),
        (problem("unusable-transaction", "envelope.created_ms"), Outcome(Fate.LATER, "HTTP 422: why")),
        # Of the sender, or of another kind: no record is given up for it.
        (problem("unusable-transaction", "envelope.chain_id"), Outcome(Fate.AGAIN, "HTTP 422: why")),
        (problem("bad-signature", "envelope"), Outcome(Fate.AGAIN, "HTTP 422: why")),
        (problem("rule-violation", "record.mos"), Outcome(Fate.AGAIN, "HTTP 422: why")),
        (problem("rule-violation", "items[1].mos", status=409), Outcome(Fate.AGAIN, "HTTP 409")),
        ({"status": 422}, Outcome(Fate.AGAIN, "HTTP 422")),
    ],
)
def test_what_a_refusal_means(result: Json, expected: Outcome) -> None:
    assert outcomes_of(answer(422, result), 1) == [expected]


@pytest.mark.parametrize("status", [0, 200, 201, 302, 400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 507])
def test_an_answer_without_results_says_nothing_of_any(status: int) -> None:
    """Not even a success: nothing is forgotten for an answer that does not name each transaction."""
    assert [outcome.fate for outcome in outcomes_of(Answer(status, b"?"), 2)] == [Fate.AGAIN] * 2


def test_results_for_another_number_of_transactions_are_none() -> None:
    assert [outcome.fate for outcome in outcomes_of(answer(200, {"status": 200}), 2)] == [Fate.AGAIN] * 2


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "problem", "field", "type", "tx_id", "state", "void", "head", "final"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.integers(0, 599), st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.integers(1, 5))
def test_whatever_comes_back_is_survived(status: int, body: bytes, count: int) -> None:
    assert len(outcomes_of(Answer(status, body), count)) == count
    assert promises_of(Answer(status, body)) is None


@given(_JSON)
def test_answers_of_any_shape_are_survived(found: object) -> None:
    assert len(outcomes_of(Answer(200, json.dumps({"results": found}).encode()), 2)) == 2
    assert promises_of(Answer(200, json.dumps({"promises": found}).encode())) is None


def test_promises_tell_of_each_transaction_and_of_the_chain() -> None:
    document = {
        "now_ms": 5,
        "head": {"height": 4},
        "final": {"height": 3, "time_ms": 2},
        "promises": [
            {"tx_id": "aa", "state": "final", "height": 3, "void": [1, 2]},
            {"tx_id": "bb", "state": "unknown", "height": None, "void": []},
        ],
    }
    expected = Promises(5, 4, 3, 2, {b"\xaa": Promised("final", 2), b"\xbb": Promised("unknown", 0)})
    assert promises_of(Answer(200, json.dumps(document).encode())) == expected
    document["now_ms"] = "5"
    assert promises_of(Answer(200, json.dumps(document).encode())) is None
