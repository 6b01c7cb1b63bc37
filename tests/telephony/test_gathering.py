"""What becomes of the documents of one key: calls with their reports, dead letters, and more waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Observer
from telephony.gathering import ANOTHER, NO_CALL, NO_REST, Gathered, JoinTimes, gather, role_of
from telephony.source import PartRole, Source
from telephony.waiting import Waiter
from tests.telephony.test_joining import CALL, INVITE, begin, end, part, quality, report

TIMES = JoinTimes(keep_ms=1000, wait_ms={"proxy": 100})
NOW_MS = 50
CDR = replace(CALL, platform="proxy")


def gathered(*sources: Source, now_ms: int = NOW_MS, times: JoinTimes = TIMES) -> Gathered:
    """Return what becomes of documents that were taken at 1, 2, 3, and so on, which are their numbers too."""
    found = [
        (Waiter(number, b"", role_of(source), 0, number, repr(source).encode()), source)
        for number, source in enumerate(sources, 1)
    ]
    result = gather(found, times=times, now_ms=now_ms)
    handled = [waiter.number for joined in result.calls for waiter in joined.parts]
    handled += [waiter.number for waiter, _ in result.dead] + [number for number, _ in result.postponed]
    assert sorted(handled) == list(range(1, len(sources) + 1)), "each document has one fate"
    return result


def parts_of(result: Gathered) -> list[list[int]]:
    return [[waiter.number for waiter in joined.parts] for joined in result.calls]


def dead_of(result: Gathered) -> list[tuple[int, str]]:
    return [(waiter.number, reason) for waiter, reason in result.dead]


def test_call_waits_for_reports_as_its_platform_says():
    waiting = gathered(CDR, report(quality()))
    assert (waiting.calls, waiting.dead, waiting.postponed) == ([], [], [(1, 101), (2, 1002)])
    result = gathered(CDR, report(quality()), now_ms=101)
    ((call, bare, _),) = result.calls
    assert (call.qualities, bare) == ((quality(),), CDR)
    assert (parts_of(result), result.postponed) == ([[1, 2]], [])


def test_call_of_a_platform_that_does_not_wait_goes_at_once():
    assert parts_of(gathered(CALL, report(quality()))) == [[1, 2]]


@pytest.mark.parametrize("sources", [(begin(), end()), (end(), begin())])
def test_beginning_and_end_in_either_order(sources):
    result = gathered(*sources)
    assert [joined.call.end_ms for joined in result.calls] == [9000]
    assert sorted(parts_of(result)[0]) == [1, 2]


def test_beginning_and_end_wait_for_reports_too():
    times = JoinTimes(1000, {"p": 100})
    first, last = (replace(made, call=replace(made.call, platform="p")) for made in (begin(), end()))
    assert gathered(first, last, times=times).postponed == [(1, 102), (2, 102)]
    assert parts_of(gathered(first, last, report(quality()), now_ms=102, times=times)) == [[1, 2, 3]]


@pytest.mark.parametrize(("source", "reason"), [(begin(), NO_REST), (end(), NO_REST), (report(quality()), NO_CALL)])
def test_part_alone_is_dead_when_its_time_is_up(source, reason):
    assert gathered(source, now_ms=1000).postponed == [(1, 1001)]
    assert dead_of(gathered(source, now_ms=1001)) == [(1, reason)]


def test_report_of_another_dialog_waits_for_its_own_call():
    """A forked call has one Call-ID: what was measured on one branch is not put to the other."""
    other = replace(report(quality()), call=replace(INVITE, to_tag="another"))
    result = gathered(CALL, other, report(quality(samples=9)))
    assert (parts_of(result), result.postponed) == ([[1, 3]], [(2, 1002)])
    assert [each.samples for each in result.calls[0].call.qualities] == [9]


def test_report_of_a_leg_goes_to_the_calls_that_have_it():
    """A transfer makes two calls of one key and three legs; each report finds its call, and whose ears it is of."""
    first, second = replace(CALL, legs=("1", "2")), replace(CALL, legs=("3", "1"), from_tag="g")
    unknown = quality(Observer.UNKNOWN)
    reports = [replace(report(unknown, raw=leg), of_leg=leg) for leg in ("2", "1", "9")]
    result = gathered(first, second, *reports)
    heard = [[each.observer for each in joined.call.qualities] for joined in result.calls]
    assert heard == [[Observer.CALLER, Observer.CALLEE], [Observer.CALLEE]]
    assert sorted(number for numbers in parts_of(result) for number in numbers) == [1, 2, 3, 4]
    assert result.postponed == [(5, 1005)]


def test_report_without_tags_is_of_the_answered_call():
    """After a challenge or a redirection the same Call-ID has an attempt that failed, which nobody heard."""
    failed = replace(CALL, answer_ms=0, sip_code=302, to_tag="x")
    result = gathered(failed, CALL, report(quality()))
    assert [len(joined.call.qualities) for joined in result.calls] == [0, 1]
    assert [len(gathered(failed, report(quality())).calls[0].call.qualities)] == [1]


def test_report_waits_for_the_last_of_its_calls():
    """Two calls of one Call-ID may be of one leg: what is in the first is still there for the second."""
    second = replace(CDR, setup_ms=1500)
    result = gathered(CALL, second, report(quality()))
    assert [len(joined.call.qualities) for joined in result.calls] == [1]
    assert (parts_of(result), result.postponed) == ([[1]], [(2, 102), (3, 1003)])


def test_of_two_ends_of_one_dialog_the_earlier_counts():
    """Both sides hung up at once; which line came first does not matter."""
    for ends in ((end(end_ms=9000), end(end_ms=8990)), (end(end_ms=8990), end(end_ms=9000))):
        result = gathered(begin(), *ends)
        assert [joined.call.end_ms for joined in result.calls] == [8990]
        assert [reason for _, reason in dead_of(result)] == [ANOTHER]


def test_two_beginnings_of_one_dialog():
    result = gathered(begin(answer_ms=2500), begin(), end())
    assert (parts_of(result), dead_of(result)) == ([[2, 3]], [(1, ANOTHER)])


def test_dialogs_of_one_call_id_are_calls_of_their_own():
    """Two branches answered: two beginnings, two ends, told apart by their tags, also where the callee hung up."""
    branch = end(from_tag="u", to_tag="f", end_ms=7000)
    result = gathered(begin(), begin(to_tag="u"), end(), branch)
    assert sorted((joined.call.to_tag, joined.call.end_ms) for joined in result.calls) == [("t", 9000), ("u", 7000)]
    assert sorted(map(sorted, parts_of(result))) == [[1, 3], [2, 4]]


def test_end_of_another_dialog_waits():
    result = gathered(begin(), end(to_tag="u"))
    assert (result.calls, result.postponed) == ([], [(1, 1001), (2, 1002)])


def test_parts_that_contradict_each_other_are_dead_with_the_reason():
    result = gathered(begin(answer_ms=20_000, setup_ms=19_000), end())
    assert sorted(number for number, _ in dead_of(result)) == [1, 2]
    assert {reason.split(":")[0] for _, reason in dead_of(result)} == {"end_ms"}


def test_end_that_contradicts_does_not_cost_the_call():
    """An end before the beginning is dead with its reason; the one that fits makes the call."""
    result = gathered(begin(), end(end_ms=1), end())
    assert (parts_of(result), [number for number, _ in dead_of(result)]) == ([[1, 3]], [2])
    assert dead_of(result)[0][1].startswith("end_ms: ")


SOURCES = st.sampled_from(
    [
        CALL,
        CDR,
        replace(CALL, to_tag="u"),
        begin(),
        begin(to_tag="u"),
        end(),
        end(end_ms=8000),
        end(to_tag="u"),
        end(end_ms=1),
        report(quality()),
        replace(report(quality(Observer.CALLEE)), call=replace(INVITE, to_tag="u")),
        replace(report(quality()), of_leg="7"),
        part(PartRole.QUALITY, None, qualities=(quality(samples=8),)),
    ]
)


@given(st.lists(SOURCES, max_size=8), st.integers(0, 2000))
def test_every_document_has_one_fate(sources, now_ms):
    """Whatever comes together: nothing is lost, nothing is used twice, nothing raises."""
    result = gathered(*sources, now_ms=now_ms)
    assert all(due_ms > now_ms for _, due_ms in result.postponed)


@given(st.lists(SOURCES, max_size=6, unique_by=repr), st.randoms())
def test_order_of_arrival_does_not_matter(sources, random):
    """The same documents taken at once in another order give the same calls and the same dead letters."""

    def calls(some: list[Source]) -> tuple[list[str], list[str]]:
        found = [(Waiter(n, b"", role_of(each), 0, 1, repr(each).encode()), each) for n, each in enumerate(some)]
        result = gather(found, times=TIMES, now_ms=5000)
        return sorted(repr(joined.call) for joined in result.calls), sorted(
            f"{waiter.document!r} {reason}" for waiter, reason in result.dead
        )

    mixed = list(sources)
    random.shuffle(mixed)
    assert calls(mixed) == calls(sources)


def test_roles():
    assert [role_of(source).name for source in (CALL, begin(), end(), report())] == ["WHOLE", "BEGIN", "END", "QUALITY"]
