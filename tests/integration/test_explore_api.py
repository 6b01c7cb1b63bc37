"""What the explorer asks of a node, over a real socket: figures, blocks with names, search, and the page itself."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from ledger.cdr import record_key_of
from ledger.codec import encode
from ledger.readable import to_readable
from ledger.store import Space, WriteBatch
from ledger.transaction import tx_id_of
from ledger.validation import totals_of
from node.api import ApiParts, make_app
from node.api.explore import SURVEY
from node.api.page import POLICY, files
from node.survey import Survey
from telephony.synthetic import Traffic, generate_records
from tests.integration.api_node import KEY, MEMBER, NOW_MS, ApiNode, sign
from tests.integration.openapi_check import check_answer

RECORDS = list(islice(generate_records(Traffic(seed=3, start_ms=NOW_MS - 3 * 3_600_000)), 300))


class Api:
    """A client of a node with three transactions of 100 records, of which the last one has ten that came before."""

    def __init__(self, client: TestClient, node: ApiNode, txs: list[Any]) -> None:
        self.client, self.node, self.txs = client, node, txs
        self.tx_ids = [tx_id_of(tx.envelope).hex() for tx in txs]

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.client.get(path) as response:
            value = await response.json(content_type=None)
            check_answer("get", path, response.status, response.content_type, value)
            return response.status, value

    async def good(self, path: str) -> Any:
        status, value = await self.get(path)
        assert status == 200
        return value


@pytest.fixture
async def api():
    node = ApiNode()
    parts = [RECORDS[:100], RECORDS[100:200], [*RECORDS[200:290], *RECORDS[:10]]]
    txs = [sign([encode(record) for record in part]) for part in parts]
    app = make_app(node, ApiParts(now_ms=node.clock))
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        for tx in txs:
            (result,) = await node.submit_transactions([encode(tx)])
            assert result.error is None
            node.tick(2)
        node.tick(1)
        yield Api(client, node, txs)


async def test_the_overview_adds_up_what_is_final(api):
    seen = await api.good("/v1/explore")
    counted = RECORDS[:290]
    totals = totals_of(counted)
    for period in ("hour", "day", "all"):
        tally = seen["periods"][period]
        assert (tally["records"], tally["void"], tally["transactions"]) == (290, 10, 3)
        assert tally["co2_ug"] == totals.co2_ug
        assert tally["read"]["records"] == 290
        assert tally["read"]["answered"] == sum(record.answer_ms > 0 for record in counted)
        assert tally["read"]["talk_ms"] == tally["talk_ms"] == totals.talk_ms
        assert sum(zone["co2_ug"] for zone in tally["read"]["zones"]) == totals.co2_ug
        assert [(m["count"], m["sum_milli"]) for m in tally["mos"]] == [(m.count, m.sum_milli) for m in totals.mos]
        assert [sum(m["bins"]) for m in tally["read"]["mos"]] == [m["count"] for m in tally["read"]["mos"]]
    assert sum(minute["records"] for minute in seen["minutes"]) == 290
    assert seen["records_last_minute"] == 290
    final = api.node.engine.final.height
    assert seen["counted"] == {
        "from_height": 1,
        "from_ms": api.node.genesis.genesis_time_ms + 1_000 * (await _slot_of(api, 1)),
        "to_height": final,
        "is_looking_back": False,
    }
    assert seen["final"]["height"] == final
    assert [block["height"] for block in seen["blocks"]] == list(range(api.node.engine.head.height, 0, -1))[:12]
    turn = api.node.engine.head.chain.state.turns.turns[0]
    assert seen["producers"] == [
        {"member_id": MEMBER, "key_id": KEY.key_id.hex(), "sealed": turn.sealed, "missed": turn.missed, "votes": True}
    ]
    sealed = {slot["slot"]: slot["height"] for slot in seen["slots"]}
    assert {slot: height for slot, height in sealed.items() if height} == {
        block["slot"]: block["height"] for block in seen["blocks"] if block["slot"] in sealed
    }


async def test_lists_of_blocks_read_no_bodies(api, monkeypatch):
    """A body has up to 65,535 transactions, is decoded on the event loop, and nothing of it is shown there."""
    before = [await api.good(path) for path in ("/v1/explore", "/v1/explore/blocks")]
    get = api.node.store.get

    def without_bodies(row_key: bytes) -> bytes | None:
        assert not row_key.startswith(Space.BODY_LIST.value)
        return get(row_key)

    monkeypatch.setattr(api.node.store, "get", without_bodies)
    assert [await api.good(path) for path in ("/v1/explore", "/v1/explore/blocks")] == before


async def test_a_transaction_that_is_damaged_does_not_hide_the_rest(api):
    """The figures stand still, and the log says why; head, finality, producers and blocks are shown all the same."""
    tx = sign([encode(record) for record in RECORDS[290:]])
    await api.node.submit_transactions([encode(tx)])
    api.node.tick(3)
    api.node.store.write(WriteBatch([], [(tx_id_of(tx.envelope), b"\xc1")]))
    final = api.node.engine.final.height
    seen = await api.good("/v1/explore")
    assert (seen["final"]["height"], seen["blocks"][0]["height"]) == (final, api.node.engine.head.height)
    assert seen["counted"]["to_height"] < final


async def _slot_of(api: Api, height: int) -> int:
    return int((await api.good(f"/v1/blocks/{height}"))["header"]["slot"])


async def test_a_chain_without_blocks_has_an_overview():
    async with TestClient(TestServer(make_app(ApiNode(), ApiParts(now_ms=lambda: NOW_MS)))) as client:
        async with client.get("/v1/explore") as response:
            seen = await response.json()
            check_answer("get", "/v1/explore", response.status, response.content_type, seen)
        assert (seen["periods"]["all"]["records"], seen["blocks"], seen["slots"]) == (0, [], [])
        assert seen["counted"]["from_height"] == 0


async def test_what_was_final_at_the_start_is_counted_in_the_background(api):
    before = (await api.good("/v1/explore"))["periods"]["all"]
    survey = Survey(api.node.store, api.node.genesis, api.node.engine.final.height)
    assert survey.look(lambda statistics, counted: (statistics.all.records, counted.is_looking_back)) == (0, True)
    while survey.step():
        pass
    records, talk_ms, counted = survey.look(
        lambda statistics, counted: (statistics.all.records, statistics.all.read.talk_ms, counted)
    )
    assert (records, talk_ms) == (before["records"], before["read"]["talk_ms"])
    assert (counted.from_height, counted.is_looking_back) == (1, False)
    survey.close()
    api.node.tick(3)
    assert survey.step() is False


async def test_of_a_large_block_some_transactions_are_read(api, monkeypatch):
    monkeypatch.setattr("node.survey.BLOCK_RECORDS_READ_MAX", 150)
    txs = [sign([encode(record)], created_ms=NOW_MS + place) for place, record in enumerate(RECORDS[290:300])]
    fresh = list(islice(generate_records(Traffic(seed=9, start_ms=NOW_MS - 3 * 3_600_000)), 300))
    txs += [sign([encode(r) for r in fresh[i : i + 50]], created_ms=NOW_MS + 100 + i) for i in range(0, 300, 50)]
    before = (await api.good("/v1/explore"))["periods"]["all"]
    for result in await api.node.submit_transactions([encode(tx) for tx in txs]):
        assert result.error is None
    api.node.tick(3)
    after = (await api.good("/v1/explore"))["periods"]["all"]
    assert after["records"] - before["records"] == 310
    items = {tx_id_of(tx.envelope).hex(): len(tx.items) for tx in txs}
    blocks = [await api.good(f"/v1/blocks/{height}") for height in range(1, api.node.engine.final.height + 1)]
    (block,) = [b for b in blocks if b["transactions"] and b["transactions"][0]["tx_id"] in items]
    # Every third transaction is about 150 of 310 records, beginning at a place of the block's own.
    chosen = [items[tx["tx_id"]] for tx in block["transactions"][block["header"]["height"] % 3 :: 3]]
    assert after["read"]["records"] - before["read"]["records"] == sum(chosen) <= 200


async def test_blocks_go_downwards_in_pages(api):
    head = api.node.engine.head.height
    assert [b["height"] for b in (await api.good("/v1/explore/blocks"))["blocks"]] == list(range(head, 0, -1))
    assert [b["height"] for b in (await api.good("/v1/explore/blocks?before=3&count=1"))["blocks"]] == [2]
    assert (await api.good("/v1/explore/blocks?before=1"))["blocks"] == []
    assert [b["height"] for b in (await api.good("/v1/explore/blocks?before=99999&count=2"))["blocks"]] == [
        head,
        head - 1,
    ]
    assert (await api.good("/v1/explore/blocks?count=0"))["blocks"] == []
    for wrong in ("before=x", "count=-1", "before=1.5"):
        assert (await api.get(f"/v1/explore/blocks?{wrong}"))[0] == 400


async def test_a_block_names_who_sealed_and_signed_it(api):
    block = await api.good("/v1/explore/blocks/1")
    assert block["producer"] == MEMBER
    assert block["certified"]["parts"] == [{"set_id": 0, "signed": [MEMBER], "not_signed": [], "quorum": 1}]
    assert (block["certified"]["height"], block["certified"]["block_id"]) == (1, block["block_id"])
    (tx,) = block["transactions"]
    assert tx == {
        "tx_id": api.tx_ids[0],
        "kind": "records",
        "member_id": MEMBER,
        "created_ms": NOW_MS,
        "items": 100,
        "void": 0,
    }
    assert (await api.good("/v1/explore/blocks/1?from=1"))["transactions"] == []
    assert (await api.good("/v1/explore/blocks/" + block["block_id"]))["header"] == block["header"]
    assert (await api.get("/v1/explore/blocks/9999"))[0] == 404
    assert (await api.get("/v1/explore/blocks/x"))[0] == 404


async def test_codecs_have_names(api):
    rows = (await api.good("/v1/explore/codecs"))["codecs"]
    assert {"row": 3, "name": "PCMA", "concealment": "none", "packet_us": 20_000} in rows


async def found(api: Api, text: str) -> list[dict[str, Any]]:
    async with api.client.get("/v1/search", params={"q": text}) as response:
        value = await response.json()
        check_answer("get", "/v1/search", response.status, response.content_type, value)
        assert (response.status, value["q"]) == (200, text.strip())
        return list(value["results"])


async def test_search_finds_everything_by_its_id(api):
    block = await api.good("/v1/blocks/2")
    a_block = {"kind": "block", "id": block["block_id"], "height": 2}
    a_tx = {"kind": "transaction", "id": api.tx_ids[1], "member_id": MEMBER, "holds": "records"}
    a_key = {"kind": "key", "id": KEY.key_id.hex(), "member_id": MEMBER}
    record = {"kind": "record", "id": f"{api.tx_ids[1]}/7", "tx_id": api.tx_ids[1], "index": 7, "member_id": MEMBER}
    assert await found(api, "2") == [a_block]
    assert await found(api, " #2 ") == [a_block]
    for length in (4, 5, 12, 63, 64):
        assert a_block in await found(api, block["block_id"][:length])
        assert a_tx in await found(api, api.tx_ids[1][:length].upper())
    for length in (4, 39, 40):
        assert a_key in await found(api, KEY.key_id.hex()[:length])
    assert await found(api, KEY.public_key.hex()) == [a_key]
    assert await found(api, f"{api.tx_ids[1]}/7") == [record]
    assert await found(api, record_key_of(MEMBER, RECORDS[107]).hex()) == [record]
    carriers = [{"kind": "member", "id": name, "member_id": name} for name in (MEMBER, "carrier-b")]
    assert await found(api, "carrier") == carriers
    assert (await found(api, MEMBER)) == carriers[:1]
    assert await found(api, "rrier-b") == carriers[1:]


async def test_of_a_record_that_came_twice_the_one_that_counts_is_found(api):
    places = [result["id"] for result in await found(api, record_key_of(MEMBER, RECORDS[4]).hex())]
    assert places == [f"{api.tx_ids[0]}/4"]
    assert (await api.good(f"/v1/records/{api.tx_ids[2]}/94"))["record"] == to_readable(RECORDS[4])


@pytest.mark.parametrize(
    "text",
    ["0", "99999999", "abc", "zzzz", "f" * 64, "0" * 64, "f" * 66, "0" * 32, "1" * 30, "/", "x/1", "a" * 64 + "/1",
     "a" * 64 + "/x", "<script>alert(1)</script>", "'; --", "\u0665", "🙂", "%00", "-1", "..", "1" * 200],
)  # fmt: skip
async def test_search_finds_nothing_where_nothing_is(api, text):
    assert [r for r in await found(api, text) if r["kind"] != "block"] == []


async def test_search_wants_something(api):
    for wrong in ("", "?q=", "?q=%20", "?q=" + "x" * 201):
        assert (await api.get("/v1/search" + wrong))[0] == 400


async def test_the_page_and_its_files_come_with_the_policy(api):
    addresses = ["/", *(f"/explorer/{name}" for name in files())]
    assert len(addresses) >= 10
    for address in addresses:
        async with api.client.get(address) as response:
            assert response.status == 200
            assert response.headers["Content-Security-Policy"] == POLICY
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            body, etag = await response.read(), response.headers["ETag"]
        assert body == files()[address.rpartition("/")[2] or "index.html"].body
        async with api.client.get(address, headers={"If-None-Match": f'"x", W/{etag}'}) as response:
            assert (response.status, await response.read()) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapi%2fapp.py", "app.py", "index.html.bak", ""])
async def test_nothing_else_is_served(api, name):
    async with api.client.get(f"/explorer/{name}") as response:
        assert response.status == 404


async def test_steps_end_with_the_application():
    node = ApiNode()
    app = make_app(node, ApiParts(now_ms=node.clock))
    async with TestClient(TestServer(app)):
        pass
    assert app[SURVEY].step() is False


def test_the_page_leads_nowhere_else():
    """No file names another host, but for the name of a format that nobody fetches; none makes markup of text."""
    for name, file in files().items():
        text = file.body.decode()
        hosts = set(re.findall(r"(?:https?|wss?)://([\w.-]+)", text))
        assert hosts <= {"www.w3.org", "127.0.0.1", "localhost"}, name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, (name, word)
