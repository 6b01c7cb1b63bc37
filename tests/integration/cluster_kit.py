"""A cluster of real ``ledgerd`` processes for tests, and signed transactions to feed it."""

from __future__ import annotations

import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ledger.codec import encode
from ledger.genesis import chain_id_of
from ledger.transaction import make_transaction, tx_id_of
from node.cluster import Cluster, make_cluster
from node.founding import DEFAULT_PARAMETERS
from node.keyfile import read_key
from node.localnet import LocalNode, stop_all
from telephony.synthetic import Traffic, generate_records

MEMBERS = ("alpha", "beta", "gamma", "delta")
HOUR_MS = 3_600_000


def wall_ms() -> int:
    """Return the wall clock."""
    return time.time_ns() // 1_000_000


class Feeder:
    """Signs synthetic records as one member and hands them to nodes as raw transactions."""

    def __init__(self, cluster: Cluster, member: int = 0, seed: int = 1) -> None:
        self.cluster = cluster
        place = cluster.nodes[member]
        self._member_id = place.member_id
        self._key = read_key(place.home / "submit.pem", is_dev=False)
        self._records = generate_records(Traffic(seed=seed, start_ms=wall_ms() - 3 * HOUR_MS))
        self.sent: dict[bytes, int] = {}
        """Records of each transaction that a node said it has on disk."""

    def make(self, records: int) -> tuple[bytes, bytes]:
        """Return id and bytes of a fresh transaction."""
        now = wall_ms()
        tx = make_transaction(
            [encode(record) for record in itertools.islice(self._records, records)],
            key=self._key,
            member_id=self._member_id,
            chain_id=chain_id_of(self.cluster.genesis),
            created_ms=now,
            expires_ms=now + HOUR_MS,
        )
        return tx_id_of(tx.envelope), encode(tx)

    def send(self, node: LocalNode, records: int = 20) -> bytes | None:
        """Hand in a fresh transaction; its id once it is on the node's disk, None where the node did not say so."""
        tx_id, raw = self.make(records)
        try:
            answer = post(node, "/v1/transactions", raw, "application/msgpack")
        except OSError:
            return None
        if not any(result.get("outcome") in {"stored", "known"} for result in answer.get("results", [answer])):
            return None
        self.sent[tx_id] = records
        return tx_id


def post(node: LocalNode, path: str, body: bytes, content_type: str = "application/json") -> dict:
    """Post to a node's API with its token."""
    headers = {"Authorization": f"Bearer {node.place.token}", "Content-Type": content_type}
    request = urllib.request.Request(node.place.url + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def get(node: LocalNode, path: str) -> dict | None:
    """Ask a node's API; None where it does not answer."""
    try:
        with urllib.request.urlopen(node.place.url + path, timeout=5) as response:
            return json.load(response)
    except OSError:
        return None


def metric(node: LocalNode, name: str) -> float:
    """Return the sum of a metric's samples."""
    with urllib.request.urlopen(node.place.url + "/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    values = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
    assert values, f"no metric {name}"
    return sum(float(line.rsplit(" ", 1)[1]) for line in values)


def wait_until(what: str, is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Return when ``is_so``; fail naming ``what`` when time is up."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def is_final(node: LocalNode, tx_id: bytes) -> bool:
    """Tell whether a node calls a transaction final."""
    answer = get(node, f"/v1/transactions/{tx_id.hex()}")
    return bool(answer) and answer["promise"]["state"] == "final"


def statuses(nodes: list[LocalNode]) -> str:
    """Return one line for each node, for a failed assertion."""
    return "\n".join(f"{node.name}: {get(node, '/v1/status')}" for node in nodes)


@contextmanager
def running_cluster(
    home: Path,
    *,
    slot_ms: int = 500,
    arguments: tuple[str, ...] = (),
    prepare: Callable[[Cluster], None] | None = None,
    **parameters: int,
) -> Iterator[tuple[Cluster, list[LocalNode]]]:
    """Four nodes that are up; all are ended on the way out.

    prepare: may change their files before they start.
    """
    cluster = make_cluster(
        home,
        MEMBERS,
        genesis_time_ms=wall_ms(),
        parameters=msgspec.structs.replace(DEFAULT_PARAMETERS, slot_ms=slot_ms, **parameters),
    )
    if prepare is not None:
        prepare(cluster)
    nodes = [LocalNode(place, arguments) for place in cluster.nodes]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        yield cluster, nodes
    finally:
        stop_all(nodes)
