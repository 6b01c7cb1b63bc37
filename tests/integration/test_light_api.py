"""What light clients ask for, over real sockets: answers as the document says, and a whole chain followed by them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from audit.final import FinalReader
from audit.follow import Follower
from audit.light import LightClient
from consensus.setchange import VotingProof
from consensus.votes import VotingSet
from ledger.errors import InvalidProof
from ledger.genesis import chain_id_of
from node.api import ApiParts, make_app
from node.client import ApiFault
from node.light import ApiSource
from tests.audit.chains import FIVE, Cluster, govern, make_genesis
from tests.audit.light_kit import PeerSource
from tests.integration.api_node import ApiNode
from tests.integration.openapi_check import check_answer


class ChainNode(ApiNode):
    """A node of the chain that elects, rotates and strikes."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.genesis, self.chain_id = cluster.genesis, chain_id_of(cluster.genesis)
        self.engine, self.store = cluster.peers[0].engine, cluster.peers[0].store


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    made = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    govern(made)
    return made


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(make_app(ChainNode(cluster), ApiParts())), auto_decompress=False) as made:
        yield made


async def get(client: TestClient, path: str) -> tuple[int, dict]:
    async with client.get(path) as response:
        value = await response.json(content_type=None)
        check_answer("get", path, response.status, response.content_type, value)
        return response.status, value


async def test_answers_are_as_the_document_says(client: TestClient) -> None:
    status, answer = await get(client, "/v1/light/final")
    assert (status, answer["final"]["header"]["height"], answer["final"]["voting"]["set_id"]) == (200, 59, 4)
    status, answer = await get(client, "/v1/light/set-changes")
    assert (status, [each["header"]["height"] for each in answer["set_changes"]]) == (200, [17, 33, 41, 49])
    _, answer = await get(client, "/v1/light/set-changes?after=3")
    assert [each["header"]["height"] for each in answer["set_changes"]] == [49]
    assert await get(client, "/v1/light/set-changes?after=4") == (200, {"set_changes": []})
    _, answer = await get(client, "/v1/light/headers?from=10&count=3")
    assert [each["header"]["height"] for each in answer["headers"]] == [10, 11, 12]
    _, answer = await get(client, "/v1/light/headers?from=59")
    assert [each["header"]["height"] for each in answer["headers"]] == [59, 60]
    assert await get(client, "/v1/light/headers?from=99") == (200, {"headers": []})
    status, answer = await get(client, "/v1/light/history?height=0&size=59")
    assert (status, len(answer["path"])) == (200, 6)


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("set-changes?after=-1", 400, "after"),
        ("set-changes?after=99999999999999999999", 400, "after"),
        ("headers?from=0", 400, "from"),
        ("headers?from=x", 400, "from"),
        ("headers?count=129", 400, "count"),
        ("history", 400, "size"),
        ("history?height=5&size=5", 400, "height"),
        ("history?height=5&size=60", 404, "size"),
        ("history?height=0&size=9223372036854775807", 404, "size"),
    ],
)
async def test_questions_out_of_bounds(path: str, status: int, field: str, client: TestClient) -> None:
    found, problem = await get(client, f"/v1/light/{path}")
    assert (found, problem["field"]) == (status, field)


async def test_before_anything_is_final() -> None:
    empty = ChainNode(Cluster(make_genesis(name="governed", members=FIVE, seats=4)))
    async with TestClient(TestServer(make_app(empty, ApiParts())), auto_decompress=False) as made:
        assert await get(made, "/v1/light/final") == (200, {"final": None})
        assert await get(made, "/v1/light/headers") == (200, {"headers": []})
        source = ApiSource(str(made.make_url("")).rstrip("/"))
        assert await asyncio.to_thread(source.final) is None


async def test_a_chain_is_followed_over_http(client: TestClient, cluster: Cluster) -> None:
    source = ApiSource(str(client.make_url("")).rstrip("/"))
    follower = Follower(LightClient(cluster.genesis), source)
    news = await asyncio.to_thread(lambda: list(follower.poll()))
    assert (len(news), follower.client.point.height, follower.client.trusted.set_id) == (59 + 4, 59, 4)


async def test_answers_that_are_none(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes instead of an answer is a lie that is named, or no answer at all."""
    source = ApiSource(str(client.make_url("")).rstrip("/"))
    bodies = [
        b"",
        b"[]",
        b"{}",
        b'{"final": 5}',
        b'{"final": {"header": 1}}',
        b'{"final": null, "x": 1}',
        b"[" * 99_999,
    ]
    for body in bodies:
        monkeypatch.setattr(source._client, "get_bytes", lambda _path, bytes_max, body=body: body[:bytes_max])
        with pytest.raises(InvalidProof) as caught:
            source.final()
        assert caught.value.where != ""
    monkeypatch.undo()
    with pytest.raises(ApiFault):
        await asyncio.to_thread(source.history, 5, 99)


async def test_the_explorer_names_who_signed_blocks_of_every_voting_set(
    client: TestClient, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And reads no more changes of the set for one block than its certificates are of, however many there were."""
    read: list[int | None] = []
    changes = FinalReader.set_changes

    def counting(reader: FinalReader, after: int = 0, *, count: int | None = None) -> list[VotingProof]:
        read.append(count)
        return changes(reader, after, count=count)

    sets = sets_of(cluster)
    monkeypatch.setattr(FinalReader, "set_changes", counting)
    seen = set()
    for height in range(2, 60):
        _, block = await get(client, f"/v1/explore/blocks/{height}")
        for part in [*(block["carries"] or {}).get("parts", []), *(block["certified"] or {}).get("parts", [])]:
            names = [producer.member_id for producer in sets[part["set_id"]].producers]
            assert sorted([*part["signed"], *part["not_signed"]]) == sorted(names)
            assert part["quorum"] == sets[part["set_id"]].quorum
            seen.add(part["set_id"])
    assert (seen, set(read)) == ({0, 1, 2, 3, 4}, {1})


def sets_of(cluster: Cluster) -> dict[int, VotingSet]:
    """Return the voting sets as a light client comes to know them."""
    client = LightClient(cluster.genesis)
    Follower(client, PeerSource(cluster.peers[0], cluster.genesis)).catch_up()
    return client.sets
