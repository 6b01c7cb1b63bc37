"""The HTTP API over real sockets, in front of a real engine: records in exactly once, the chain out, bad input."""

from __future__ import annotations

import asyncio
import io
import json
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.export import export_chain
from audit.receipt import verify_receipt
from ledger.cdr import (
    Band,
    CallRecord,
    Leg,
    MosKind,
    Observer,
    Quality,
    QualityMethod,
    Reading,
    ReleasedBy,
    Service,
    call_commitment,
    record_key_of,
)
from ledger.codec import encode
from ledger.commitment import PRIVATE_FIELDS, PrivateField, field_leaf, make_private_part, party_commitment
from ledger.errors import InvalidProof, StoreError, StoreFull, UnusableTransaction
from ledger.merkle import leaf_hash, root
from ledger.readable import from_readable, to_readable
from ledger.transaction import tx_id_of
from node.api import ApiParts, make_app
from node.api.submit import RECORDS_BODY_BYTES_MAX
from node.keyfile import new_token
from telephony.builder import Profile
from telephony.vault import Vault, VaultEntry
from tests.integration.api_node import KEY, MEMBER, NOW_MS, SECRET, STRANGER, ApiNode, SyncState, sign
from tests.integration.openapi_check import check_answer

FIXTURES = Path(__file__).parent.parent / "telephony" / "fixtures"
CDRS = json.loads((FIXTURES / "sip-lab-run.json").read_text())["cdrs"]
SUBMIT, SUBMIT_KEPT = new_token("proxy", ["submit"])
PRIVATE, PRIVATE_KEPT = new_token("billing", ["private"])
AUTH = {"Authorization": f"Bearer {SUBMIT}"}
OWNER = {"Authorization": f"Bearer {PRIVATE}"}
MSGPACK = {**AUTH, "Content-Type": "application/msgpack"}


def call_record(number: int, **changes: Any) -> CallRecord:
    """Return a plain answered call."""
    record = CallRecord(
        version=1, service=Service.VOICE, leg=Leg.ORIGINATING, party_commitment=bytes(32),
        call_commitment=call_commitment(SECRET, f"call-{number}", "tag", 1), setup_ms=NOW_MS - 70_000,
        answer_ms=NOW_MS - 60_000, end_ms=NOW_MS - 1_000, sip_code=200, q850_cause=16,
        released_by=ReleasedBy.CALLER, codec=0, packets_sent=0, packets_received=0, octets_sent=0, octets_received=0,
        quality=None, levels=None, energy=None,
    )  # fmt: skip
    return msgspec.structs.replace(record, **changes)


def document(number: int, **changes: Any) -> dict[str, Any]:
    """Return the body that hands in ``call_record``."""
    return {"record": to_readable(call_record(number, **changes))}


def with_private(number: int, caller: str = "+442071838750") -> dict[str, Any]:
    """Return the body of a record with a private part."""
    salts = [bytes([i]) * 32 for i in range(len(PRIVATE_FIELDS))]
    part = make_private_part({"caller": caller, "call_id": f"call-{number}"}, salts)
    private = {f.name: {"salt": f.salt.hex(), "value": f.value.decode()} for f in part.fields}
    return {**document(number, party_commitment=party_commitment(part)), "private": private}


class Api:
    """A client of a node's API."""

    def __init__(self, client: TestClient, node: ApiNode, vault: Vault) -> None:
        self.client, self.node, self.vault = client, node, vault

    async def post(self, path: str, value: Any, **options: Any) -> tuple[int, Any]:
        async with self.client.post(path, json=value, headers={**AUTH, **options}) as response:
            return await self.answer("post", path, response)

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.client.get(path, headers=headers) as response:
            return await self.answer("get", path, response)

    @staticmethod
    async def answer(method: str, path: str, response: ClientResponse) -> tuple[int, Any]:
        """Return status and body, having held them against the OpenAPI document."""
        value = await response.json(content_type=None)
        check_answer(method, path, response.status, response.content_type, value)
        return response.status, value


@asynccontextmanager
async def serving(folder: Path, node: ApiNode | None = None, **parts: Any):
    """Serve an API; its vault is in ``folder``."""
    node = node or ApiNode()
    vault = Vault(folder / "vault", SECRET)
    given_parts = ApiParts(
        tokens=[SUBMIT_KEPT, PRIVATE_KEPT], hosts=["node.test"], vault=vault, profile=Profile(SECRET), now_ms=node.clock
    )
    app = make_app(node, replace(given_parts, **parts))
    try:
        async with TestClient(TestServer(app), auto_decompress=False) as client:
            yield Api(client, node, vault)
    finally:
        vault.close()


@pytest.fixture
async def api(tmp_path):
    """Return a client of an API with everything configured."""
    async with serving(tmp_path) as client:
        yield client


# -- records in ------------------------------------------------------------------------------------------------------


async def test_a_record_goes_from_stored_to_final(api):
    status, stored = await api.post("/v1/records", document(1))
    assert (status, stored["outcome"]) == (201, "stored")
    assert stored["record_key"] == record_key_of(MEMBER, call_record(1)).hex()
    states = []
    for _ in range(4):
        _, shown = await api.get(stored["url"])
        states.append(shown["promise"]["state"])
        api.node.tick()
    assert states == ["stored", "included", "final", "final"]
    assert from_readable(shown["record"], CallRecord) == call_record(1)
    assert shown["promise"]["height"] == 1


async def test_a_record_is_shown_with_what_is_suspicious_in_it(api):
    _, stored = await api.post("/v1/records", document(1, end_ms=NOW_MS - 999))
    _, shown = await api.get(stored["url"])
    assert shown["flags"] == []
    _, stored = await api.post("/v1/records", document(2, sip_code=486, end_ms=NOW_MS - 999))
    _, shown = await api.get(stored["url"])
    assert shown["flags"] == [
        {
            "name": "code-against-answer",
            "field": "sip_code",
            "value": 486,
            "bound": "200..299 for an answered call",
            "message": "The call was answered, but its final response is 486, a failure: look whether the talk was real"
            " before charging for it",
        }
    ]


async def test_a_distance_flags_what_is_faster_than_light(api):
    reading = Reading(4_200, 40_000, 0, 0, 0)
    quality = Quality(
        QualityMethod.MEASURED, Band.NARROWBAND, MosKind.CQ, Observer.CALLER, 1, None, None, 0, 0, 0, 0,
        reading, None, None,
    )  # fmt: skip
    _, stored = await api.post("/v1/records", document(1, end_ms=NOW_MS - 999, quality=quality))
    for query, names in {"": [], "?distance_km=5000": [], "?distance_km=5001": ["faster-than-light"]}.items():
        _, shown = await api.get(stored["url"] + query)
        assert [flag["name"] for flag in shown["flags"]] == names
    for wrong in ("-1", "", "100001", "x", "\u0665"):
        status, problem = await api.get(f"{stored['url']}?distance_km={wrong}")
        assert (status, problem["field"]) == (400, "distance_km")


async def test_the_same_again_is_already_stored(api):
    _, first = await api.post("/v1/records", document(1))
    status, again = await api.post("/v1/records", document(1))
    assert (status, again["outcome"]) == (200, "already stored")
    assert (again["tx_id"], again["index"]) == (first["tx_id"], first["index"])
    assert api.node.submissions == 1


async def test_the_same_call_with_other_content_is_a_conflict(api):
    _, first = await api.post("/v1/records", document(1))
    status, problem = await api.post("/v1/records", document(1, q850_cause=31))
    assert status == 409
    assert problem["type"] == "urn:ledgerd:problem:other-content"
    assert first["url"] in problem["hint"]


async def test_each_of_an_array_has_its_own_result_and_the_good_are_kept(api):
    body = [document(1), {"record": {"version": 1}}, document(2), document(1), document(2, q850_cause=31), 7]
    status, problem = await api.post("/v1/records", body)
    assert status == 422
    assert problem["type"] == "urn:ledgerd:problem:not-all-kept"
    results = problem["results"]
    assert [result["status"] for result in results] == [201, 400, 201, 200, 409, 400]
    assert results[1]["problem"]["field"] == "record.service"
    assert (results[0]["tx_id"], results[0]["index"]) == (results[3]["tx_id"], results[3]["index"])
    for kept in (results[0], results[2]):
        assert (await api.get(kept["url"]))[0] == 200
    status, again = await api.post("/v1/records", [document(1), document(2)])
    assert (status, [result["status"] for result in again["results"]]) == (200, [200, 200])


async def test_a_thousand_records_in_one_array(api):
    status, answer = await api.post("/v1/records", [document(number) for number in range(1000)])
    assert status == 201
    assert {result["index"] for result in answer["results"]} == set(range(1000))
    status, problem = await api.post("/v1/records", [document(1)] * 1001)
    assert (status, problem["expected"], problem["actual"]) == (400, "1 to 1000", "1001")


async def test_requests_at_one_time_keep_a_record_once(api):
    api.node.gate = asyncio.Event()
    posts = [asyncio.create_task(api.post("/v1/records", [document(1), document(2 + i)])) for i in range(8)]
    await asyncio.sleep(0.2)
    api.node.gate.set()
    results = [(await post)[1]["results"] for post in posts]
    assert sorted(result[0]["status"] for result in results) == [200] * 7 + [201]
    assert len({(result[0]["tx_id"], result[0]["index"]) for result in results}) == 1
    assert [result[1]["status"] for result in results] == [201] * 8


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"end_ms": NOW_MS - 100_000}, "rule-violation", "record.end_ms"),
        (
            {"setup_ms": 1, "answer_ms": 1, "end_ms": 2},
            "unusable-transaction",
            "record.end_ms",
        ),
        ({"end_ms": NOW_MS + 3_600_000}, "unusable-transaction", "record.end_ms"),
    ],
)
async def test_a_record_no_block_may_hold_is_refused_at_the_door(api, change, code, field):
    status, problem = await api.post("/v1/records", document(1, **change))
    assert (status, problem["type"], problem["field"]) == (422, f"urn:ledgerd:problem:{code}", field)
    assert problem["expected"]
    assert api.node.submissions == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "record"),
        ({"record": None}, "record"),
        ({"record": {}, "extra": 1}, "extra"),
        ({**document(1), "private": 7}, "private"),
        ({**document(1), "private": {}}, "private.caller"),
        ({**document(1), "private": {"phone": {}}}, "private.phone"),
        ({"record": {**document(1)["record"], "sip_code": 700}}, "record.sip_code"),
        ({"record": {**document(1)["record"], "sip_code": 200.5}}, "record.sip_code"),
        ({"record": {**document(1)["record"], "sip_code": True}}, "record.sip_code"),
        ({"record": {**document(1)["record"], "note": "x"}}, "record.note"),
        ({"record": {**document(1)["record"], "leg": "sideways"}}, "record.leg"),
        ({"record": {**document(1)["record"], "party_commitment": "00"}}, "record.party_commitment"),
        ({**with_private(1), "record": document(1)["record"]}, "record.party_commitment"),
    ],
)
async def test_a_wrong_field_is_named(api, body, field):
    status, problem = await api.post("/v1/records", body)
    assert (status, problem["field"]) == (400, field)
    assert problem["type"] in {"urn:ledgerd:problem:field", "urn:ledgerd:problem:encoding"}


async def test_a_call_from_a_clock_ahead_is_taken_when_its_time_has_come(api):
    """5xx, so that nobody makes a dead letter of it; in a batch it is the only one to wait."""
    early = document(1, end_ms=NOW_MS + 60_000)
    async with api.client.post("/v1/records", json=early, headers=AUTH) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await response.json(content_type=None))["type"] == "urn:ledgerd:problem:too-early"
    _, problem = await api.post("/v1/records", [early, document(2)])
    assert [result["status"] for result in problem["results"]] == [503, 201]
    api.node.now_ms += 60_000
    assert (await api.post("/v1/records", early))[0] == 201


async def test_a_refused_submit_key_is_the_nodes_fault_and_not_the_records(api):
    api.node.failure = UnusableTransaction("the key may not submit for this member", where="envelope.key_id")
    status, problem = await api.post("/v1/records", [document(1), document(2)])
    assert (status, problem["type"]) == (503, "urn:ledgerd:problem:not-signed")
    api.node.failure = None
    assert (await api.post("/v1/records", [document(1), document(2)]))[0] == 201


async def test_a_record_that_expired_is_signed_anew(api):
    _, first = await api.post("/v1/records", document(1))
    api.node.engine.pool.remove(bytes.fromhex(first["tx_id"]))
    api.node.dropped[bytes.fromhex(first["tx_id"])] = "expired"
    api.node.now_ms += 5_000
    assert (await api.get(first["url"]))[1]["promise"]["state"] == "expired"
    status, second = await api.post("/v1/records", document(1))
    assert (status, second["tx_id"] == first["tx_id"]) == (201, False)


async def test_a_record_that_did_not_count_is_shown_void(api):
    """The same call by two ways: the second stands in a block and is not counted."""
    raw = encode(sign([encode(call_record(1)), encode(call_record(2))], created_ms=NOW_MS))
    await api.client.post("/v1/transactions", data=raw, headers=MSGPACK)
    api.node.tick()
    _, second = await api.post("/v1/records", [document(1), document(3)])
    api.node.tick(3)
    states = [(await api.get(result["url"]))[1]["promise"]["state"] for result in second["results"]]
    assert states == ["void", "final"]
    _, block = await api.get("/v1/blocks/2")
    assert block["transactions"] == [{"tx_id": second["results"][0]["tx_id"], "void": [0]}]
    assert (await api.get(f"/v1/transactions/{second['results'][0]['tx_id']}"))[1]["void"] == [0]


async def test_the_example_in_the_guide_is_taken(api):
    guide = (Path(__file__).parent.parent.parent / "docs" / "api.md").read_text()
    (example,) = re.findall(r"--data '(\{.*?\})'", guide, re.DOTALL)
    assert (await api.post("/v1/records", json.loads(example)))[0] == 201


# -- a proxy's CDRs --------------------------------------------------------------------------------------------------


async def test_cdrs_of_a_kamailio_are_taken_once(api):
    status, answer = await api.post("/v1/ingest/kamailio", CDRS)
    assert (status, {result["outcome"] for result in answer["results"]}) == (201, {"stored"})
    status, again = await api.post("/v1/ingest/kamailio", CDRS)
    assert (status, {result["outcome"] for result in again["results"]}) == (200, {"already stored"})
    urls = [result["url"] for result in answer["results"]]
    assert [result["url"] for result in again["results"]] == urls
    changed = {**CDRS[0], "sip_code": "486", "src_ip": "127.0.0.2"}
    status, problem = await api.post("/v1/ingest/kamailio", changed)
    assert (status, problem["type"]) == (409, "urn:ledgerd:problem:other-content")


async def test_a_batch_with_a_bad_cdr_is_no_success(api):
    """A proxy sends the CDRs of such a batch again one by one, and learns which is the bad one."""
    bad = {**CDRS[1], "start_time": "yesterday"}
    status, problem = await api.post("/v1/ingest/kamailio", [CDRS[0], bad])
    assert (status, [result["status"] for result in problem["results"]]) == (422, [201, 400])
    status, alone = await api.post("/v1/ingest/kamailio", [CDRS[0]])
    assert (status, alone["results"][0]["outcome"]) == (200, "already stored")
    status, alone = await api.post("/v1/ingest/kamailio", [bad])
    assert (status, alone["field"], alone["actual"]) == (400, "start_time", "xxxxxxxxx")


async def test_after_a_crash_before_the_ledger_the_cdr_is_taken(api):
    """The vault had it, nobody was told so: the next delivery stores it, with salts that fit the vault's."""
    api.node.failure = StoreError("power is failing")
    assert (await api.post("/v1/ingest/kamailio", CDRS[0]))[0] == 503
    api.node.failure = None
    status, stored = await api.post("/v1/ingest/kamailio", CDRS[0])
    assert status == 201
    record_key = bytes.fromhex(stored["record_key"])
    record = from_readable((await api.get(stored["url"]))[1]["record"], CallRecord)
    assert party_commitment(api.vault.get(record_key)) == record.party_commitment


async def test_after_a_crash_between_ledger_and_note_the_record_is_found(tmp_path):
    """The ledger had it and the note was lost: the next start finds it, and it is not stored twice."""
    node = ApiNode()
    async with serving(tmp_path, node) as api:
        _, first = await api.post("/v1/records", [document(1), document(2)])
    kept = first["results"][1]
    vault = Vault(tmp_path / "vault", SECRET)
    vault._db.execute("UPDATE record SET tx_id = NULL, tx_index = NULL")
    vault.put_many([VaultEntry(b"k" * 16, NOW_MS, b"c" * 32, None)])
    vault.close()
    async with serving(tmp_path, node) as api:
        status, again = await api.post("/v1/records", document(2))
        assert (status, again["url"]) == (200, kept["url"])
        assert api.vault.unplaced(10) == [b"k" * 16]
    assert node.submissions == 1


# -- private fields --------------------------------------------------------------------------------------------------


async def test_private_fields_are_shown_to_their_owner_alone(api):
    body = with_private(1)
    _, stored = await api.post("/v1/records", body)
    _, anybody = await api.get(stored["url"])
    _, submitter = await api.get(stored["url"], **AUTH)
    _, owner = await api.get(stored["url"], **OWNER)
    assert "private" not in anybody
    assert "private" not in submitter
    assert owner["private"] == body["private"]
    assert (await api.get(stored["url"], Authorization="Bearer nonsense"))[0] == 401


async def test_the_numbers_of_a_cdr_are_in_the_vault_and_not_on_the_chain(api, tmp_path):
    _, stored = await api.post("/v1/ingest/kamailio", CDRS[0])
    _, owner = await api.get(stored["url"], **OWNER)
    number = owner["private"]["caller"]["value"]
    assert number == "+442071838750"
    body = api.node.store.body(bytes.fromhex(stored["tx_id"]))
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "vault").iterdir())
    for text in (number[1:], owner["private"]["callee"]["value"][1:], CDRS[0]["call_id"]):
        assert text.encode() not in body
        assert text.encode() not in on_disk


async def test_what_was_shredded_says_when_and_why_and_the_rest_is_provable(api):
    body = with_private(1)
    _, stored = await api.post("/v1/records", body)
    api.vault.erasure.shred_subject("+442071838750", reason="asked to by letter", now_ms=NOW_MS)
    _, owner = await api.get(stored["url"], **OWNER)
    gone = owner["private"]["caller"]
    assert (gone["shredded_ms"], gone["reason"]) == (NOW_MS, "asked to by letter")
    assert {name for name, field in owner["private"].items() if "value" in field} == {"callee"}
    leaves = [bytes.fromhex(field["leaf"]) for name, field in owner["private"].items() if name != "callee"]
    callee = PrivateField("callee", bytes.fromhex(body["private"]["callee"]["salt"]), b"")
    leaves.insert(1, leaf_hash(field_leaf(callee)))
    assert root(leaves).hex() == owner["record"]["party_commitment"]
    api.vault.erasure.shred_period(api.vault.records_of("+442071838750")[0][1], reason="too old", now_ms=NOW_MS + 1)
    _, owner = await api.get(stored["url"], **OWNER)
    assert owner["private"]["callee"] == {"shredded_ms": NOW_MS + 1, "reason": "too old", "leaf": None}


async def test_a_receipt_shows_the_private_fields_asked_for_and_no_other(api):
    _, stored = await api.post("/v1/records", [document(1), with_private(2)])
    api.node.tick(3)
    url = stored["results"][1]["url"] + "/receipt"

    async def shown(fields: str, status: int = 200) -> dict[str, str]:
        async with api.client.get(f"{url}?reveal={fields}", headers=OWNER) as response:
            assert (response.status, response.headers["Cache-Control"]) == (status, "no-store")
            verdict = verify_receipt(await response.read(), api.node.genesis)
        return {field.name: field.value.decode() for field in verdict.revealed}

    assert await shown("call_id,caller") == {"caller": "+442071838750", "call_id": "call-2"}
    assert list(await shown("all")) == list(PRIVATE_FIELDS)
    assert (await api.get(f"{url}?reveal=caller"))[0] == 401
    assert (await api.get(f"{url}?reveal=caller", **AUTH))[0] == 403
    for wrong in ("", "number", "caller,", "caller,all"):
        status, problem = await api.get(f"{url}?reveal={wrong}", **OWNER)
        assert (status, problem["field"]) == (400, "reveal")
    status, problem = await api.get(f"{stored['results'][0]['url']}/receipt?reveal=caller", **OWNER)
    assert (status, problem["field"]) == (404, "reveal")
    assert problem["detail"].startswith("reveal: this node has no private part of the record")
    api.vault.erasure.shred_subject("+442071838750", reason="asked to by letter", now_ms=NOW_MS)
    assert await shown("all") == {"callee": ""}
    status, problem = await api.get(f"{url}?reveal=caller", **OWNER)
    assert (status, problem["field"]) == (404, "reveal.caller")
    assert "this field was shredded" in problem["detail"]


async def test_another_members_record_shows_no_private_fields(api):
    raw = encode(sign([encode(call_record(1))], key=STRANGER, member_id="carrier-b"))
    async with api.client.post("/v1/transactions", data=raw, headers=MSGPACK) as response:
        tx_id = (await response.json())["tx_id"]
    assert "private" not in (await api.get(f"/v1/records/{tx_id}/0", **OWNER))[1]


# -- signed transactions ---------------------------------------------------------------------------------------------


async def test_signed_transactions_one_or_many(api):
    first, second = (sign([encode(call_record(i))]) for i in (1, 2))
    broken = encode(second)[:-1] + b"\0"
    async with api.client.post("/v1/transactions", data=encode(first), headers=MSGPACK) as response:
        assert (response.status, (await response.json())["tx_id"]) == (201, tx_id_of(first.envelope).hex())
    async with api.client.post(
        "/v1/transactions", data=encode([encode(first), encode(second)]), headers=MSGPACK
    ) as response:
        assert response.status == 201
        assert [result["status"] for result in (await response.json())["results"]] == [200, 201]
    async with api.client.post("/v1/transactions", data=encode([encode(first), broken]), headers=MSGPACK) as response:
        assert response.status == 422
        assert [result["status"] for result in (await response.json())["results"]] == [200, 422]
    async with api.client.get(
        f"/v1/transactions/{tx_id_of(first.envelope).hex()}", headers={"Accept": "application/msgpack"}
    ) as response:
        assert await response.read() == encode(first)


async def test_a_transaction_by_a_stranger_says_so(api):
    raw = encode(sign([encode(call_record(1))], key=STRANGER))
    async with api.client.post("/v1/transactions", data=raw, headers=MSGPACK) as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["type"]) == (422, "urn:ledgerd:problem:unusable-transaction")
    assert problem["field"] == "envelope.key_id"


# -- the chain out ---------------------------------------------------------------------------------------------------


async def test_blocks_by_height_and_by_id(api):
    await api.post("/v1/records", document(1))
    api.node.tick(3)
    _, by_height = await api.get("/v1/blocks/1")
    _, by_id = await api.get(f"/v1/blocks/{by_height['block_id']}")
    assert by_id == by_height
    assert by_height["is_final"]
    assert by_height["header"]["totals"]["records"] == 1
    _, head = await api.get("/v1/head")
    assert head["final"]["height"] >= 1
    assert head["chain_id"] == api.node.chain_id.hex()


@pytest.mark.parametrize(
    "path",
    ["/v1/blocks/0", "/v1/blocks/99", "/v1/blocks/-1", "/v1/blocks/" + "9" * 30, "/v1/blocks/" + "ab" * 32,
     "/v1/blocks/x", "/v1/transactions/" + "ab" * 32, "/v1/transactions/AB", "/v1/records/" + "ab" * 32 + "/0",
     "/v1/records/x/0", "/nothing"],
)  # fmt: skip
async def test_what_is_not_there_is_404(api, path):
    status, problem = await api.get(path)
    assert (status, problem["type"]) == (404, "urn:ledgerd:problem:not-found")


async def test_a_record_outside_its_transaction_is_404(api):
    _, stored = await api.post("/v1/records", document(1))
    for index in ("1", "00", "-1", "9999", "x"):
        assert (await api.get(f"/v1/records/{stored['tx_id']}/{index}"))[0] == 404


async def test_status_members_and_genesis(api):
    assert (await api.get("/v1/status"))[1]["sync"] == {"state": "in-step", "behind_blocks": 0, "target_height": 0}
    _, producers = await api.get("/v1/producers")
    assert [(p["member_id"], p["key_id"]) for p in producers["producers"]] == [(MEMBER, KEY.key_id.hex())]
    _, peers = await api.get("/v1/peers")
    assert [(peer["member_id"], peer["key_id"]) for peer in peers["peers"]] == [("carrier-b", STRANGER.key_id.hex())]
    assert (await api.get("/v1/genesis"))[1]["chain_id"] == api.node.chain_id.hex()
    assert (await api.get("/openapi.json"))[1]["openapi"].startswith("3.1")


async def test_health_is_honest(api):
    assert await api.get("/healthz") == (200, {"status": "ok", "head_height": 0, "final_height": 0})
    api.node.sync = SyncState("syncing", 40, 52)
    status, health = await api.get("/healthz")
    assert (status, health["reason"]) == (503, "40 blocks behind, at 0 of 52")
    for state in ("alone", "stalled"):
        api.node.sync = SyncState(state)
        status, health = await api.get("/healthz")
        assert (status, health["status"]) == (503, state)
    api.node.sync, api.node.is_disk_full = SyncState(), True
    status, health = await api.get("/healthz")
    assert (status, health["status"]) == (503, "disk-full")


async def test_a_receipt_is_there_once_the_record_is_final(api):
    """And it proves the record offline, against the genesis alone."""
    _, stored = await api.post("/v1/records", [document(1), document(2)])
    url = stored["results"][1]["url"] + "/receipt"
    status, problem = await api.get(url)
    assert (status, problem["expected"], problem["actual"]) == (404, "final", "stored")
    api.node.tick(3)
    async with api.client.get(url) as response:
        verdict = verify_receipt(await response.read(), api.node.genesis)
    assert (verdict.record, verdict.member_id, verdict.void) == (call_record(2), MEMBER, False)
    assert (await api.get(url.replace("/1/", "/2/")))[0] == 404


async def test_events_come_as_they_happen_and_end(api):
    async with api.client.get("/v1/events") as response:
        assert response.content_type == "text/event-stream"
        assert await response.content.readline() == b": ledgerd\n"
        await api.post("/v1/records", document(1))
        api.node.tick()
        await response.content.readline()
        lines = [(await response.content.readline()).decode().strip() for _ in range(3)]
        api.node.subscriptions[0].queue.put_nowait(None)
        await response.content.read()
    assert lines[:2] == ["id: 0", "event: block"]
    assert json.loads(lines[2].removeprefix("data: "))["height"] == 1
    assert api.node.subscriptions[0].is_closed


async def test_a_reader_that_leaves_is_no_fault(api, caplog):
    """Closed like a browser's tab: the next event finds nobody there."""
    response = await api.client.get("/v1/events")
    assert await response.content.readline() == b": ledgerd\n"
    response.close()
    (subscription,) = api.node.subscriptions
    for _ in range(100):
        api.node.tick()
        await api.post("/v1/records", document(1 + api.node.submissions))
        if subscription.is_closed:
            break
    assert subscription.is_closed
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_live_streams_end_when_the_node_stops(api):
    async with api.client.get("/v1/events") as response:
        assert await response.content.readline() == b": ledgerd\n"
        await api.client.app.shutdown()
        assert await response.content.read() == b"\n"


async def test_an_export_is_what_an_audit_reads(api):
    for number in range(3):
        await api.post("/v1/records", [document(number * 1000 + i) for i in range(1000)])
        api.node.tick()
    api.node.tick(3)
    for first in (1, 2):
        async with api.client.get(f"/v1/export?from={first}") as response:
            assert response.content_type == "application/octet-stream"
            pieces = export_chain(api.node.store, api.node.genesis, first_height=first)
            assert await response.read() == b"".join(pieces)
    status, problem = await api.get("/v1/export?from=x")
    assert (status, problem["field"]) == (400, "from")


async def test_metrics_are_what_prometheus_reads(api):
    await api.post("/v1/records", document(1))
    api.node.counters.rejected["bad-signature"] = 3
    async with api.client.get("/metrics") as response:
        text = await response.text()
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "ledgerd_head_height 0.0" in text
    assert "ledgerd_pool_records 1.0" in text
    assert 'ledgerd_rejected_total{reason="bad-signature"} 3.0' in text


async def test_what_is_handed_in_is_measured_by_route(api):
    for _ in range(2):
        await api.post("/v1/records", document(1, setup_ms=NOW_MS - 5 * 3_600_000))
    await api.post("/v1/records", {"record": {}})
    await api.post("/v1/nothing", {})
    await api.get("/v1/records/x/0")
    async with api.client.post("/v1/records", json=document(2)) as response:
        assert response.status == 401
    async with api.client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    assert [line for line in lines if line.startswith("ledgerd_ingest_requests_total")] == [
        'ledgerd_ingest_requests_total{route="/v1/records",status="200"} 1.0',
        'ledgerd_ingest_requests_total{route="/v1/records",status="201"} 1.0',
        'ledgerd_ingest_requests_total{route="/v1/records",status="400"} 1.0',
        'ledgerd_ingest_requests_total{route="/v1/records",status="401"} 1.0',
    ]
    assert 'ledgerd_ingest_seconds_count{route="/v1/records"} 2.0' in lines
    # The second time it was there already, and is counted once.
    assert 'ledgerd_flagged_records_total{flag="overlong-call"} 1.0' in lines


# -- who may ask, and how --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/records", "/v1/ingest/kamailio", "/v1/transactions"])
async def test_writing_needs_a_token_with_the_role(api, path):
    cases = {None: 401, "Bearer nonsense": 401, f"Basic {SUBMIT}": 401, f"Bearer {PRIVATE}": 403, "Bearer": 401}
    for value, expected in cases.items():
        headers = {"Content-Type": "application/json", **({"Authorization": value} if value else {})}
        async with api.client.post(path, data=b"[]", headers=headers) as response:
            problem = await response.json(content_type=None)
            assert (response.status, problem["status"]) == (expected, expected)
            assert response.content_type == "application/problem+json"
            assert ("WWW-Authenticate" in response.headers) == (expected == 401)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("node.test", 200), ("NODE.test:8080", 200), ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200),
     ("evil.test", 421), ("node.test.evil.test", 421), ("", 421), ("a@node.test", 421), ("node.test:x", 421),
     ("[", 421)],
)  # fmt: skip
async def test_only_known_hosts_are_answered_to(api, host, expected):
    status, answer = await api.get("/v1/head", Host=host)
    assert status == expected
    if expected == 421:
        assert answer["type"] == "urn:ledgerd:problem:unknown-host"


async def test_other_types_of_bodies_are_refused(api):
    body = json.dumps(document(1)).encode()
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/msgpack"},
    ):
        async with api.client.post("/v1/records", data=body, headers={**AUTH, **headers}) as response:
            assert response.status == 415
    async with api.client.post("/v1/transactions", json=document(1), headers=AUTH) as response:
        assert response.status == 415


async def test_a_compressed_body_is_refused(api):
    headers = {**AUTH, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with api.client.post("/v1/records", data=b"\x1f\x8b", headers=headers) as response:
        assert response.status in {400, 415}


async def test_bodies_are_bounded_with_and_without_a_length(api):
    async def chunks():
        for _ in range(RECORDS_BODY_BYTES_MAX // 65_536 + 2):
            yield b" " * 65_536

    headers = {**AUTH, "Content-Type": "application/json"}
    async with api.client.post("/v1/records", data=chunks(), headers=headers) as response:
        assert response.status == 413
    async with api.client.post(
        "/v1/records", data=io.BytesIO(bytes(RECORDS_BODY_BYTES_MAX + 1)), headers=headers
    ) as response:
        assert (response.status, (await response.json(content_type=None))["status"]) == (413, 413)


async def test_another_method_is_told_which_is_right(api):
    async with api.client.delete("/v1/records", headers=AUTH) as response:
        problem = await response.json(content_type=None)
    assert (response.status, response.headers["Allow"], problem["expected"]) == (405, "POST", "POST")


# -- when things go wrong --------------------------------------------------------------------------------------------


async def test_a_full_disk_is_507_and_to_be_tried_again(api):
    api.node.failure = StoreFull("no room", where="data")
    async with api.client.post("/v1/records", json=document(1), headers=AUTH) as response:
        problem = await response.json(content_type=None)
        assert (response.status, response.headers["Retry-After"]) == (507, "5")
    assert problem["type"] == "urn:ledgerd:problem:store-full"
    api.node.failure = None
    assert (await api.post("/v1/records", document(1)))[0] == 201


async def test_a_full_vault_is_507_and_keeps_nothing_half(api):
    (pages,) = api.vault._db.execute("PRAGMA page_count").fetchone()
    api.vault._db.execute(f"PRAGMA max_page_count = {pages}")
    assert (await api.post("/v1/records", [with_private(number) for number in range(200)]))[0] == 507
    assert api.node.submissions == 0
    api.vault._db.execute("PRAGMA max_page_count = 100000")
    assert (await api.post("/v1/records", [with_private(number) for number in range(200)]))[0] == 201


async def test_an_overloaded_node_says_so(api, monkeypatch):
    monkeypatch.setattr("node.api.ingest.RECORDS_WAITING_MAX", 2)
    async with api.client.post("/v1/records", json=[document(i) for i in range(3)], headers=AUTH) as response:
        problem = await response.json(content_type=None)
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert problem["type"] == "urn:ledgerd:problem:overloaded"
    assert (await api.post("/v1/records", [document(1), document(2)]))[0] == 201


async def test_a_node_without_keys_says_what_it_lacks(tmp_path):
    async with serving(tmp_path, vault=None, profile=None) as api:
        for path in ("/v1/records", "/v1/ingest/kamailio"):
            status, problem = await api.post(path, document(1))
            assert (status, problem["type"]) == (503, "urn:ledgerd:problem:not-configured")
            assert problem["field"]


async def test_a_fault_of_ours_is_an_id_and_no_traceback(api, capsys):
    for failure in (RuntimeError("secret detail"), InvalidProof("secret detail")):
        api.node.failure = failure
        status, problem = await api.post("/v1/records", document(1))
        assert (status, problem["type"]) == (500, "urn:ledgerd:problem:internal")
        assert "secret detail" not in json.dumps(problem)
        assert problem["fault_id"] in "".join(capsys.readouterr())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.just("ab" * 32),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["record", "private", "caller", "salt", "value"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)
MUTATIONS = st.tuples(st.sampled_from(sorted(document(1)["record"])), VALUES)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=st.binary(max_size=300),
    values=st.lists(VALUES, min_size=1, max_size=4),
    mutation=MUTATIONS,
    cdr=st.tuples(st.sampled_from(sorted(CDRS[0])), VALUES | st.text(max_size=30)),
)
def test_no_body_makes_the_program_fail(tmp_path_factory, raw, values, mutation, cdr):
    """Whatever is posted: an answer in our form, and never a 500."""

    async def post_all() -> list[tuple[int, Any]]:
        answers = []
        async with serving(tmp_path_factory.mktemp("fuzz")) as api:
            bodies = [
                ("/v1/records", raw),
                ("/v1/records", msgspec.json.encode(values)),
                ("/v1/records", msgspec.json.encode({"record": {**document(1)["record"], mutation[0]: mutation[1]}})),
                ("/v1/records", msgspec.json.encode({**document(1), "private": values[0]})),
                ("/v1/ingest/kamailio", raw),
                ("/v1/ingest/kamailio", msgspec.json.encode(values)),
                ("/v1/ingest/kamailio", msgspec.json.encode({**CDRS[0], cdr[0]: cdr[1]})),
                ("/v1/transactions", raw),
                ("/v1/transactions", encode(sign([encode(call_record(1))]))[:-20] + raw),
            ]
            for path, body in bodies:
                kind = "application/msgpack" if path.endswith("transactions") else "application/json"
                async with api.client.post(path, data=body, headers={**AUTH, "Content-Type": kind}) as response:
                    answers.append(await api.answer("post", path, response))
        return answers

    for status, answer in asyncio.run(post_all()):
        assert status in {200, 201, 400, 409, 422}
        assert isinstance(answer, dict)
