"""With workers the verdict, its place and the whole report are those of one job, on good chains and tampered ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from audit import ahead, auditor, vouch
from audit.ahead import Batch, Pool
from audit.raw import RawBlock
from audit.report import AuditReport
from audit.source import ChainSource
from audit.verify import verify_chain
from audit.vouch import Answer, Found, News, Task, Voucher
from ledger.codec import decode, encode
from ledger.errors import StoreDamaged, Unfinished
from ledger.genesis import Genesis
from tests.audit.chains import FIVE, Cluster, govern, make_genesis, rules_of
from tests.audit.forgery import Forgery, replay
from tests.audit.tamper import Parts, take_apart
from tests.audit.test_forged import AUDITED, KEYS, VARIANTS
from tests.audit.test_verify import CONTENTS, END, H, audit_directory, setup_minute

CHANGES = CONTENTS | END


class Inline(Pool):
    """A pool without processes, of one worker that holds two batches: answers go through the bytes that would be sent.

    It answers when it is waited for, and every seventh time that it is only asked: some batches are left to the audit.
    """

    made: Inline

    def __init__(self, genesis: Genesis) -> None:
        self.voucher = Voucher(genesis, rules_of(genesis))
        self.told = self.asked = self.turn = 0
        self.held: list[tuple[Batch, bytes]] = []
        Inline.made = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, count: int, news: list[News]) -> None:
        self.news = news

    def check(self, task: Task) -> Found:
        return self.voucher.check(task)

    @property
    def has_room(self) -> bool:
        return len(self.held) < 2

    def send(self, batch: Batch) -> None:
        assert self.has_room
        self.held.append((batch, encode(Task(self.news[self.told :], batch.sealed, batch.transactions))))
        self.told = len(self.news)

    def collect(self, *, wait: bool) -> None:
        assert self.held or not wait
        self.turn += 1
        if wait or (self.held and self.turn % 7 == 0):
            batch, task = self.held.pop(0)
            self.asked += 1
            batch.found = decode(encode(Answer.of(self.check(decode(task, Task)))), Answer).to_found()

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.verify.Workers", Inline)
    monkeypatch.setattr(ahead, "BATCH_PIECES", 5)


def audit(source: ChainSource, genesis: Genesis, jobs: int = 2) -> AuditReport:
    return verify_chain(source, genesis, rules=rules_of(genesis), jobs=jobs)


def place(report: AuditReport) -> tuple[int, str] | None:
    found = report.first_difference
    return None if found is None else (found.height, found.field)


@pytest.mark.parametrize("name", CHANGES)
def test_a_tampered_export_has_the_same_report(name: str, parts: Parts) -> None:
    change, height, field = CHANGES[name]
    change(parts)
    report = audit(parts.to_source(), parts.genesis)
    assert place(report) == (height, field)
    assert report.to_json() == audit(parts.to_source(), parts.genesis, jobs=1).to_json()


@pytest.mark.parametrize("name", list(CONTENTS)[::4])
def test_a_tampered_directory_has_the_same_place(
    name: str, parts: Parts, original: Parts, data_dir: Path, tmp_path: Path
) -> None:
    change, height, field = CONTENTS[name]
    change(parts)
    if name == "resealed_with_other_right_contents":
        height, field = H, f"record_row[minute {setup_minute(parts)}]"
    path = parts.to_directory(data_dir, original, tmp_path / "data")
    assert place(audit_directory(path, parts.genesis, rules_of(parts.genesis), jobs=2)) == (height, field)


@pytest.fixture(scope="module")
def good() -> Forgery:
    """A chain that elects, rotates and strikes."""
    cluster = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    govern(cluster)
    parts = take_apart(cluster.peers[0].store, cluster.genesis)
    return Forgery(parts, replay(parts, rules_of(cluster.genesis)), KEYS)


@pytest.mark.parametrize("name", AUDITED)
def test_a_forged_chain_that_governs_has_the_same_place(name: str, good: Forgery) -> None:
    forged = good.copy()
    height = VARIANTS[name].forge(forged)
    found = place(audit(forged.parts.to_source(), forged.parts.genesis))
    assert found is not None
    assert (found[0], re.sub(r"\[\d\]", "[?]", found[1])) == (height, VARIANTS[name].field)


@given(st.integers(1, 59), st.integers(0, 3), st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_byte_changed_has_the_same_report(good: Forgery, height: int, piece: int, at: int, flip: int) -> None:
    parts = good.parts.copy()
    block = parts.blocks[height - 1]

    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at % len(data)] ^= flip
        return bytes(changed)

    if piece == 0:
        parts.put(height, sealed=flipped(block.sealed))
    elif piece == 1:
        parts.put(height, body=flipped(block.body))
    elif block.transactions:
        index = at % len(block.transactions)
        changed = [flipped(raw) if i == index else raw for i, raw in enumerate(block.transactions)]
        parts.put(height, transactions=changed)
    one, two = (audit(parts.to_source(), parts.genesis, jobs=jobs) for jobs in (1, 2))
    assert two.to_json() == one.to_json()


def test_a_good_chain_that_governs_has_the_same_report(good: Forgery) -> None:
    one, two = (audit(good.parts.to_source(), good.parts.genesis, jobs=jobs) for jobs in (1, 2))
    assert (two.ok, two.to_json()) == (True, one.to_json())


def test_what_is_vouched_for_is_not_checked_again(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor, "check_transaction", lambda *_a, **_k: pytest.fail("checked again"))
    is_valid, check = vouch.is_valid_signature, Voucher.check
    at_work: list[Voucher] = []
    by_whom = set()

    def only_at_work(public_key: bytes, digest: bytes, signature: bytes) -> bool:
        by_whom.add(at_work[-1] is Inline.made.voucher)
        return is_valid(public_key, digest, signature)

    def at_work_now(voucher: Voucher, task: Task) -> Found:
        at_work.append(voucher)
        found = check(voucher, task)
        at_work.pop()
        return found

    monkeypatch.setattr(Voucher, "check", at_work_now)
    monkeypatch.setattr(vouch, "is_valid_signature", only_at_work)
    # What makes the last block final is in no block, so no worker is asked for it.
    monkeypatch.setattr("audit.verify._Run._check_end", lambda _run: None)
    assert audit(parts.to_source(), parts.genesis).ok
    assert Inline.made.asked > 2
    # Some batches were checked by the worker, some by the audit itself.
    assert by_whom == {True, False}


@pytest.mark.parametrize("ahead_bytes", [0, 2_000, 1 << 20])
def test_a_worker_that_vouches_for_nothing_changes_nothing(
    ahead_bytes: int, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "AHEAD_BYTES", ahead_bytes)
    monkeypatch.setattr(Voucher, "check", lambda _self, task: Found([], [None for _ in task.transactions]))
    assert audit(parts.to_source(), parts.genesis).to_json() == audit(parts.to_source(), parts.genesis, 1).to_json()


def test_a_key_that_is_another_one_here_is_looked_at_again(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A summary under a key with other roles than those of the chain is no summary."""
    check_ahead = Voucher.check

    def with_other_roles(voucher: Voucher, task: Task) -> Found:
        signatures, found = check_ahead(voucher, task)
        return Found(signatures, [one and one._replace(key=replace(one.key, roles=7)) for one in found])

    checked = []
    check = auditor.check_transaction
    monkeypatch.setattr(Voucher, "check", with_other_roles)
    monkeypatch.setattr(auditor, "check_transaction", lambda raw, **k: checked.append(raw) or check(raw, **k))
    report = audit(parts.to_source(), parts.genesis)
    assert (report.ok, len(checked)) == (True, report.transactions)


class Failing(ChainSource):
    """A source that breaks off."""

    def __init__(self, parts: Parts, height: int, error: Exception) -> None:
        self._source = parts.to_source()
        self.name, self.head = self._source.name, self._source.head
        self._height, self._error = height, error

    def genesis(self) -> bytes | None:
        return None

    def open(self, chain_id: bytes) -> None:
        pass

    def blocks(self, first_height: int = 1) -> Iterator[RawBlock]:
        for block in self._source.blocks(first_height):
            if block.height == self._height:
                raise self._error
            yield block

    def finality(self):
        raise AssertionError

    def close(self) -> None:
        self._source.close()


@pytest.mark.parametrize("jobs", [1, 2])
def test_damage_ahead_is_told_at_its_turn(jobs: int, parts: Parts) -> None:
    damage = StoreDamaged("some bytes are wrong", where="a file")
    with closing(Failing(parts, 8, damage)) as source:
        assert (audit(source, parts.genesis, jobs).height, damage.what) == (7, "some bytes are wrong")
    CONTENTS["header_is_garbage"][0](parts)
    with closing(Failing(parts, H + 1, damage)) as source:
        assert place(audit(source, parts.genesis, jobs)) == (H, "header")


def test_a_lost_worker_is_no_verdict(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_self: Inline, *, wait: bool) -> None:
        if _self.held:
            raise Unfinished("a worker process ended", where="--jobs" if wait else "")

    monkeypatch.setattr(Inline, "collect", lose)
    with pytest.raises(Unfinished):
        audit(parts.to_source(), parts.genesis)


def test_workers_begin_when_the_chain_is_worth_it(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    start: Callable[..., None] = Inline.start
    monkeypatch.setattr(Inline, "start", lambda self, count, news: begun.append(count) or start(self, count, news))
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2})
    assert verify_chain(parts.to_source(), parts.genesis, jobs=None).ok
    assert begun == []
    monkeypatch.setattr(ahead, "ALONE_BYTES", 10_000)
    assert verify_chain(parts.to_source(), parts.genesis, jobs=None).ok
    assert begun == [2]
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    assert verify_chain(parts.to_source(), parts.genesis, jobs=None).ok
    assert begun == [2]
