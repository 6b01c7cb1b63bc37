"""An audit that was interrupted goes on from its file to the report of one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import index as index_module
from audit import resume as resume_module
from audit.index import AuditIndex
from audit.raw import Head, RawBlock
from audit.report import AuditReport
from audit.resume import MAGIC, ResumeFile
from audit.source import ChainSource, DirectorySource, ExportSource
from audit.spill import Spill, SpillType
from audit.verify import KnownHead, verify_chain
from ledger.errors import ConfigError, StoreError
from ledger.genesis import Genesis
from ledger.record_index import Overlay
from tests.audit.chains import FIVE, Cluster, govern, make_genesis, rules_of
from tests.audit.tamper import Parts, take_apart
from tests.audit.test_verify import CONTENTS, END, H

CHANGES = CONTENTS | END


class Stopped(BaseException):
    """What a test throws into an audit, as Ctrl-C would be."""


@pytest.fixture(autouse=True)
def saved_after_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_module, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(resume_module, "SAVE_SHARE", 0)


def audit(source: ChainSource, genesis: Genesis, file: Path | None, **options: object) -> AuditReport:
    if file is None:
        return verify_chain(source, genesis, rules=rules_of(genesis), **options)
    with ResumeFile(file, genesis) as resume:
        return verify_chain(source, genesis, rules=rules_of(genesis), resume=resume, **options)


def stop_after(source: ChainSource, genesis: Genesis, file: Path, height: int, **options: object) -> None:
    def stop(progress: object) -> None:
        if progress.height == height:
            raise Stopped

    with pytest.raises(Stopped):
        audit(source, genesis, file, on_progress=stop, **options)


def saved_height(file: Path, genesis: Genesis) -> int:
    with ResumeFile(file, genesis) as resume:
        return 0 if resume.saved is None else resume.saved.point.height


@pytest.mark.parametrize("height", [1, 5, 8, H, 13, 14])
def test_it_goes_on_to_the_same_report(height: int, parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "audit.state"
    stop_after(parts.to_source(), parts.genesis, file, height)
    assert saved_height(file, parts.genesis) == height
    told: list[int] = []
    report = audit(parts.to_source(), parts.genesis, file, on_progress=lambda p: told.append(p.height))
    assert told == list(range(height + 1, 15))
    assert report.to_json() == audit(parts.to_source(), parts.genesis, None).to_json()
    # Once through, there is nothing left to do, and the verdict is the same again.
    assert audit(parts.to_source(), parts.genesis, file).to_json() == report.to_json()


@pytest.mark.parametrize("name", list(CHANGES)[::3])
def test_a_tampered_chain_has_the_same_report(name: str, parts: Parts, tmp_path: Path) -> None:
    change, height, _ = CHANGES[name]
    expected_at = min(height, H) - 2
    change(parts)
    file = tmp_path / "audit.state"
    if expected_at > 0:
        stop_after(parts.to_source(), parts.genesis, file, expected_at)
    whole = audit(parts.to_source(), parts.genesis, None)
    assert audit(parts.to_source(), parts.genesis, file).to_json() == whole.to_json()
    # And again, from where the difference stopped it.
    assert audit(parts.to_source(), parts.genesis, file).to_json() == whole.to_json()


def test_a_directory_with_all_its_rows(data_dir: Path, genesis: Genesis, tmp_path: Path) -> None:
    file = tmp_path / "audit.state"
    with closing(DirectorySource(data_dir)) as source:
        stop_after(source, genesis, file, 6)
    with closing(DirectorySource(data_dir)) as source:
        report = audit(source, genesis, file)
    with closing(DirectorySource(data_dir)) as source:
        assert report.to_json() == audit(source, genesis, None).to_json()
    assert report.checked_rows > 14


@pytest.mark.parametrize("at", range(1, 59, 6))
def test_a_chain_that_governs(at: int, governed: tuple[Parts, AuditReport], tmp_path: Path) -> None:
    """Elections, keys that change, sets that change, a member struck: all of it is in the state that is saved."""
    parts, whole = governed
    file = tmp_path / "audit.state"
    stop_after(parts.to_source(), parts.genesis, file, at)
    assert audit(parts.to_source(), parts.genesis, file).to_json() == whole.to_json()


@pytest.fixture(scope="module")
def governed() -> tuple[Parts, AuditReport]:
    cluster = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    govern(cluster)
    parts = take_apart(cluster.peers[0].store, cluster.genesis)
    return parts, verify_chain(parts.to_source(), cluster.genesis, rules=rules_of(cluster.genesis))


def test_a_chain_that_grew_is_gone_on_with(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "audit.state"
    longer = parts.copy()
    parts.head = Head(1, 11, parts.blocks[10].stated_id)
    del parts.blocks[11:]
    audit(parts.to_source(), parts.genesis, file)
    assert saved_height(file, parts.genesis) == 11
    assert audit(longer.to_source(), parts.genesis, file).to_json() == (
        audit(longer.to_source(), parts.genesis, None).to_json()
    )
    # And one that shrank is found out.
    found = audit(parts.to_source(), parts.genesis, file).first_difference
    assert (found.height, found.what) == (12, "the chain was cut")
    assert parts.blocks[10].stated_id.hex() not in (found.expected, found.actual)
    assert longer.blocks[13].stated_id.hex() in found.expected


def test_other_blocks_below_are_no_parents(parts: Parts, tmp_path: Path) -> None:
    """A chain that differs below the saved height does not fit above it."""
    file = tmp_path / "audit.state"
    stop_after(parts.to_source(), parts.genesis, file, 8)
    CONTENTS["resealed_with_other_right_contents"][0](parts)
    found = audit(parts.to_source(), parts.genesis, file).first_difference
    assert (found.height, found.field) == (H + 1, "parent_id")


def test_what_is_known_must_have_been_looked_for(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "audit.state"
    known = [KnownHead(3, parts.blocks[2].stated_id)]
    stop_after(parts.to_source(), parts.genesis, file, 8, known=known)
    stop_after(parts.to_source(), parts.genesis, file, 10)
    assert audit(parts.to_source(), parts.genesis, file, known=known).ok
    with pytest.raises(ConfigError, match="the saved audit is past height 4"):
        audit(parts.to_source(), parts.genesis, file, known=[KnownHead(4, parts.blocks[3].stated_id)])
    last = [KnownHead(14, parts.blocks[13].stated_id)]
    assert audit(parts.to_source(), parts.genesis, file, known=last).ok
    wrong = audit(parts.to_source(), parts.genesis, file, known=[KnownHead(14, bytes(32))]).first_difference
    assert (wrong.height, wrong.field) == (14, "block_id")


# -- the file --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_none(parts: Parts, tmp_path: Path, data_dir: Path) -> None:
    file = tmp_path / "audit.state"
    genesis = parts.genesis
    file.write_bytes(b"something else altogether, longer than what a state begins with, and no state")
    with pytest.raises(ConfigError, match="not the state of an audit"):
        ResumeFile(file, genesis)
    file.write_bytes(MAGIC + b"\0\7" + bytes(32))
    with pytest.raises(ConfigError, match="of another release"):
        ResumeFile(file, genesis)
    file.write_bytes(MAGIC + b"\0\1" + bytes(32))
    with pytest.raises(ConfigError, match="of another chain"):
        ResumeFile(file, genesis)
    file.write_bytes(MAGIC[:5])  # a crash as it was made
    stop_after(parts.to_source(), genesis, file, 2)
    with ResumeFile(file, genesis), pytest.raises(ConfigError, match="another audit has it open"):
        ResumeFile(file, genesis)
    with closing(DirectorySource(data_dir)) as source, pytest.raises(ConfigError, match="another kind of source"):
        audit(source, genesis, file)


def test_a_crash_while_saving_leaves_the_state_before(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "audit.state"
    stop_after(parts.to_source(), parts.genesis, file, 6)
    before = file.stat().st_size
    stop_after(parts.to_source(), parts.genesis, file, 7)
    after, whole = file.read_bytes(), audit(parts.to_source(), parts.genesis, None).to_json()
    for size in (before, before + 1, before + 40, len(after) - 1, len(after)):
        file.write_bytes(after[:size])
        assert saved_height(file, parts.genesis) == (7 if size == len(after) else 6)
        assert file.stat().st_size == (size if size == len(after) else before)
        assert audit(parts.to_source(), parts.genesis, file).to_json() == whole


def test_damage_is_no_verdict(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that come back wrong end the audit without a verdict; a state that does goes back to the one before."""
    file = tmp_path / "audit.state"
    genesis = parts.genesis
    stop_after(parts.to_source(), genesis, file, 8)
    data = bytearray(file.read_bytes())
    with ResumeFile(file, genesis) as resume:
        states = [offset for offset, kind, _ in resume.spill.scan() if kind is SpillType.STATE]
        keys = [offset for offset, kind, _ in resume.spill.scan() if kind is SpillType.KEYS]
    data[states[-1] + 30] ^= 1
    file.write_bytes(data)
    assert saved_height(file, genesis) == 7
    data[states[-1] + 30] ^= 1
    for offset in keys:
        data[offset + 30] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="Delete the file and audit from the start") as caught:
        audit(parts.to_source(), genesis, file)
    assert type(caught.value) is StoreError


def test_a_frame_of_keys_under_another_minute_is_damage(parts: Parts, tmp_path: Path) -> None:
    """Keys that lie under another minute are not asked for: nobody would miss them, and a void record would count."""
    file = tmp_path / "audit.state"
    stop_after(parts.to_source(), parts.genesis, file, 8)
    data = file.read_bytes()
    with ResumeFile(file, parts.genesis) as resume:
        keys = [offset for offset, kind, _ in resume.spill.scan() if kind is SpillType.KEYS]
    for offset in keys:
        file.write_bytes(data[: offset + 10] + bytes([data[offset + 10] ^ 1]) + data[offset + 11 :])
        with pytest.raises(StoreError, match="not those that were written"):
            audit(parts.to_source(), parts.genesis, file)


# -- the index ---------------------------------------------------------------------------------------------------------

KEYS = [bytes([n]) * 16 for n in range(12)]
blocks = st.lists(st.dictionaries(st.integers(0, 6), st.sets(st.sampled_from(KEYS), min_size=1)), max_size=8)


@given(blocks, st.integers(0, 20), st.sets(st.integers(0, 8)))
@settings(deadline=None)
def test_the_index_is_found_again(chain: list[dict[int, set[bytes]]], resident_max: int, saves: set[int]) -> None:
    expected: dict[int, set[bytes]] = {}
    before, index_module.RESIDENT_KEYS_MAX = index_module.RESIDENT_KEYS_MAX, resident_max
    spill = Spill()
    index = AuditIndex(spill)
    try:
        for height, minutes in enumerate(chain, start=1):
            overlay = Overlay()
            for minute, keys in minutes.items():
                new = keys - expected.get(minute, set())
                overlay.add(minute, new)
                expected.setdefault(minute, set()).update(new)
            index.count(height, overlay, {bytes([height]) * 32: 60_000 * height}, 60_000 * (height - 2))
            if height in saves:
                index.save(spill)
                end = spill.append(SpillType.STATE, b"")
                spill.flush()
                index = AuditIndex(spill)
                index.restore(spill, end, 60_000 * (height - 2))
        assert {minute: set(index.minute(minute)) for minute in range(8)} == {
            minute: expected.get(minute, set()) for minute in range(8)
        }
        known = {height for height in range(1, 9) if index.height_of(bytes([height]) * 32) is not None}
        assert known == {height for height in range(1, len(chain) + 1) if height + 1 > len(chain) - 2}
    finally:
        index_module.RESIDENT_KEYS_MAX = before
        spill.close()


def test_an_export_is_read_past(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "chain.export"
    file.write_bytes(parts.to_export())
    with file.open("rb") as opened, closing(ExportSource(opened, name="chain.export")) as source:
        found: Iterator[RawBlock] = source.blocks(12)
        assert [block.height for block in found] == [12, 13, 14]
        assert source.finality() == parts.finality
    shutil.rmtree(tmp_path)
