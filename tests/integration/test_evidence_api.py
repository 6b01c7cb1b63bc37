"""Evidence as the API shows it, on its whole way, and as ``ledgerctl evidence`` prints and checks it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from consensus.votes import Checkpoint, Link, digest_of
from ledger.block import SealedHeader, Vote, block_id_of
from ledger.codec import encode
from ledger.payloads import Evidence
from ledger.readable import from_readable
from ledger.transaction import Kind, make_transaction
from node.cli.evidence import explain
from node.cli.ledgerctl import app as ledgerctl
from tests.integration.api_node import KEY, MEMBER, NOW_MS, ApiNode
from tests.integration.test_api import Api, serving


def votes_of(node: ApiNode, *links: Link) -> list[Vote]:
    """Return votes of the chain's only producer."""
    return [Vote(*k.source, *k.target, KEY.key_id, KEY.sign(digest_of(node.chain_id, k))) for k in links]


def commit_fault(node: ApiNode, *, fault: str) -> None:
    """Let the producer sign what it must not."""
    here = Checkpoint(0, node.chain_id)
    if fault == "double-block":
        node.tick(11)
        block = node.engine.head.block
        assert block is not None
        header = type(block.sealed.header)(
            **{n: getattr(block.sealed.header, n) for n in block.sealed.header.__struct_fields__}
            | {"tx_root": bytes(32)}
        )
        node.engine.check_header(SealedHeader(header, KEY.sign(block_id_of(header)), block.sealed.certificate))
        return
    links = [Link(here, Checkpoint(9, bytes([tag]) * 32)) for tag in (1, 2)]
    if fault == "surrounding-vote":
        links = [
            Link(Checkpoint(5, b"\x05" * 32), Checkpoint(6, b"\x06" * 32)),
            Link(here, Checkpoint(9, b"\x09" * 32)),
        ]
    for vote in votes_of(node, *links):
        node.engine.receive_vote(vote, now_ms=node.now_ms)


@pytest.fixture
async def api(tmp_path: Path) -> Any:
    async with serving(tmp_path) as api:
        yield api


async def show(api: Api, *arguments: str) -> tuple[int, str]:
    """Run ``ledgerctl evidence`` against the node; return its status and what it printed."""
    url = str(api.client.make_url("")).rstrip("/")
    done = await asyncio.to_thread(CliRunner().invoke, ledgerctl, ["evidence", *arguments, "--url", url])
    return done.exit_code, done.output


async def test_nobody_is_struck(api: Api) -> None:
    assert await api.get("/v1/evidence") == (200, {"chain_id": api.node.chain_id.hex(), "evidence": []})
    assert await show(api) == (0, "no evidence: nobody is struck\n")
    assert await show(api, MEMBER) == (0, f"no evidence against {MEMBER}\n")


async def test_evidence_from_a_vote_to_a_final_block(api: Api) -> None:
    node = api.node
    commit_fault(node, fault="double-vote")
    (kept,) = (await api.get("/v1/evidence"))[1]["evidence"]
    assert (kept["state"], kept["member_id"], kept["fault"], kept["height"]) == ("kept", MEMBER, "double-vote", 9)
    evidence = from_readable(kept["evidence"], Evidence)
    assert list(node.engine.faults.kept.values()) == [evidence]
    transaction = make_transaction(
        [encode(evidence)],
        key=KEY,
        member_id=MEMBER,
        chain_id=node.chain_id,
        created_ms=node.now_ms,
        expires_ms=NOW_MS + 600_000,
        kind=Kind.EVIDENCE,
    )
    (submitted,) = await node.submit_transactions([encode(transaction)])
    (pending,) = (await api.get("/v1/evidence"))[1]["evidence"]
    assert (pending["state"], pending["tx_id"], pending["accuser"]) == ("pending", submitted.tx_id.hex(), MEMBER)
    node.tick(1)
    states = [(await api.get("/v1/evidence"))[1]["evidence"][0]["state"]]
    for _ in range(3):
        node.tick(1)
        states.append((await api.get("/v1/evidence"))[1]["evidence"][0]["state"])
    assert states[0] == "included"
    assert states[-1] == "final"
    (final,) = (await api.get(f"/v1/evidence?member={MEMBER}"))[1]["evidence"]
    assert (final["block_height"], final["tx_id"], final["evidence"]) == (1, pending["tx_id"], kept["evidence"])
    assert (await api.get("/v1/evidence?member=carrier-b"))[1]["evidence"] == []
    status, text = await show(api)
    assert status == 0
    assert f"{MEMBER}: double-vote, final in block 1, handed in by {MEMBER}" in text


@pytest.mark.parametrize(
    ("fault", "columns", "sentence"),
    [
        ("double-vote", ("one vote", "other vote"), "voted twice for height 9"),
        ("surrounding-vote", ("one vote", "other vote"), "voted from 0 to 9, around its own vote from 5 to 6"),
        ("double-block", ("one block", "other block"), "sealed two blocks in slot"),
    ],
)
async def test_the_two_messages_stand_side_by_side(
    api: Api, fault: str, columns: tuple[str, str], sentence: str
) -> None:
    commit_fault(api.node, fault=fault)
    status, text = await show(api)
    assert status == 0, text
    assert f"{MEMBER}: {fault}, found by this node, not handed in yet" in text
    (titles,) = [line for line in text.splitlines() if columns[0] in line]
    assert columns[1] in titles
    assert KEY.public_key.hex() in text
    assert f"Both signatures are good, by this key. {MEMBER} {sentence}" in text
    assert json.loads((await show(api, "--json"))[1]) == (await api.get("/v1/evidence"))[1]


@pytest.mark.parametrize("lie", ["signature", "height", "same twice", "other key"])
async def test_a_node_that_lies_is_found_out(api: Api, lie: str) -> None:
    """The command believes no node: it checks what it is shown."""
    node = api.node
    commit_fault(node, fault="double-vote")
    ((key_id, evidence),) = node.engine.faults.kept.items()
    one, other = evidence.votes
    forged = {
        "signature": [one, Vote(other.s_height, other.s_id, other.t_height, other.t_id, other.key_id, one.signature)],
        "height": [one, Vote(other.s_height, other.s_id, 10, other.t_id, other.key_id, other.signature)],
        "same twice": [one, one],
        "other key": [one, Vote(other.s_height, other.s_id, other.t_height, other.t_id, bytes(20), other.signature)],
    }[lie]
    node.engine.faults.kept[key_id] = Evidence(evidence.public_key, sorted(forged, key=encode), [])
    status, text = await show(api)
    assert status == 1
    assert "error: " in text
    assert "Both signatures are good" not in text


def test_what_is_proven_is_said_in_a_sentence() -> None:
    node = ApiNode()
    commit_fault(node, fault="surrounding-vote")
    (evidence,) = node.engine.faults.kept.values()
    assert explain(evidence, "carrier-a").startswith("carrier-a voted from 0 to 9, around its own vote from 5 to 6;")
