"""Faults while four real nodes run: each has its sentence, and costs nothing that was good."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import aiohttp
import msgpack
import msgspec
import pytest

from consensus.election import elect
from consensus.schedule import compute_schedule, producer_at
from ledger.block import EMPTY_TOTALS, Block, Header, SealedHeader, Vote, block_id_of, body_root, vote_digest
from ledger.codec import ZERO32, encode
from ledger.crypto import PrivateKey
from ledger.genesis import chain_id_of, rule_set_id_of
from ledger.state import genesis_state
from ledger.transaction import Transaction, make_transaction
from node.cluster import Cluster, make_cluster
from node.keyfile import read_key
from node.localnet import LocalNode, stop_all
from p2p import limits
from p2p.messages import Transactions, Votes
from p2p.transport import PATH
from telephony.synthetic import Traffic, generate_records
from tests.integration.cluster_kit import (
    HOUR_MS,
    Feeder,
    get,
    is_final,
    metric,
    running_cluster,
    statuses,
    wait_until,
    wall_ms,
)
from tests.integration.fault_kit import (
    Loop,
    OddPeer,
    Relays,
    assert_clean_log,
    events,
    fill,
    lead_through,
    say,
    set_option,
    small_disk,
)

Net = tuple[Cluster, list[LocalNode]]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """Four nodes that outlive several tests."""
    with running_cluster(tmp_path_factory.mktemp("faults") / "net") as running:
        yield running


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as running:
        yield running


def all_final(nodes: list[LocalNode], feeder: Feeder, seconds: float = 60) -> None:
    """Wait until every transaction that a node said it has is final at each of ``nodes``."""
    for node in nodes:
        for tx_id in feeder.sent:
            wait_until(
                f"{tx_id.hex()} final at {node.name}\n{statuses(nodes)}",
                lambda node=node, tx_id=tx_id: is_final(node, tx_id),
                seconds,
            )


def key_of(cluster: Cluster, member: int) -> PrivateKey:
    """Return a member's node key."""
    return read_key(cluster.nodes[member].home / "node.pem", is_dev=False)


# --- A full disk ----------------------------------------------------------------------------------------------


def refusal(node: LocalNode, feeder: Feeder) -> tuple[int, dict]:
    """Hand in a transaction that is refused; return status and problem document."""
    _, raw = feeder.make(5)
    headers = {"Authorization": f"Bearer {node.place.token}", "Content-Type": "application/msgpack"}
    request = urllib.request.Request(node.place.url + "/v1/transactions", data=raw, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10).close()
    with caught.value as answer:
        return answer.code, json.loads(answer.read())


def health(node: LocalNode) -> str:
    """Return what ``/healthz`` says."""
    try:
        with urllib.request.urlopen(node.place.url + "/healthz", timeout=5) as answer:
            return json.load(answer)["status"]
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)["status"]


@pytest.mark.slow
def test_a_full_disk_refuses_records_and_recovers_by_itself(tmp_path: Path) -> None:
    """The node says 507 as long as it lasts, the others go on, and with room it catches up unaided."""
    with ExitStack() as stack:

        def prepare(cluster: Cluster) -> None:
            stack.enter_context(small_disk(cluster.nodes[3].data, mib=96))

        with running_cluster(tmp_path / "net", prepare=prepare) as (cluster, nodes):
            full, others = nodes[3], nodes[:3]
            feeder = Feeder(cluster)
            assert feeder.send(full) is not None
            all_final(nodes, feeder)
            # Its engine has something to write for this one, too: the blocks that bring it, and votes.
            assert feeder.send(full) is not None
            ballast = fill(full.place.data)
            for _ in range(4):
                status, problem = refusal(full, feeder)
                assert (status, problem["type"]) == (507, "urn:ledgerd:problem:store-full")
                assert feeder.send(others[0]) is not None
                time.sleep(0.5)
            assert health(full) == "disk-full"
            assert metric(full, "ledgerd_disk_full") == 1
            all_final(others, feeder)
            # Not only at first, but while its engine waits for room as well.
            assert refusal(full, feeder)[0] == 507
            assert full.is_running
            ballast.unlink()
            all_final(nodes, feeder)
            wait_until("it is well again", lambda: health(full) == "ok")
            assert feeder.send(full) is not None
            all_final(nodes, feeder)
            assert metric(full, "ledgerd_disk_full") == 0
            assert any("the disk is full" in event["error"] for event in events(full, "disk full, waiting for room"))
            for node in nodes:
                assert_clean_log(node)


# --- SIGTERM --------------------------------------------------------------------------------------------------


def test_a_stop_under_load_keeps_every_answer(net: Net) -> None:
    """SIGTERM amid submissions: status 0 within seconds, and what was answered 2xx is final after the restart."""
    cluster, nodes = net
    node = nodes[1]
    feeders = [Feeder(cluster, member=1, seed=seed) for seed in range(11, 14)]
    is_over = threading.Event()

    def feed(feeder: Feeder) -> None:
        for _ in range(500):
            if is_over.is_set():
                return
            try:
                feeder.send(node, 50)
            except http.client.HTTPException:
                return

    threads = [threading.Thread(target=feed, args=(feeder,)) for feeder in feeders]
    for thread in threads:
        thread.start()
    try:
        wait_until("every feeder was answered", lambda: all(len(feeder.sent) > 3 for feeder in feeders))
        began = time.monotonic()
        node.terminate()
        assert node.wait_stopped(15) == 0
        took = time.monotonic() - began
    finally:
        is_over.set()
        for thread in threads:
            thread.join(30)
    assert took < 15
    node.start()
    node.wait_ready()
    for feeder in feeders:
        all_final([node, nodes[0]], feeder)
    assert_clean_log(node)
    assert [event["reason"] for event in events(node, "stopping")] == ["signal"]


# --- Peers that do not belong here ----------------------------------------------------------------------------


def test_a_node_of_another_chain_is_refused_with_the_reason_in_both_logs(net: Net, tmp_path: Path) -> None:
    cluster, nodes = net
    other = make_cluster(tmp_path / "other", ["omega"], genesis_time_ms=wall_ms())
    set_option(other.nodes[0], "peers", [f"ws://{nodes[0].place.listen}"])
    omega = LocalNode(other.nodes[0])
    try:
        omega.start()
        omega.wait_ready()
        ids = {chain_id_of(cluster.genesis).hex(), chain_id_of(other.genesis).hex()}
        for node in (omega, nodes[0]):
            wait_until(
                f"{node.name} says why",
                lambda node=node: any(
                    "you are on another chain" in event["reason"] and all(name in event["reason"] for name in ids)
                    for event in events(node, "no peering")
                ),
                20,
            )
        assert get(omega, "/v1/status")["peers"] == 0
    finally:
        stop_all([omega])
    _assert_unaffected(net)


def test_a_stranger_is_refused_with_the_reason_on_both_sides(net: Net, loop: Loop) -> None:
    cluster, nodes = net
    stranger = PrivateKey.generate()
    with OddPeer(loop, cluster.genesis, stranger, nodes[:1]) as peer:
        wait_until("the stranger hears why", lambda: any("no member has this node key" in r for r in peer.refused), 20)
        assert peer.connected == set()
    said = [event["reason"] for event in events(nodes[0], "no peering")]
    assert any("no member has this node key" in reason and stranger.key_id.hex() in reason for reason in said)
    _assert_unaffected(net)


def test_nonsense_on_the_peer_port_does_no_harm(net: Net) -> None:
    """Random bytes, HTTP, frames too large, cut short or of the wrong kind, and connections that say nothing."""
    _, nodes = net
    address = nodes[0].place.listen
    upgrade = (
        f"GET {PATH} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    frames = {
        "cut": b"\x82\xfe\x03\xe8" + bytes(4) + b"\x01" * 10,
        "four exabytes": b"\x82\xff" + b"\x3f" + b"\xff" * 7 + bytes(4) + b"x" * 1000,
        "unmasked": b"\x82\x05hello",
        "reserved bits": b"\xf2\x85" + bytes(4) + b"hello",
        "nothing": b"",
    }
    for _ in range(5):
        say(address, os.urandom(2000))
    assert b"400" in say(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50))[:40]
    assert b" 404 " in say(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[:40]
    assert b" 400 " in say(address, f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())[:40]
    say(
        address, b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + bytes(9999)
    )
    for data in frames.values():
        assert b" 101 " in say(address, upgrade + data)[:40]
    asyncio.run(_say_frames(f"http://{address}{PATH}"))
    assert all(node.is_running for node in nodes)
    _assert_unaffected(net)
    assert_clean_log(nodes[0])


async def _say_frames(url: str) -> None:
    """Say well-formed WebSocket frames that no hello is; each ends the connection."""
    async with aiohttp.ClientSession() as session:
        for frame in (
            b"",
            b"\x00",
            b"\x01\xc1",
            b"\x07" + os.urandom(100),
            bytes(limits.HANDSHAKE_FRAME_BYTES_MAX + 1),
        ):
            async with session.ws_connect(url) as ws:
                await ws.send_bytes(frame)
                await _ended(ws)
        async with session.ws_connect(url, max_msg_size=0) as ws:
            # It may be closed before all of it is said.
            with suppress(OSError, aiohttp.ClientError):
                await ws.send_bytes(bytes(limits.FRAME_BYTES_MAX + 1))
            await _ended(ws)
        async with session.ws_connect(url) as ws:
            await ws.send_str("hello")
            await _ended(ws)


async def _ended(ws: aiohttp.ClientWebSocketResponse) -> None:
    async with asyncio.timeout(10):
        while (await ws.receive()).type not in {
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
        }:
            pass


def _assert_unaffected(net: Net) -> None:
    """Assert that the cluster still makes records final, with all nodes connected."""
    cluster, nodes = net
    feeder = Feeder(cluster, seed=time.time_ns())
    assert feeder.send(nodes[0]) is not None
    all_final(nodes, feeder)
    wait_until("all are connected", lambda: [get(node, "/v1/status")["peers"] for node in nodes] == [3] * 4)


# --- Partition ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_halves_make_nothing_final_and_heal_to_one_chain(tmp_path: Path, loop: Loop) -> None:
    relays = Relays()
    with running_cluster(tmp_path / "net", prepare=lambda c: lead_through(relays, loop, c)) as (cluster, nodes):
        left, right = nodes[:2], nodes[2:]
        feeder = Feeder(cluster)
        assert feeder.send(nodes[0]) is not None
        all_final(nodes, feeder)
        wait_until("all are connected", lambda: [get(node, "/v1/status")["peers"] for node in nodes] == [3] * 4)
        ways = {(a.name, b.name) for a, b in itertools.product(left, right)}
        loop.call(relays.cut, ways | {(b, a) for a, b in ways})
        wait_until("they are parted", lambda: [get(node, "/v1/status")["peers"] for node in nodes] == [1] * 4)
        parted = [tx_id for _ in range(5) for node in (left[0], right[0]) if (tx_id := feeder.send(node))]
        assert len(parted) == 10
        wait_until(
            "both halves build on",
            lambda: all(
                (status := get(node, "/v1/status"))["head"]["height"] > status["final"]["height"] for node in nodes
            ),
        )
        time.sleep(3)
        assert [tx_id for tx_id in parted for node in nodes if is_final(node, tx_id)] == []
        assert {get(node, "/v1/status")["sync"]["state"] for node in nodes} == {"alone"}
        loop.call(relays.heal)
        all_final(nodes, feeder)
        height = min(get(node, "/v1/status")["final"]["height"] for node in nodes)
        blocks = [get(node, f"/v1/blocks/{height}") for node in nodes]
        assert all(block == blocks[0] for block in blocks)
        for node in nodes:
            assert metric(node, "ledgerd_faults_proven_total") == 0
            assert_clean_log(node)
    loop.run(relays.close())


# --- A member that lies ---------------------------------------------------------------------------------------


class Lies:
    """What delta's key can sign and no honest node would say."""

    def __init__(self, cluster: Cluster, witness: LocalNode) -> None:
        self.genesis = cluster.genesis
        self.chain_id = chain_id_of(cluster.genesis)
        self.key = key_of(cluster, 3)
        self._submit_key = read_key(cluster.nodes[3].home / "submit.pem", is_dev=False)
        self._witness = witness
        self._records = generate_records(Traffic(seed=77, start_ms=wall_ms() - 3 * HOUR_MS))

    def block(self, *, own_slot: bool, key: PrivateKey | None = None) -> Block:
        """Return an empty block on the head, in a slot of delta's or of another's, signed by ``key`` as if by delta."""
        head = get(self._witness, "/v1/head")["head"]
        parameters = self.genesis.parameters
        schedule = compute_schedule(elect(genesis_state(self.genesis)), 0, parameters.epoch_slots, self.chain_id)
        slots = range(head["slot"] + 1, head["slot"] + 8)
        slot = next(s for s in slots if (producer_at(schedule, s).member_id == "delta") is own_slot)
        # A block of a slot to come would be ignored, not rejected.
        time.sleep(max(0, self.genesis.genesis_time_ms + slot * parameters.slot_ms - wall_ms()) / 1000)
        header = Header(
            1, self.chain_id, head["height"] + 1, slot, bytes.fromhex(head["block_id"]), self.key.key_id,
            rule_set_id_of(self.genesis.rules), 0, body_root([]), EMPTY_TOTALS, os.urandom(32), ZERO32, ZERO32,
        )  # fmt: skip
        return Block(SealedHeader(header, (key or self.key).sign(block_id_of(header)), None), [])

    def vote(self, target_id: bytes, *, height: int, source_height: int = 0, key: PrivateKey | None = None) -> Vote:
        """Return a vote of delta's from the chain's beginning, or a height given, signed by ``key``."""
        link = (source_height, self.chain_id, height, target_id)
        return Vote(*link, self.key.key_id, (key or self.key).sign(vote_digest(self.chain_id, *link)))

    def transaction(self, *items: bytes) -> Transaction:
        """Return a transaction of delta's, well signed."""
        now = wall_ms()
        return make_transaction(
            list(items),
            key=self._submit_key,
            member_id="delta",
            chain_id=self.chain_id,
            created_ms=now,
            expires_ms=now + HOUR_MS,
        )

    def bad_transactions(self) -> dict[str, Transaction]:
        """Return transactions that nobody may pass on, by what is to be said of them."""
        records = [next(self._records) for _ in range(4)]
        fields = msgpack.unpackb(encode(records[0]), use_list=True)
        good = self.transaction(encode(records[1]))
        return {
            "items[0].end_ms: The call ended 1 ms before it was set up": self.transaction(
                encode(msgspec.structs.replace(records[2], end_ms=records[2].setup_ms - 1))
            ),
            "signature: the signature does not verify": msgspec.structs.replace(
                good, signature=bytes(31) + b"\x01" + bytes(31) + b"\x01"
            ),
            "items[0].answer_ms: Expected int, got float": self.transaction(
                msgpack.packb([*fields[:6], float(fields[6]), *fields[7:]])
            ),
            "array of at most length 19, got 20": self.transaction(msgpack.packb([*fields, 1])),
        }


@pytest.mark.slow
def test_a_member_that_lies_is_rejected_banned_and_outvoted(tmp_path: Path, loop: Loop) -> None:
    """Blocks, votes and transactions that do not hold: each is named in the log, and three honest nodes go on."""
    with running_cluster(tmp_path / "net") as (cluster, nodes):
        honest = nodes[:3]
        nodes[3].terminate()
        assert nodes[3].wait_stopped() == 0
        feeder = Feeder(cluster)
        assert feeder.send(honest[0]) is not None
        all_final(honest, feeder)
        lies = Lies(cluster, honest[0])
        targets = [key_of(cluster, member).key_id for member in range(3)]
        with OddPeer(loop, cluster.genesis, lies.key, honest) as liar:
            _lie_about_blocks(liar, lies, honest[0], targets[0])
            _lie_about_votes(liar, lies, honest, targets[1])
            _lie_about_records(liar, lies, honest[2], targets[2])
        assert feeder.send(honest[1]) is not None
        all_final(honest, feeder)
        for node in honest:
            assert_clean_log(node)
        nodes[3].start()
        nodes[3].wait_ready()


def _rejections(node: LocalNode) -> str:
    return "\n".join(event["error"] for event in events(node, "rejected"))


def _await_rejection(node: LocalNode, sentence: str) -> None:
    wait_until(f"{node.name} rejects: {sentence}\n{_rejections(node)}", lambda: sentence in _rejections(node), 20)


def _lie_about_blocks(liar: OddPeer, lies: Lies, node: LocalNode, target: bytes) -> None:
    """Four lies: the last bans, and the key is refused from then on."""
    liar.tell(target, lies.block(own_slot=True, key=PrivateKey.generate()))
    _await_rejection(node, "signature: the signature does not verify")
    for _ in range(20):
        # One that comes after the head moved on may be ignored, as final already.
        if liar.ended:
            break
        liar.tell(target, lies.block(own_slot=False))
        time.sleep(0.2)
    _await_rejection(node, "the slot is another producer's")
    wait_until("the liar is banned", lambda: any("another producer's" in reason for reason in liar.ended), 20)
    wait_until("and not let in again", lambda: any("banned here" in reason for reason in liar.ended + liar.refused), 30)


def _lie_about_votes(liar: OddPeer, lies: Lies, honest: list[LocalNode], target: bytes) -> None:
    """A wrong signature, a link that leads downwards, a stale one; and a double vote, which all are told of."""
    height = get(honest[1], "/v1/head")["head"]["height"] + 1_000
    liar.tell(target, Votes([lies.vote(b"\x01" * 32, height=height, key=PrivateKey.generate())]))
    _await_rejection(honest[1], "the signature does not verify")
    liar.tell(target, Votes([lies.vote(b"\x01" * 32, height=height, source_height=height)]))
    _await_rejection(honest[1], "t_height: the target is not above the source")
    # A vote of nobody's that is late besides is no fault: nothing is charged for it.
    liar.tell(target, Votes([msgspec.structs.replace(lies.vote(b"\x01" * 32, height=1), key_id=bytes(20))]))
    liar.tell(target, Votes([lies.vote(b"\x02" * 32, height=height), lies.vote(b"\x03" * 32, height=height)]))
    for node in (honest[1], honest[2]):
        # For this, or for its blocks: it may have sealed two in one slot before.
        wait_until(f"{node.name} holds delta faulty", lambda node=node: accused(node) == ["delta"], 20)
    assert len(events(honest[1], "rejected")) == 2


def accused(node: LocalNode) -> list[str]:
    """Return who is struck or about to be, as a node says."""
    answer = get(node, "/v1/evidence")
    return [case["member_id"] for case in answer["evidence"]] if answer else []


def _lie_about_records(liar: OddPeer, lies: Lies, node: LocalNode, target: bytes) -> None:
    """A record that contradicts itself, a wrong signature, a float, an unknown field."""
    bad = lies.bad_transactions()
    for sentence, transaction in bad.items():
        liar.tell(target, Transactions([encode(transaction)]))
        _await_rejection(node, sentence)
    assert metric(node, "ledgerd_rejected_total") == len(bad)
    (banned,) = events(node, "banned")
    assert (banned["peer"], banned["for_ms"]) == (lies.key.key_id.hex(), limits.BAN_MS)
