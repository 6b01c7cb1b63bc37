"""What goes on all the time while the scenario plays: records are handed in, finality and offices are watched."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from stage import NotHeld, Screen

from ledger.codec import encode
from ledger.errors import LedgerError
from ledger.genesis import chain_id_of
from ledger.transaction import make_transaction, tx_id_of
from node.client import ApiFault
from node.cluster import Cluster
from node.keyfile import read_key
from node.localnet import LocalNode
from telephony.synthetic import Traffic, generate_records

RECORDS = 5
EVERY_S = 0.25
LIFETIME_MS = 3_600_000
GIVE_UP_S = 20.0
"""A transaction that no node takes for this long fails the run."""
LOOK_S = 0.3


def wall_ms() -> int:
    """Return the wall clock."""
    return time.time_ns() // 1_000_000


class Feeder:
    """Hands in a few records every quarter of a second, each member's at its own node or, failing that, at another.

    Attributes:
        sent: id of each transaction (hex) that a node said it has on disk, with its records.
        retries: times that another node had to be asked.
        failure: why it gave up; empty while all is well.
    """

    def __init__(self, cluster: Cluster, nodes: Sequence[LocalNode]) -> None:
        self.sent: dict[str, int] = {}
        self.retries = 0
        self.failure = ""
        self._nodes = nodes
        self._chain_id = chain_id_of(cluster.genesis)
        self._keys = [read_key(place.home / "submit.pem", is_dev=False) for place in cluster.nodes]
        self._names = [place.member_id for place in cluster.nodes]
        self._records = [
            generate_records(Traffic(seed, wall_ms() - LIFETIME_MS)) for seed in range(1, len(self._names) + 1)
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, once what is under way was answered."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(GIVE_UP_S + 5)

    def _run(self) -> None:
        for number in itertools.count():
            if self._stop.wait(EVERY_S):
                return
            member = number % len(self._names)
            tx_id, raw = self._make(member)
            if not self._hand_in(raw, member):
                self.failure = f"no node took transaction {tx_id} within {GIVE_UP_S:.0f} s"
                return
            self.sent[tx_id] = RECORDS

    def _make(self, member: int) -> tuple[str, bytes]:
        created_ms = wall_ms()
        transaction = make_transaction(
            [encode(record) for record in itertools.islice(self._records[member], RECORDS)],
            key=self._keys[member],
            member_id=self._names[member],
            chain_id=self._chain_id,
            created_ms=created_ms,
            expires_ms=created_ms + LIFETIME_MS,
        )
        return tx_id_of(transaction.envelope).hex(), encode(transaction)

    def _hand_in(self, raw: bytes, member: int) -> bool:
        """Offer a transaction until a node has it on disk: the same again is the same transaction."""
        deadline, turn = time.monotonic() + GIVE_UP_S, member
        while time.monotonic() < deadline:
            # The founders' nodes, the first four, do not leave; the one that lies dead does not answer.
            try:
                self._nodes[turn % len(self._names)].client.submit_transaction(raw)
            except ApiFault:
                turn += 1
                self.retries += 1
                time.sleep(0.1)
            else:
                return True
        return False


class FinalityWatch:
    """Follows a node's live stream: how long finality pauses at most.

    Attributes:
        finals: number of final blocks seen.
        gap_s: longest time between two that became final one after the other, and ``gap_height``, the later one's.
    """

    def __init__(self, node: LocalNode) -> None:
        self.finals = 0
        self.gap_s = 0.0
        self.gap_height = 0
        self._node = node
        self._last_s: float | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="finality", daemon=True).start()

    def stop(self) -> None:
        """Take no more note."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(LedgerError):
                for event in self._node.client.events():
                    if self._stop.is_set():
                        return
                    if event.get("event") == "final":
                        self._on_final(int(event["height"]))
            time.sleep(0.1)

    def _on_final(self, height: int) -> None:
        now_s = time.monotonic()
        self.finals += 1
        if self._last_s is not None and now_s - self._last_s > self.gap_s:
            self.gap_s, self.gap_height = now_s - self._last_s, height
        self._last_s = now_s


class OfficeWatch:
    """Asks a node who produces and votes, and says what changed.

    Attributes:
        view: the last answer of ``/v1/producers``.
        sizes: the voting sets seen, by how many vote.
    """

    def __init__(self, screen: Screen, node: LocalNode) -> None:
        self.view: dict[str, Any] = {}
        self.sizes: list[int] = []
        self._screen = screen
        self._node = node
        self._told: tuple[object, ...] = ()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="offices", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping = True
        self._thread.join(10)

    def look(self) -> dict[str, Any]:
        """Ask now; return the answer."""
        self.view = self._node.client.get("/v1/producers")
        return self.view

    def voters(self) -> dict[str, str]:
        """Return the voting set's key ids by member; empty while it changes."""
        view = self.look()
        if view["pending"] is not None:
            return {}
        return {producer["member_id"]: producer["key_id"] for producer in view["voting"]["producers"]}

    def _run(self) -> None:
        before: dict[str, Any] = {}
        while not self._stopping:
            with contextlib.suppress(LedgerError):
                now = self.look()
                if before:
                    self._tell_seats(before, now)
                    self._tell_voting(before, now)
                    self._tell_struck(before, now)
                if not self.sizes or self.sizes[-1] != len(now["voting"]["producers"]):
                    self.sizes.append(len(now["voting"]["producers"]))
                before = now
            time.sleep(LOOK_S)

    def _tell_seats(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        change = _difference(before["producers"], now["producers"])
        if change:
            count = len(now["producers"])
            self._screen.say(f"epoch {now['epoch']}: elected {change}; {count} produce in it")

    def _tell_voting(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        old, pending, new = before["voting"], now["pending"], now["voting"]
        if pending is not None and before["pending"] is None:
            change = _difference(new["producers"], pending["producers"])
            self._screen.say(
                f"block {pending['height']} begins a change of the voting set: {change}; "
                f"until it is final, quorums of both sign"
            )
        if new["set_id"] != old["set_id"]:
            names = ", ".join(producer["member_id"] for producer in new["producers"])
            quorum, faults = now["quorum"], now["faults_tolerated"]
            self._screen.say(
                f"voting set {new['set_id']}: {len(new['producers'])} vote ({names}), "
                f"{quorum} make a quorum, {faults} may be faulty"
            )

    def _tell_struck(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        known = {entry["member_id"] for entry in before["struck"]}
        for entry in now["struck"]:
            if entry["member_id"] not in known:
                self._screen.say(f"evidence against {entry['member_id']} is in block {entry['height']}")


def _difference(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    """Return who came, left, or has another key; empty where nobody did."""
    was = {producer["member_id"]: producer["key_id"] for producer in old}
    now = {producer["member_id"]: producer["key_id"] for producer in new}
    parts = [f"+{name}" for name in now if name not in was] + [f"-{name}" for name in was if name not in now]
    parts += [f"{name} with its new key" for name in now if name in was and now[name] != was[name]]
    return ", ".join(parts)


def wait_for(what: str, is_so: Callable[[], bool], seconds: float, check: Callable[[], None]) -> None:
    """Return when something is so. Raises NotHeld when the time is over; ``check`` may raise before."""
    deadline = time.monotonic() + seconds
    while not is_so():
        check()
        if time.monotonic() > deadline:
            raise NotHeld(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.1)
