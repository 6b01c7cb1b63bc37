"""A running agent, and a node that takes records in, keep to their vault's retention policy; no clock decides alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ledger.commitment import PrivatePart, make_private_part
from node.clock import now_ms
from node.config import Address, NodeConfig
from node.development import make_development_chain
from node.keyfile import read_secret
from node.retention import forget_what_is_over
from node.runtime import running_node
from telephony.dead_letters import DeadLetters, dead_letter
from telephony.vault import Vault, VaultEntry
from telephony.vault_keys import DAY_MS, period_of
from tests.integration.test_agent import FakeNode, agent_on, configure, serving, until
from tests.telephony.agent_kit import SECRET, World

DAYS = 90
OLD, HELD, NEW = (bytes([number]) * 16 for number in range(3))
AGE_DAYS = {OLD: 400, HELD: 400, NEW: 1}


def part_of(number: int) -> PrivatePart:
    """Return a private part."""
    return make_private_part({"caller": f"+4477009001{number:02}"}, [bytes([i]) * 32 for i in range(7)])


def fill(directory: Path, secret: bytes = SECRET) -> None:
    """Make a vault with an old record, another under a hold, a new one, and a policy."""
    vault = Vault(directory, secret)
    entries = [VaultEntry(key, now_ms() - days * DAY_MS, b"c" * 32, part_of(key[0])) for key, days in AGE_DAYS.items()]
    vault.put_many(entries)
    vault.erasure.set_retain_days(DAYS)
    vault.erasure.holds.place(reason="dispute", who="billing", now_ms=now_ms(), records=[HELD])
    vault.close()


def parts_in(directory: Path, secret: bytes = SECRET) -> dict[bytes, bool]:
    """Return which records still have their private part."""
    vault = Vault(directory, secret)
    kept = {key: vault.get(key) is not None for key in AGE_DAYS}
    vault.close()
    return kept


async def test_months_whose_time_is_over_are_forgotten(tmp_path: Path) -> None:
    """Among the dead letters too."""
    fill(tmp_path / "spool" / "vault")
    times_ms = [now_ms() - days * DAY_MS for days in (400, 1)]
    letters = DeadLetters(tmp_path / "spool")
    letters.add([dead_letter(b"%d" % at_ms, stage="intake", reason="x", time_ms=at_ms, kind=1) for at_ms in times_ms])
    month = period_of(now_ms() - 400 * DAY_MS)
    async with serving(FakeNode(World(tmp_path))) as url, agent_on(configure(tmp_path, url)) as (agent, _):
        await until(agent._vault.erasure.log)
        (done,) = agent._vault.erasure.log()
        assert (done.kind, done.what, done.records, done.held) == ("period", month, 1, 1)
        assert done.reason == f"retention: kept {DAYS} days after its month"
        await until(lambda: agent.dead == 1)
    letters.refresh()
    assert [letter.time_ms for letter in letters] == times_ms[1:]
    letters.close()
    assert parts_in(tmp_path / "spool" / "vault") == {OLD: False, HELD: True, NEW: True}


async def test_a_node_that_takes_records_in_itself_keeps_to_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_development_chain(NodeConfig(data=tmp_path / "data", dev=True), now_ms()).config
    assert chain.member_secret is not None
    secret = read_secret(chain.member_secret)
    fill(chain.data / "vault", secret)
    looked: list[int] = []

    def look(vault: Vault, *, chain_ms: int) -> None:
        forget_what_is_over(vault, chain_ms=chain_ms)
        looked.append(chain_ms)

    monkeypatch.setattr("node.retention.forget_what_is_over", look)
    config = replace(chain, listen=Address("127.0.0.1", 0), api=Address("127.0.0.1", 0))
    async with running_node(config):
        await until(lambda: looked)
    assert abs(looked[0] - now_ms()) < DAY_MS
    assert parts_in(chain.data / "vault", secret) == {OLD: False, HELD: True, NEW: True}


def test_neither_the_clock_nor_the_chain_decides_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    vault = Vault(tmp_path, SECRET)
    long_ago = now_ms() - 380 * DAY_MS
    forget_what_is_over(vault, chain_ms=long_ago)
    monkeypatch.setattr("node.retention.now_ms", lambda: long_ago)
    forget_what_is_over(vault, chain_ms=now_ms())
    assert vault.erasure.log() == []
    monkeypatch.undo()
    forget_what_is_over(vault, chain_ms=now_ms())
    assert len(vault.erasure.log()) == 1
    vault.close()


@pytest.mark.parametrize("who", ["no node", "its own", "the node's"])
async def test_no_clock_decides_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """Without a node's time nothing is forgotten, nor where one of the two says that it is not over."""
    fill(tmp_path / "spool" / "vault")
    async with agent_on(configure(tmp_path)) as (agent, _):
        if who == "its own":
            monkeypatch.setattr("telephony.agent.now_ms", lambda: now_ms() - 380 * DAY_MS)
        if who != "no node":
            agent._clock.told(now_ms() if who == "its own" else now_ms() - 380 * DAY_MS)
        agent._forget_what_is_over()
        assert agent._vault.erasure.log() == []
        agent._clock.told(now_ms())
        monkeypatch.undo()
        agent._forget_what_is_over()
        assert len(agent._vault.erasure.log()) == 1
