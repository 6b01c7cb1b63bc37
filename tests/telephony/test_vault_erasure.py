"""Forgetting: who is forgotten is gone, who is not stays provable, what is disputed stays, wherever a crash comes."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.commitment import PRIVATE_FIELDS, PrivatePart, check_field, make_private_part, party_commitment
from ledger.errors import ConfigError, FieldError, StoreDamaged
from telephony import vault_files, vault_keys
from telephony.vault import Vault, VaultEntry
from telephony.vault_keys import end_of_period_ms, period_of

SECRET = bytes(range(32))
NOVEMBER_MS = 1_795_231_128_494  # 2026-11-21
DAY_MS = 86_400_000
DECEMBER_MS = NOVEMBER_MS + 30 * DAY_MS
NOW_MS = DECEMBER_MS + 90 * DAY_MS
ANNA, BEN, CLEO = "+442071838750", "sip:ben@host.test", "+12025550123"


def key(number: int) -> bytes:
    """Return the record key of a number."""
    return number.to_bytes(16)


def part_of(number: int, caller: str, callee: str) -> PrivatePart:
    """Return the private part of a record, no two with the same salts."""
    values = {"caller": caller, "callee": callee, "call_id": f"call-{number}", "raw": f"{caller} -> {callee}"}
    return make_private_part(values, [bytes([number, i]) * 16 for i in range(7)])


class Keeper:
    """A vault and what was put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = Vault(folder, SECRET)
        self.parts: dict[int, PrivatePart] = {}

    def put(self, number: int, caller: str = ANNA, callee: str = BEN, setup_ms: int = NOVEMBER_MS) -> None:
        """Keep one record."""
        part = self.parts[number] = part_of(number, caller, callee)
        self.vault.put_many([VaultEntry(key(number), setup_ms, self.vault.content_hash(b"x"), part)])

    def reopen(self) -> None:
        """Close and open."""
        self.vault.close()
        self.vault = Vault(self.folder, SECRET)

    def shown(self, number: int) -> set[str]:
        """Return which fields are there, each checked against the commitment and its proof."""
        view = self.vault.look(key(number))
        assert view is not None
        part = self.parts[number]
        for name, field in view.fields.items():
            assert field == part.fields[PRIVATE_FIELDS.index(name)]
            proven, path = view.prove(name)
            check_field(proven, path, party_commitment(part))
        assert set(view.shredded) == set(PRIVATE_FIELDS) - set(view.fields)
        return set(view.fields)

    def all_shown(self) -> list[set[str]]:
        """Return the same of every record."""
        return [self.shown(number) for number in self.parts]

    def on_disk(self) -> bytes:
        """Return every byte of the vault's files."""
        self.vault.close()
        return b"".join(path.read_bytes() for path in sorted(self.folder.iterdir()))


ALL = set(PRIVATE_FIELDS)
NONE: set[str] = set()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """Return an empty vault."""
    made = Keeper(tmp_path / "vault")
    yield made
    made.vault.close()


def test_who_is_forgotten_is_gone_and_the_other_stays_provable(keeper: Keeper) -> None:
    keeper.put(1, ANNA, BEN)
    keeper.put(2, BEN, ANNA, DECEMBER_MS)
    keeper.put(3, CLEO, BEN)
    keeper.put(4, ANNA, ANNA)
    done = keeper.vault.erasure.shred_subject(ANNA, reason="asked to by letter", now_ms=NOW_MS)
    assert (done.kind, done.records, done.held, done.is_done) == ("subject", 3, 0, True)
    for _ in range(2):
        assert keeper.all_shown() == [{"callee"}, {"caller"}, ALL, NONE]
        view = keeper.vault.look(key(1))
        assert view is not None
        assert set(view.shredded.values()) == {done}
        assert view.part is None
        assert keeper.vault.get(key(1)) is None
        assert keeper.vault.get(key(3)) == keeper.parts[3]
        with pytest.raises(FieldError, match="was shredded"):
            view.prove("caller")
        with pytest.raises(FieldError, match="not a private field"):
            view.prove("name")
        keeper.reopen()
    # The records still count once, and whose they were is still found by who asks with the number.
    assert keeper.vault.find([key(1)])[key(1)].content == keeper.vault.content_hash(b"x")
    assert keeper.vault.records_of(ANNA) == [(key(1), "2026-11"), (key(2), "2026-12"), (key(4), "2026-11")]


def test_both_may_be_forgotten_one_after_the_other(keeper: Keeper) -> None:
    keeper.put(1)
    first = keeper.vault.erasure.shred_subject(ANNA, reason="one", now_ms=NOW_MS)
    second = keeper.vault.erasure.shred_subject(BEN, reason="two", now_ms=NOW_MS + 1)
    assert keeper.shown(1) == NONE
    view = keeper.vault.look(key(1))
    assert view is not None
    assert (view.shredded["caller"], view.shredded["raw"], view.shredded["callee"]) == (first, first, second)
    assert keeper.vault.erasure.log() == [first, second]


def test_nothing_that_is_forgotten_is_left_on_disk(keeper: Keeper) -> None:
    keeper.put(1)
    keeper.put(2, setup_ms=DECEMBER_MS)
    rows = keeper.vault._db.execute("SELECT caller_body, rest_body FROM record").fetchall()
    wrapped = json.loads((keeper.folder / "keys-2026-12.jsonl").read_text().splitlines()[0])["wrapped"]
    assert len(wrapped) == 2 * (12 + 32 + 16)
    for party in (ANNA, BEN):
        keeper.vault.erasure.shred_subject(party, reason="asked to", now_ms=NOW_MS)
    written = keeper.on_disk()
    assert [body for row in rows for body in row if body in written] == []
    assert wrapped.encode() not in written
    assert not any(text.encode() in written for text in (ANNA, ANNA[1:], BEN, "call-1"))


def test_a_copy_of_the_bodies_does_not_open_after_shredding(keeper: Keeper) -> None:
    """What a backup of the database holds is lost with the keys, and is shown as shredded, not as damaged."""
    keeper.put(1)
    keeper.vault.close()
    shutil.copy(keeper.folder / "vault.sqlite", keeper.folder.parent / "backup")
    keeper.reopen()
    keeper.vault.erasure.shred_subject(ANNA, reason="asked to", now_ms=NOW_MS)
    keeper.vault.close()
    shutil.copy(keeper.folder.parent / "backup", keeper.folder / "vault.sqlite")
    keeper.reopen()
    view = keeper.vault.look(key(1))
    assert view is not None
    assert set(view.fields) == {"callee"}
    assert set(view.shredded.values()) == {None}
    with pytest.raises(FieldError, match="hashes of the other fields"):
        view.prove("callee")


def test_who_was_forgotten_may_call_again(keeper: Keeper) -> None:
    keeper.put(1)
    keeper.vault.erasure.shred_subject(ANNA, reason="asked to", now_ms=NOW_MS)
    keeper.put(2)
    keeper.reopen()
    assert keeper.all_shown() == [{"callee"}, ALL]


def test_whom_nobody_knows_can_be_forgotten(keeper: Keeper) -> None:
    keeper.put(1)
    done = keeper.vault.erasure.shred_subject(CLEO, reason="asked to", now_ms=NOW_MS)
    assert (done.records, keeper.shown(1)) == (0, ALL)


@pytest.mark.parametrize(
    ("party", "reason", "match"),
    [("", "asked to", "whom"), (ANNA, "", "words"), (ANNA, "two\nlines", "words"), (ANNA, f"of {ANNA[1:]}", "leave")],
)
def test_what_cannot_be_shredded_is_said_before_anything_is_done(
    keeper: Keeper, party: str, reason: str, match: str
) -> None:
    keeper.put(1)
    with pytest.raises(ConfigError, match=match) as caught:
        keeper.vault.erasure.shred_subject(party, reason=reason, now_ms=NOW_MS)
    assert ANNA[1:] not in caught.value.sentence()
    assert keeper.vault.erasure.log() == []
    assert keeper.shown(1) == ALL


def test_a_month_is_forgotten_whole_and_no_other(keeper: Keeper) -> None:
    keeper.put(1)
    keeper.put(2, setup_ms=DECEMBER_MS)
    done = keeper.vault.erasure.shred_period("2026-11", reason="asked to", now_ms=NOW_MS)
    assert (done.what, done.records) == ("2026-11", 1)
    keeper.put(3, CLEO)
    keeper.reopen()
    assert keeper.all_shown() == [NONE, ALL, ALL]
    # What is left of the month is the mark, and keys of the call that came in since.
    assert len((keeper.folder / "keys-2026-11.jsonl").read_text().splitlines()) == 3
    for wrong in ("2026-13", "2026-1", "1969-12", "2026-11-01", "held", ""):
        with pytest.raises(ConfigError, match="not a period"):
            keeper.vault.erasure.shred_period(wrong, reason="asked to", now_ms=NOW_MS)


def test_a_damaged_record_does_not_keep_a_subject_from_being_forgotten(keeper: Keeper) -> None:
    keeper.put(1)
    keeper.put(2)
    keeper.vault._db.execute("UPDATE record SET rest_body = x'00' WHERE number = 1")
    assert keeper.vault.erasure.shred_subject(ANNA, reason="asked to", now_ms=NOW_MS).records == 2
    view = keeper.vault.look(key(1))
    assert view is not None
    assert set(view.fields) == {"callee"}
    assert keeper.shown(2) == {"callee"}


# -- holds and retention -----------------------------------------------------------------------------------------------


def test_a_hold_keeps_what_is_disputed_until_it_is_released(keeper: Keeper) -> None:
    erasure = keeper.vault.erasure
    for number in range(1, 5):
        keeper.put(number, ANNA, BEN if number < 4 else CLEO)
    hold = erasure.holds.place(
        reason="dispute 17", who="billing", now_ms=NOW_MS, records=[key(1), key(2)], subjects=[CLEO]
    )
    assert (hold.targets, hold.released_ms) == (3, None)
    done = erasure.shred_subject(ANNA, reason="asked to", now_ms=NOW_MS)
    assert (done.records, done.held) == (1, 3)
    done = erasure.shred_period("2026-11", reason="too old", now_ms=NOW_MS)
    assert (done.records, done.held) == (1, 3)
    keeper.put(5, ANNA, BEN)
    keeper.reopen()
    erasure = keeper.vault.erasure
    assert keeper.all_shown() == [ALL, ALL, NONE, ALL, ALL]
    assert [erasure.holds.is_held(key(number)) for number in range(1, 7)] == [True, True, False, True, False, False]
    again = erasure.holds.place(reason="dispute 18", who="billing", now_ms=NOW_MS, records=[key(2)])
    released = erasure.holds.release(hold.number, who="legal", now_ms=NOW_MS + 1)
    assert (released.released_ms, released.released_by, released.targets) == (NOW_MS + 1, "legal", 0)
    # What waited goes; what another hold keeps stays, and so does what came in since.
    assert keeper.all_shown() == [NONE, ALL, NONE, NONE, ALL]
    assert [(one.records, one.held) for one in erasure.log()] == [(3, 1), (3, 1)]
    erasure.holds.release(again.number, who="legal", now_ms=NOW_MS + 2)
    assert keeper.all_shown() == [NONE, NONE, NONE, NONE, ALL]
    assert len(keeper.vault._files.keys(vault_keys.HELD)) == 0
    with pytest.raises(ConfigError, match="released before"):
        erasure.holds.release(again.number, who="legal", now_ms=NOW_MS)
    assert [one.released_by for one in erasure.holds.all()] == ["legal", "legal"]


def test_a_hold_on_a_month_keeps_what_comes_in_later(keeper: Keeper) -> None:
    keeper.vault.erasure.holds.place(reason="dispute", who="billing", now_ms=NOW_MS, periods=["2026-11"])
    keeper.put(1)
    keeper.put(2, setup_ms=DECEMBER_MS)
    assert keeper.vault.erasure.shred_subject(BEN, reason="asked to", now_ms=NOW_MS).held == 1
    assert keeper.all_shown() == [ALL, {"caller"}]


def test_what_is_handed_in_again_after_a_shredding_is_new(keeper: Keeper) -> None:
    """The shredding that a hold kept back does not take it when the hold is released."""
    keeper.put(1)
    hold = keeper.vault.erasure.holds.place(reason="dispute", who="billing", now_ms=NOW_MS, records=[key(1)])
    keeper.vault.erasure.shred_subject(ANNA, reason="asked to", now_ms=NOW_MS)
    keeper.put(1)
    keeper.vault.erasure.holds.release(hold.number, who="legal", now_ms=NOW_MS)
    assert keeper.shown(1) == ALL


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"records": [key(9)]},
        {"periods": ["2026"]},
        {"subjects": [""]},
        {"records": [key(1)], "reason": ""},
        {"records": [key(1)], "who": "two\nlines"},
    ],
)
def test_what_cannot_be_held_is_said(keeper: Keeper, what: dict[str, object]) -> None:
    keeper.put(1)
    with pytest.raises(ConfigError):
        keeper.vault.erasure.holds.place(**{"reason": "dispute", "who": "billing", "now_ms": NOW_MS, **what})
    assert keeper.vault.erasure.holds.all() == []
    with pytest.raises(ConfigError, match="no such hold"):
        keeper.vault.erasure.holds.release(1, who="legal", now_ms=NOW_MS)


def test_a_damaged_record_under_a_hold_stops_the_shredding_that_would_lose_it(keeper: Keeper) -> None:
    keeper.put(1)
    keeper.vault.erasure.holds.place(reason="dispute", who="billing", now_ms=NOW_MS, records=[key(1)])
    keeper.vault._db.execute("UPDATE record SET rest_body = x'00'")
    with pytest.raises(StoreDamaged, match="under a hold"):
        keeper.vault.erasure.shred_subject(ANNA, reason="asked to", now_ms=NOW_MS)
    assert keeper.vault._files.keys("2026-11").key_of(keeper.vault.erasure.subject_of(ANNA)) is not None


def test_retention_shreds_months_that_were_kept_long_enough(keeper: Keeper) -> None:
    erasure = keeper.vault.erasure
    keeper.put(1)
    keeper.put(2, CLEO)
    keeper.put(3, setup_ms=DECEMBER_MS)
    end_ms = end_of_period_ms("2026-11")
    assert (erasure.retain_days, erasure.retention_due(NOW_MS * 2)) == (None, [])
    erasure.set_retain_days(30)
    assert erasure.retain_days == 30
    assert erasure.retention_due(end_ms + 30 * DAY_MS - 1) == []
    assert erasure.retention_due(end_ms + 30 * DAY_MS) == ["2026-11"]
    assert erasure.retention_due(end_ms + 70 * DAY_MS) == ["2026-11", "2026-12"]
    erasure.holds.place(reason="dispute", who="billing", now_ms=NOW_MS, subjects=[CLEO])
    (done,) = erasure.apply_retention(end_ms + 30 * DAY_MS)
    assert (done.what, done.records, done.held) == ("2026-11", 1, 1)
    assert "30 days" in done.reason
    assert keeper.all_shown() == [NONE, ALL, ALL]
    assert erasure.apply_retention(end_ms + 30 * DAY_MS) == []
    # A call that came late, in a month that was over: its turn comes as well.
    keeper.put(4)
    assert [one.records for one in erasure.apply_retention(end_ms + 30 * DAY_MS)] == [1]
    assert keeper.all_shown() == [NONE, ALL, ALL, NONE]
    erasure.set_retain_days(None)
    assert erasure.retention_due(NOW_MS * 2) == []
    for wrong in (0, -1, 40_000):
        with pytest.raises(ConfigError):
            erasure.set_retain_days(wrong)


@given(st.dates(min_value=vault_keys.datetime(1970, 1, 1).date(), max_value=vault_keys.datetime(2098, 12, 31).date()))
def test_a_period_ends_where_the_next_begins(date) -> None:
    moment = vault_keys.datetime(date.year, date.month, date.day, tzinfo=vault_keys.UTC)
    period = period_of(int(moment.timestamp()) * 1000)
    end_ms = end_of_period_ms(period)
    assert period_of(end_ms - 1) == period
    assert period_of(end_ms) > period


# -- crashes -----------------------------------------------------------------------------------------------------------


class Crashed(BaseException):
    """The machine stopped here."""


@contextmanager
def crashing_at(monkeypatch: pytest.MonkeyPatch, step: int, *, before: bool) -> Iterator[None]:
    """Stop before or after the durable step of this number: commits, appended keys, key files put in their place."""
    steps = itertools.count()

    def durable(work):
        def run(*arguments):
            is_here = next(steps) == step
            if is_here and before:
                raise Crashed
            result = work(*arguments)
            if is_here:
                raise Crashed
            return result

        return run

    original = vault_files.VaultFiles.transaction

    @contextmanager
    def transaction(files: vault_files.VaultFiles):
        with original(files) as db:
            yield db
            is_here = next(steps) == step
            if is_here and before:
                raise Crashed
        if is_here:
            raise Crashed

    with monkeypatch.context() as patch:
        patch.setattr(vault_files.VaultFiles, "transaction", transaction)
        patch.setattr(vault_keys.KeyFile, "ensure", durable(vault_keys.KeyFile.ensure))
        patch.setattr(vault_keys, "_write_synced", durable(vault_keys._write_synced))
        patch.setattr(vault_keys.KeyFile, "_replace", durable(vault_keys.KeyFile._replace))
        yield


def crashes(monkeypatch: pytest.MonkeyPatch, step: int, before: bool, work: Callable[[], object]) -> bool:
    """Tell whether ``work`` comes as far as this step, and stop it there."""
    try:
        with crashing_at(monkeypatch, step, before=before):
            work()
    except Crashed:
        return True
    return False


def shred_anna(vault: Vault) -> None:
    """Forget a subject, of whom one record is under a hold."""
    vault.erasure.shred_subject(ANNA, reason="asked to", now_ms=NOW_MS)


def retain(vault: Vault) -> None:
    """Forget a month, of which one record is under a hold."""
    vault.erasure.apply_retention(end_of_period_ms("2026-11") + DAY_MS)


def release(vault: Vault) -> None:
    """Let go of what was held back from both."""
    if vault.erasure.holds.all()[0].released_ms is None:
        vault.erasure.holds.release(1, who="legal", now_ms=NOW_MS)


BEFORE = [ALL, ALL, ALL, ALL]
WAYS = {
    "subject": ([], shred_anna, [BEFORE, [{"callee"}, ALL, ALL, {"callee"}]]),
    "retention": ([], retain, [BEFORE, [NONE, ALL, NONE, ALL]]),
    "release": ([shred_anna, retain], release, [[NONE, ALL, NONE, {"callee"}], [NONE, NONE, NONE, {"callee"}]]),
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_crash_at_any_step_is_as_if_it_came_before_or_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, before: bool
) -> None:
    """Also where a second crash comes while the first is mended."""
    first, work, outcomes = WAYS[way]
    seen = []
    for step in range(100):
        keeper = Keeper(tmp_path / str(step))
        keeper.put(1, ANNA, BEN)
        keeper.put(2, ANNA, CLEO)
        keeper.put(3, CLEO, BEN)
        keeper.put(4, ANNA, BEN, DECEMBER_MS)
        keeper.vault.erasure.set_retain_days(1)
        keeper.vault.erasure.holds.place(reason="dispute", who="billing", now_ms=NOW_MS, records=[key(2)])
        for earlier in first:
            earlier(keeper.vault)
        has_crashed = crashes(monkeypatch, step, before, partial(work, keeper.vault))
        if has_crashed:
            crashes(monkeypatch, 1, not before, keeper.reopen)
        keeper.reopen()
        seen.append(keeper.all_shown())
        assert seen[-1] in outcomes
        assert all(one.is_done for one in keeper.vault.erasure.log())
        keeper.put(9, ANNA, BEN)
        assert keeper.shown(9) == ALL
        keeper.vault.close()
        if not has_crashed:
            break
    assert step > 5
    assert (seen[0] == outcomes[0]) == before
    assert seen[1:] == [outcomes[1]] * step


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_asked_in_whatever_order_the_vault_shows_what_a_plain_list_says(tmp_path_factory, data) -> None:
    """Against a list of records in memory: which fields of which record are left, and that each proves itself."""
    keeper = Keeper(tmp_path_factory.mktemp("model") / "vault")
    model: dict[int, tuple[str, str, set[str]]] = {}
    due: dict[int, set[str]] = {}
    held: set[int] = set()
    holds: dict[int, int] = {}
    for turn in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["put", "put", "shred", "hold", "release", "reopen", "again"]))
        if action == "put":
            caller, callee = data.draw(st.tuples(st.sampled_from([ANNA, BEN, CLEO]), st.sampled_from([ANNA, BEN])))
            keeper.put(turn, caller, callee)
            model[turn] = (caller, callee, set(ALL))
        elif action == "again" and model:
            number = data.draw(st.sampled_from(sorted(model)))
            keeper.put(number, *model[number][:2])
            model[number] = (*model[number][:2], set(ALL))
            due.pop(number, None)
        elif action == "shred":
            party = data.draw(st.sampled_from([ANNA, BEN, CLEO]))
            keeper.vault.erasure.shred_subject(party, reason="asked to", now_ms=NOW_MS)
            for number, (caller, callee, left) in model.items():
                gone = {side for side, who in (("caller", caller), ("callee", callee)) if who == party}
                if gone and number in held:
                    due.setdefault(number, set()).update(gone)
                elif gone:
                    left.difference_update(gone, PRIVATE_FIELDS[2:])
        elif action == "hold" and model:
            number = data.draw(st.sampled_from(sorted(model)))
            if number not in held:
                values = {"reason": "dispute", "who": "billing", "now_ms": NOW_MS, "records": [key(number)]}
                holds[number] = keeper.vault.erasure.holds.place(**values).number
                held.add(number)
        elif action == "release" and held:
            number = data.draw(st.sampled_from(sorted(held)))
            keeper.vault.erasure.holds.release(holds.pop(number), who="legal", now_ms=NOW_MS)
            held.remove(number)
            gone = due.pop(number, set())
            model[number][2].difference_update(gone | ({*PRIVATE_FIELDS[2:]} if gone else set()))
        elif action == "reopen":
            keeper.reopen()
        assert {number: keeper.shown(number) for number in model} == {
            number: left for number, (_, _, left) in model.items()
        }
    keeper.vault.close()
