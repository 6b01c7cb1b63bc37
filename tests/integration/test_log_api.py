"""The history tree as a transparency log, over real sockets: checkpoint, tiles, and a witness that keeps the rules."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from typer.testing import CliRunner

from audit import history
from audit.history import HistoryTree
from audit.lognote import finality_of, origin_of
from audit.notes import COSIGNATURE, NOTE_BYTES_MAX, SIGNATURES_MAX, LogKey, Note, NoteKey, parse_note, parse_tree_head
from audit.since import Earlier, extend
from audit.tiles import Tile, parse_tile, tile_bytes, tiles_of
from ledger import merkle
from ledger.errors import BadSignature, InvalidProof, StoreDamaged, StoreFull
from ledger.genesis import genesis_to_json
from ledger.store import MemoryStore, WriteBatch, height_key
from node.api import ApiParts, gathering, make_app
from node.api.notes import COSIGNED_SHOWN_MS, NOTES_ROW
from node.api.tiles import TileReader
from node.cli.ledgerctl import app as ledgerctl
from node.cli.verify import app as ledger_verify
from node.client import ApiFault, Client
from node.keyfile import new_token
from node.light import ApiSource
from node.witness import Witness, WitnessRefused, push
from tests.audit.chains import FIVE, Cluster, govern, make_genesis, make_raw
from tests.audit.test_tiles import root_by_tiles
from tests.integration.openapi_check import check_answer
from tests.integration.test_light_api import ChainNode
from tests.node.test_verify_light import commands_of

TOKEN, KEPT = new_token("witness", ["submit"])
WITNESS_NAME = "witness.example/w1"
TIME_S = 1_795_250_000


@dataclass
class StrictWitness:
    """A witness as C2SP tlog-witness has it, for one log."""

    origin: str
    log: NoteKey
    key: LogKey = field(default_factory=LogKey.generate)
    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    statuses: list[int] = field(default_factory=list)

    @property
    def note_key(self) -> NoteKey:
        return self.key.note_key(WITNESS_NAME, COSIGNATURE)

    async def add_checkpoint(self, request: web.Request) -> web.Response:
        status, body, kind = self.judge(await request.read())
        self.statuses.append(status)
        return web.Response(status=status, body=body, content_type=kind)

    def judge(self, body: bytes) -> tuple[int, bytes, str]:
        head, _, rest = body.partition(b"\n\n")
        old_line, *proof_lines = head.decode().split("\n")
        note = parse_note(rest)
        tree = parse_tree_head(note.text)
        proof = [base64.b64decode(line) for line in proof_lines]
        old = int(old_line.removeprefix("old "))
        try:
            signed = note.verify([self.log])
        except BadSignature:
            signed = []
        if tree.origin != self.origin or not signed:
            return (404 if tree.origin != self.origin else 403), b"", "text/plain"
        if old > tree.size:
            return 400, b"", "text/plain"
        if old != self.size:
            return 409, f"{self.size}\n".encode(), "text/x.tlog.size"
        try:
            merkle.verify_consistency(old, tree.size, self.root, tree.root, proof)
        except InvalidProof:
            return 422, b"", "text/plain"
        self.size, self.root = tree.size, tree.root
        return 200, self.key.cosign(note.text, WITNESS_NAME, TIME_S).to_line().encode(), "text/plain"


@dataclass
class Log:
    """A node that signs notes, a witness, and their addresses."""

    cluster: Cluster
    client: TestClient
    key: LogKey
    witness: StrictWitness
    witness_url: str
    now_ms: list[int]

    @property
    def url(self) -> str:
        return str(self.client.make_url("")).rstrip("/")

    async def get(self, path: str) -> tuple[int, bytes, str, str]:
        async with self.client.get(path) as response:
            body = await response.read()
            return response.status, body, response.content_type, response.headers.get("Cache-Control", "")

    async def push(self, asked: Witness | None = None) -> int:
        node, source = Client(self.url, TOKEN), ApiSource(self.url)
        asked = asked or Witness(self.witness_url, self.witness.note_key)
        note, found = await asyncio.to_thread(push, node, source, asked, self.cluster.peers[0].engine.chain_id)
        assert [one.time_s for one in found] == [TIME_S]
        return parse_tree_head(note.text).size


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    cluster = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    govern(cluster, slots=21)
    node = ChainNode(cluster)
    key = LogKey.generate()
    origin = origin_of(node.chain_id)
    witness = StrictWitness(origin, key.note_key(origin))
    served = web.Application()
    served.router.add_post("/prefix/add-checkpoint", witness.add_checkpoint)
    now_ms = [1_795_250_000_000]
    parts = ApiParts(tokens=[KEPT], log_key=key, witnesses=[witness.note_key], now_ms=lambda: now_ms[0])
    async with (
        TestServer(served) as server,
        TestClient(TestServer(make_app(node, parts)), auto_decompress=False) as client,
    ):
        yield Log(cluster, client, key, witness, str(server.make_url("/prefix")), now_ms)


# -- checkpoint and tiles ----------------------------------------------------------------------------------------------


async def test_the_checkpoint_is_the_final_block(log: Log) -> None:
    status, body, kind, cache = await log.get("/checkpoint")
    assert (status, kind, cache) == (200, "text/plain", "public, max-age=1")
    note = parse_note(body)
    final = log.cluster.peers[0].engine.final
    head = parse_tree_head(note.text)
    assert (head.origin, head.size) == (f"ledgerd/{log.cluster.peers[0].engine.chain_id.hex()}", final.height)
    assert head.root == final.block.sealed.header.history_root
    assert len(note.verify([log.key.note_key(head.origin)])) == 1
    proof = finality_of(note, log.cluster.peers[0].engine.chain_id)
    assert proof is not None
    assert (proof.header, len(body) < 4_096) == (final.block.sealed.header, True)
    govern(log.cluster, slots=22)
    later = parse_tree_head(parse_note((await log.get("/checkpoint"))[1]).text)
    assert later.size == head.size + 1


async def test_tiles_make_up_the_root(log: Log) -> None:
    head = parse_tree_head(parse_note((await log.get("/checkpoint"))[1]).text)
    tiles = {}
    for tile in tiles_of(head.size):
        status, body, kind, cache = await log.get(f"/tile/{tile.path}")
        assert (status, kind) == (200, "application/octet-stream")
        assert "immutable" in cache
        tiles[tile] = body
    assert root_by_tiles(head.size, tiles.__getitem__) == head.root
    _, entries, _, _ = await log.get(f"/tile/entries/000.p/{head.size}")
    ids = [entries[at + 2 : at + 34] for at in range(0, len(entries), 34)]
    engine = log.cluster.peers[0].engine
    assert ids == [engine.chain_id, *(engine.block_id_at(height) for height in range(1, head.size))]
    assert merkle.root_of(ids) == head.root


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("0/000", 404),
        ("0/000.p/21", 404),
        ("0/000.p/200", 404),
        ("1/000", 404),
        ("entries/001", 404),
        ("0/0", 400),
        ("9/000", 400),
        ("0/000.p/0", 400),
        ("entries/000/", 400),
        ("x/000", 400),
    ],
)
async def test_tiles_that_are_not_there(path: str, status: int, log: Log) -> None:
    found, body, kind, _ = await log.get(f"/tile/{path}")
    check_answer("get", "/tile/0/000", found, kind, json.loads(body))
    assert (found, json.loads(body)["field"]) == (status, "tile")


async def test_partial_tiles_of_before_are_still_there(log: Log) -> None:
    before = await log.get("/tile/0/000.p/13")
    govern(log.cluster, slots=30)
    assert await log.get("/tile/0/000.p/13") == before
    assert parse_tile("0/000.p/13").width * merkle.HASH_BYTES == len(before[1])


async def test_tiles_above_the_lowest_level_are_kept_as_far_as_they_go() -> None:
    store = MemoryStore()
    store.write(WriteBatch(puts=[(height_key(height), height.to_bytes(32)) for height in range(1, 3_000)]))
    tree = HistoryTree(store, bytes(32))
    reader = TileReader(tree)
    for width in (2, 9, 4, 11):
        assert await reader.read(Tile(1, 0, width)) == tile_bytes(Tile(1, 0, width), tree)
    store.write(WriteBatch(puts=[(height_key(height), None) for height in range(1, 2_000)]))
    assert len(await reader.read(Tile(1, 0, 11))) == 11 * 32
    with pytest.raises(StoreDamaged):
        await reader.read(Tile(0, 0))


async def test_without_a_key_and_before_anything_is_final() -> None:
    cluster = Cluster(make_genesis(name="governed", members=FIVE, seats=4))
    for parts, status in ((ApiParts(), 503), (ApiParts(log_key=LogKey.generate()), 404)):
        async with TestClient(TestServer(make_app(ChainNode(cluster), parts)), auto_decompress=False) as client:
            async with client.get("/checkpoint") as response:
                check_answer("get", "/checkpoint", response.status, response.content_type, await response.json())
                assert response.status == status
            async with client.get("/tile/0/000") as response:
                assert response.status == 404


async def test_consistency_over_http(log: Log) -> None:
    source = ApiSource(log.url)
    engine = log.cluster.peers[0].engine
    history = [engine.chain_id, *(engine.block_id_at(height) for height in range(1, engine.final.height))]
    for old in (0, 1, 5, 16, 20):
        path = await asyncio.to_thread(source.consistency, old, engine.final.height)
        assert path == merkle.consistency_proof([merkle.leaf_hash(one) for one in history], old)
    seen = [Earlier("x", 5, engine.block_id_at(5), merkle.root_of(history[:5]))]
    client = await asyncio.to_thread(extend, log.cluster.genesis, source, seen)
    assert client.point.height == engine.final.height
    for query, status, where in (("old=5", 400, "new"), ("old=9&new=5", 400, "old"), ("old=1&new=999", 404, "new")):
        async with log.client.get(f"/v1/light/consistency?{query}") as response:
            value = await response.json()
            check_answer("get", "/v1/light/consistency", response.status, response.content_type, value)
            assert (response.status, value["field"]) == (status, where)


async def test_who_asks_while_the_history_is_gathered_is_told_to_come_back(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = ChainNode(log.cluster)
    leaves = [merkle.leaf_hash(one) for one in HistoryTree(node.store, node.chain_id).block_ids(0, 20)]
    expected = [(history.root_key(at), merkle.root(leaves[2 * at : 2 * at + 2])) for at in range(10)]
    step, is_free = gathering._step, threading.Event()
    monkeypatch.setattr(history, "CHUNK_LEAVES", 2)
    monkeypatch.setattr(gathering, "CHUNK_LEAVES", 2)
    monkeypatch.setattr(gathering, "MISSING_MAX", 4)
    monkeypatch.setattr(gathering, "LOOK_S", 0.01)
    monkeypatch.setattr(gathering, "_step", lambda context: step(context) if is_free.is_set() else [])
    async with TestClient(TestServer(make_app(node, ApiParts())), auto_decompress=False) as client:
        for path in ("/v1/light/history?height=1&size=20", "/v1/light/consistency?old=1&new=20"):
            async with client.get(path) as response:
                value = await response.json()
                check_answer("get", path, response.status, response.content_type, value)
                assert (response.status, value["field"]) == (503, "history")
                assert "Retry-After" in response.headers
        # A short history is no trouble, nor are the leaves.
        async with client.get("/v1/light/history?height=1&size=9") as response:
            assert response.status == 200
        async with client.get("/tile/0/000.p/9") as response:
            assert response.status == 200
        is_free.set()
        for _ in range(500):
            if node.store.get(history.root_key(9)) is not None:
                break
            await asyncio.sleep(0.01)
        async with client.get("/v1/light/consistency?old=1&new=20") as response:
            assert response.status == 200
    rows = list(node.store.scan(history.ROOTS_PREFIX, history.ROOTS_PREFIX + b"\xff" * 9))
    assert rows == expected


async def test_what_is_gathered_and_cannot_be_written_is_written_later(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = ChainNode(log.cluster)
    node.failure = StoreFull("no room", where="disk")
    monkeypatch.setattr(history, "CHUNK_LEAVES", 2)
    monkeypatch.setattr(gathering, "LOOK_S", 0.01)
    async with TestClient(TestServer(make_app(node, ApiParts())), auto_decompress=False):
        await asyncio.sleep(0.2)
        assert node.store.get(history.root_key(0)) is None
        node.failure = None
        for _ in range(500):
            if node.store.get(history.root_key(9)) is not None:
                break
            await asyncio.sleep(0.01)
    assert [node.store.get(history.root_key(at)) is not None for at in range(11)] == [True] * 10 + [False]


# -- witnesses ---------------------------------------------------------------------------------------------------------


async def test_a_witness_cosigns_again_and_again(log: Log) -> None:
    asked = Witness(log.witness_url, log.witness.note_key)
    assert await log.push(asked) == 20
    govern(log.cluster, slots=26)
    assert await log.push(asked) == 25
    # Another time the sender remembers nothing, and is told.
    govern(log.cluster, slots=31)
    assert await log.push() == 30
    assert await log.push() == 30
    assert (log.witness.statuses, log.witness.size) == ([200, 200, 409, 200, 409, 200], 30)


async def test_the_checkpoint_carries_the_cosignature_for_a_while(log: Log) -> None:
    assert await log.push() == 20
    govern(log.cluster, slots=24)
    keys = [log.key.note_key(log.witness.origin), log.witness.note_key]
    note = parse_note((await log.get("/checkpoint"))[1])
    assert parse_tree_head(note.text).size == 20
    assert [found.time_s for found in note.verify(keys)] == [None, TIME_S]
    assert finality_of(note, log.cluster.peers[0].engine.chain_id) is not None
    newest = parse_note((await log.get("/checkpoint?newest=1"))[1])
    assert parse_tree_head(newest.text).size == 23
    assert [found.time_s for found in newest.verify(keys)] == [None]
    log.now_ms[0] += COSIGNED_SHOWN_MS + 1
    assert (await log.get("/checkpoint"))[1] == newest.to_bytes()


async def test_what_a_witness_refuses(log: Log) -> None:
    for field_name, value, status in (("origin", "another", 404), ("log", log.key.note_key("another"), 403)):
        kept = getattr(log.witness, field_name)
        setattr(log.witness, field_name, value)
        with pytest.raises(WitnessRefused) as caught:
            await log.push()
        assert (caught.value.status, log.witness.size) == (status, 0)
        setattr(log.witness, field_name, kept)
    await log.push()
    log.witness.root = bytes(32)
    with pytest.raises(WitnessRefused, match="does not extend the one it saw"):
        await log.push()
    log.witness.size = 99
    with pytest.raises(WitnessRefused, match="a larger history already"):
        await log.push()
    with pytest.raises(WitnessRefused, match="is not signed by it"):
        stranger = Witness(log.witness_url, LogKey.generate().note_key(WITNESS_NAME, COSIGNATURE))
        log.witness.size, log.witness.root = 0, merkle.EMPTY_ROOT
        await log.push(stranger)
    with pytest.raises(WitnessRefused, match="it does not answer"):
        await log.push(Witness("http://127.0.0.1:1/x", log.witness.note_key))


async def test_cosignatures_that_are_not_taken(log: Log) -> None:
    note = parse_note((await log.get("/checkpoint"))[1])
    good = note.signed(log.witness.key.cosign(note.text, WITNESS_NAME, TIME_S)).to_bytes()
    other = LogKey.generate()
    tried = [
        (note.to_bytes(), 422),
        (note.signed(other.cosign(note.text, WITNESS_NAME, TIME_S)).to_bytes(), 422),
        (good.replace(b"\n20\n", b"\n21\n"), 422),
        (b"\n".join(line for line in good.split(b"\n") if b"ledgerd/" not in line[:12]), 422),
        (b"", 400),
        (good[:-1], 400),
        (b"x" * 300_000, 413),
        (good, 200),
    ]
    for body, status in tried:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}
        async with log.client.post("/v1/light/cosignatures", data=body, headers=headers) as response:
            value = await response.json(content_type=None)
            check_answer("post", "/v1/light/cosignatures", response.status, response.content_type, value)
            assert response.status == status
    async with log.client.post("/v1/light/cosignatures", data=good, headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 401
    with pytest.raises(ApiFault):
        await asyncio.to_thread(Client(log.url).post, "/v1/light/cosignatures", good, content_type="text/plain")


async def test_cosignatures_outlast_a_restart(log: Log) -> None:
    await log.push()
    govern(log.cluster, slots=24)
    shown = (await log.get("/checkpoint"))[1]
    store = log.cluster.peers[0].store
    for is_damaged in (False, True):
        if is_damaged:
            store.write(WriteBatch([(NOTES_ROW, b"nothing that can be read")]))
        parts = ApiParts(log_key=log.key, witnesses=[log.witness.note_key], now_ms=lambda: log.now_ms[0])
        app = make_app(ChainNode(log.cluster), parts)
        async with (
            TestClient(TestServer(app), auto_decompress=False) as client,
            client.get("/checkpoint") as response,
        ):
            body = await response.read()
        assert (body == shown, parse_tree_head(parse_note(body).text).size) == (
            not is_damaged,
            23 if is_damaged else 20,
        )


async def test_a_cosignature_counts_once_however_often_it_is_sent(log: Log) -> None:
    """A note has room for so many lines: who repeats one must not make it a note that nobody can read."""
    size = await log.push()
    note = parse_note((await log.get("/checkpoint"))[1])
    own, cosigned = note.signatures[0], note.signatures[-1]
    assert cosigned.name == WITNESS_NAME
    many = Note(note.text, (own, *[cosigned] * (SIGNATURES_MAX - 1))).to_bytes()
    node = Client(log.url, TOKEN)
    answer = await asyncio.to_thread(node.post, "/v1/light/cosignatures", many, content_type="text/plain")
    assert answer == {"height": size, "cosignatures": 1}
    assert parse_note((await log.get("/checkpoint"))[1]) == note


async def test_an_older_cosignature_takes_no_newer_ones_place(log: Log) -> None:
    old = parse_note((await log.get("/checkpoint"))[1])
    govern(log.cluster, slots=24)
    await log.push()
    body = old.signed(log.witness.key.cosign(old.text, WITNESS_NAME, TIME_S)).to_bytes()
    answer = await asyncio.to_thread(
        Client(log.url, TOKEN).post, "/v1/light/cosignatures", body, content_type="text/plain"
    )
    assert answer == {"height": 23, "cosignatures": 1}
    assert parse_tree_head(parse_note((await log.get("/checkpoint"))[1]).text).size == 23


async def test_from_the_command_line(log: Log) -> None:
    options = ["witness", "push", log.witness_url, "--key", log.witness.note_key.to_text(), "--url", log.url]
    done = await asyncio.to_thread(CliRunner().invoke, ledgerctl, [*options, "--token", TOKEN])
    assert (done.exit_code, done.stdout) == (0, f"height 20 cosigned by {WITNESS_NAME}\n")
    log.cluster.submit(make_raw(log.cluster.genesis, range(900, 903), now_ms=log.cluster.now_ms))
    done = await asyncio.to_thread(CliRunner().invoke, ledgerctl, [*options, "--token", TOKEN, "--json"])
    assert json.loads(done.stdout) == {"height": 20, "origin": log.witness.origin, "time_s": [TIME_S]}


async def test_from_the_command_line_again_and_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that refuses is told of, and asked again."""
    slept: list[int] = []

    def sleep(seconds: int) -> None:
        slept.append(seconds)
        log.witness.origin = "another" if len(slept) == 1 else origin_of(log.cluster.peers[0].engine.chain_id)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    options = ["witness", "push", log.witness_url, "--key", log.witness.note_key.to_text(), "--url", log.url]
    done = await asyncio.to_thread(CliRunner().invoke, ledgerctl, [*options, "--token", TOKEN, "--every", "9"])
    assert (done.exit_code, slept, done.stdout.count("height 20 cosigned")) == (0, [9, 9, 9], 2)
    assert "error: it does not know this chain" in done.stderr


async def test_the_commands_of_the_guide(log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As they stand there, but for what is the reader's own: addresses, the witness's key, the chain's age."""
    _, (node, _), (push, pushed), (fetch, _), (verify, said) = commands_of("Notes and tiles")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEDGERCTL_URL", log.url)
    monkeypatch.setattr("time.sleep", interrupt)
    keep(tmp_path / "token", TOKEN.encode())
    keep(tmp_path / "genesis.json", genesis_to_json(log.cluster.genesis))
    key, url = push[push.index("--key") + 1], push[3]
    assert [node[node.index("--witnesses") + 1], verify[verify.index("--key") + 1]] == [key, key]
    own = {key: log.witness.note_key.to_text(), url: log.witness_url}
    done = await asyncio.to_thread(CliRunner().invoke, ledgerctl, [own.get(word, word) for word in push[1:]])
    assert (done.exit_code, done.stderr) == (0, "")
    assert [as_of(line) for line in done.stdout.splitlines()] == [as_of(line) for line in pushed]
    *_, name, address = fetch
    shown = await asyncio.to_thread(Client(log.url).get_bytes, urlsplit(address).path, bytes_max=NOTE_BYTES_MAX)
    keep(tmp_path / name, shown)
    # The voting set has changed since genesis: who checks the note followed the chain before.
    point = f"5:{log.cluster.peers[0].engine.block_id_at(5).hex()}"
    follow = [log.url, "--genesis", "genesis.json", "--since", point, "--save-checkpoint", "far.json"]
    assert (await asyncio.to_thread(CliRunner().invoke, ledger_verify, follow)).exit_code == 0
    words = [own.get(word, word) for word in verify[1:]]
    checked = await asyncio.to_thread(CliRunner().invoke, ledger_verify, words)
    assert (checked.exit_code, checked.stderr.count("\n")) == (0, 1)
    assert [as_of(line) for line in checked.stdout.splitlines()] == [as_of(line) for line in said]


def keep(path: Path, data: bytes) -> None:
    """Write a small file."""
    path.write_bytes(data)


def interrupt(seconds: int) -> None:
    """Be the person who ends a command that goes on for ever."""
    assert seconds == 60
    raise KeyboardInterrupt


def as_of(line: str) -> str:
    """Return a line without heights, hashes, numbers of voting sets and times."""
    return re.sub(r"\b(?:[0-9a-f]{4,}\.{0,3}(?![0-9a-z])|\d[-:\d]*\b)", "N", line)
