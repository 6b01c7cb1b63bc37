"""A ledger in memory, and an agent's parts on a real disk, for tests of everything between spool and final."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from ledger.cdr import CallRecord, Leg, call_commitment
from ledger.codec import decode, decode_each
from ledger.crypto import PrivateKey, hash_of
from ledger.entries import KeyEntry
from ledger.errors import LedgerError, RuleViolation, UnusableTransaction
from ledger.genesis import Candidate, Delegation, Genesis, GenesisMember, MemberKey, Parameters, Role, chain_id_of
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from ledger.transaction import Transaction, tx_id_of
from ledger.validation import CheckedTransaction, check_transaction, record_keys
from node.api.problems import problem_of, status_of
from telephony.adapters.base import Kind
from telephony.adapters.registry import Adapters
from telephony.answers import Answer
from telephony.builder import Profile
from telephony.building import Builder, Chain, Dead, resume
from telephony.dead_letters import DeadLetters, dead_letter
from telephony.delivery import Delivery
from telephony.gathering import JoinTimes
from telephony.ledger_clock import LedgerClock
from telephony.outbox import Outbox, Signer
from telephony.spool import Spool
from telephony.spool_files import spool_id
from telephony.targets import Targets
from telephony.vault import Vault
from telephony.waiting import Waiting

NOW_MS = 1_795_250_000_000
MEMBER = "carrier-a"
KEY = PrivateKey.from_seed(b"agent test")
SECRET = bytes(range(32))
NODES = ("http://a:8080", "http://b:8080")
GENESIS = Genesis(
    version=1,
    name="agent-test",
    genesis_time_ms=NOW_MS - 1_000_000,
    parameters=Parameters(1_000, 100, 1, 20, 10, 86_400_000, 10_000, 4 * 1024 * 1024, 1000, "lifecycle"),
    members=[GenesisMember(MEMBER, 1, [MemberKey(KEY.public_key, 7)], Candidate(KEY.key_id, "", "GB"))],
    delegations=[Delegation(MEMBER, MEMBER, 1)],
    rules=default_rule_set_pin("lifecycle"),
)
RULES = RuleSet(GENESIS.rules, carbon_basis="lifecycle")


class Crash(BaseException):
    """The process was killed here."""


@dataclass
class Faults:
    """Kills at the n-th point where a kill makes a difference."""

    at: int = 0
    """0: never."""
    count: int = 0

    def point(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Crash


@dataclass
class World:
    """What goes on while agents come and go: the time, the ledger, and the agent's directory."""

    directory: Path
    wall_ms: int = NOW_MS
    """The machine's wall clock."""
    steady_ms: int = 1_000
    down: set[str] = field(default_factory=set)
    """Nodes that do not answer."""
    refuse: Callable[[CallRecord], bool] = lambda _: False
    """What the nodes' rules refuse beside the real ones."""
    items_max: int = 10_000
    """What the nodes take in a transaction."""
    ledger_ms: int = NOW_MS
    stored: dict[str, dict[bytes, CheckedTransaction]] = field(default_factory=lambda: {node: {} for node in NODES})
    raws: dict[bytes, bytes] = field(default_factory=dict)
    final: dict[bytes, list[int]] = field(default_factory=dict)
    """Void indexes of each transaction in the chain."""
    counted: Counter[bytes] = field(default_factory=Counter)
    """How often each record counts: by record key."""
    dropped: set[bytes] = field(default_factory=set)
    height: int = 0
    statuses: list[int] = field(default_factory=list)
    """Of the next answers, instead of what they would be; 0: none comes, though the node did as it was asked."""
    requests: Counter[str] = field(default_factory=Counter)
    """How many came, by method."""
    faults: Faults = field(default_factory=Faults)

    def pass_time(self, seconds: int) -> None:
        self.wall_ms += seconds * 1000
        self.steady_ms += seconds * 1000
        self.ledger_ms += seconds * 1000

    async def pause(self, seconds: float) -> None:
        for name in ("wall_ms", "steady_ms", "ledger_ms"):
            setattr(self, name, getattr(self, name) + int(seconds * 1000) + 1)

    def seal(self) -> None:
        """Make a block of all that nodes hold, final at once."""
        self.height += 1
        for held in self.stored.values():
            for tx_id, tx in list(held.items()):
                if tx_id in self.final or tx.envelope.expires_ms <= self.ledger_ms:
                    continue
                items = decode(self.raws[tx_id], Transaction).items
                keys = record_keys(MEMBER, decode_each(items, CallRecord))
                void = [index for index, key in enumerate(keys) if self.counted[key]]
                if len(void) == len(keys):
                    self.dropped.add(tx_id)
                    continue
                self.counted.update(key for index, key in enumerate(keys) if index not in void)
                self.final[tx_id] = void

    async def ask(self, method: str, url: str, body: bytes | None) -> Answer:
        self.faults.point()
        self.requests[method] += 1
        parts = urlsplit(url)
        node = f"{parts.scheme}://{parts.netloc}"
        if node in self.down:
            return Answer(0, b"nobody there")
        status = self.statuses.pop(0) if self.statuses else None
        if status:
            return Answer(status, b"no")
        if method == "POST":
            assert body is not None
            results = [self._take(node, raw) for raw in msgspec.msgpack.decode(body, type=list[bytes])]
            answer: dict[str, Any] = {"results": results}
            code = 201 if all(result["status"] < 300 for result in results) else 422
        else:
            ids = [part for part in parse_qs(parts.query).get("tx_ids", [""])[0].split(",") if part]
            answer, code = self._promises(node, [bytes.fromhex(id_) for id_ in ids]), 200
        self.faults.point()
        return Answer(0, b"cut off") if status == 0 else Answer(code, json.dumps(answer).encode())

    def _take(self, node: str, raw: bytes) -> dict[str, Any]:
        try:
            tx = self._check(raw)
        except LedgerError as error:
            return {"status": status_of(error), "problem": problem_of(error)}
        self.stored[node][tx.tx_id] = tx
        self.raws[tx.tx_id] = raw
        return {"status": 201}

    def _check(self, raw: bytes) -> CheckedTransaction:
        tx = check_transaction(
            raw,
            chain_id=chain_id_of(GENESIS),
            key_of={KEY.key_id: KeyEntry(MEMBER, KEY.public_key, Role.SUBMIT, True)}.get,
            rules=RULES,
        )
        for index, record in enumerate(decode_each(decode(raw, Transaction).items, CallRecord)):
            if self.refuse(record):
                raise RuleViolation("not here", rule="test", where=f"items[{index}].sip_code")
        if len(decode(raw, Transaction).items) > self.items_max:
            raise UnusableTransaction("more than a member's share of a block", where="items")
        envelope, now_ms = tx.envelope, self.ledger_ms
        if envelope.expires_ms <= now_ms:
            raise UnusableTransaction("expired", where="envelope.expires_ms", expected=f"> {now_ms}")
        if envelope.created_ms > now_ms + 2_000:
            raise UnusableTransaction("from the future", where="envelope.created_ms", expected=f"<= {now_ms + 2_000}")
        oldest_ms = now_ms - GENESIS.parameters.record_window_ms
        if tx.first_end_ms < oldest_ms:
            raise UnusableTransaction("a record is too old", where="end_ms", expected=f">= {oldest_ms}")
        return tx

    def _promises(self, node: str, tx_ids: Sequence[bytes]) -> dict[str, Any]:
        promises = []
        for tx_id in tx_ids:
            state = "unknown"
            if tx_id in self.final:
                state = "final"
            elif tx_id in self.dropped:
                state = "void"
            elif tx_id in self.stored[node]:
                is_over = self.stored[node][tx_id].envelope.expires_ms <= self.ledger_ms
                state = "expired" if is_over else "stored"
            promises.append({"tx_id": tx_id.hex(), "state": state, "height": None, "void": self.final.get(tx_id, [])})
        point = {"height": self.height, "time_ms": self.ledger_ms}
        return {"head": point, "final": point, "now_ms": self.ledger_ms, "promises": promises}


class FaultyVault(Vault):
    """A vault with a point before and behind each commit."""

    faults = Faults()

    @contextmanager
    def transaction(self, *arguments: Any, **more: Any) -> Iterator[Any]:
        with super().transaction(*arguments, **more) as db:
            yield db
            self.faults.point()
        self.faults.point()


class Parts:
    """An agent's parts, opened on a world's directory."""

    def __init__(
        self,
        world: World,
        *,
        times: JoinTimes | None = None,
        is_told: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.world = world
        FaultyVault.faults = world.faults
        with ExitStack() as stack:
            self.spool = Spool(world.directory, reserve_bytes=0)
            stack.callback(self.spool.close)
            self.vault = FaultyVault(world.directory / "vault", SECRET)
            stack.callback(self.vault.close)
            self.outbox, self.waiting = Outbox(self.vault), Waiting(self.vault)
            self.dead = DeadLetters(world.directory)
            stack.callback(self.dead.close)
            self.dead.compact()
            id_ = spool_id(world.directory)
            resume(self.spool, self.outbox, id_)
            self.close = stack.pop_all().close
        clock = LedgerClock(wall_ms=lambda: world.wall_ms, steady_ms=lambda: world.steady_ms)
        self.clock = clock
        if is_told:
            clock.told(world.ledger_ms)
        chain_id = chain_id_of(GENESIS)
        signer = Signer(KEY, member_id=MEMBER, chain_id=chain_id, parameters=GENESIS.parameters)
        adapters = {**Adapters().by_kind, **(options or {})}
        self.builder = Builder(
            self.spool,
            self.outbox,
            self.waiting,
            spool_id=id_,
            adapters=adapters,
            profile=Profile(SECRET),
            chain=Chain(RULES, GENESIS.parameters),
            signer=signer,
            clock=clock,
            bury=self.bury,
            times=times or JoinTimes(),
        )
        self.delivery = Delivery(
            self.outbox,
            self.waiting,
            Targets(NODES, lambda: 0.0),
            signer=signer,
            clock=clock,
            ask=world.ask,
            bury=self.bury,
            steady_ms=lambda: world.steady_ms,
            pause=world.pause,
        )

    def bury(self, dead: Sequence[Dead]) -> None:
        self.dead.add([dead_letter(d.document, kind=d.kind, stage=d.stage, reason=d.reason, time_ms=0) for d in dead])

    @property
    def backlog(self) -> int:
        return self.spool.end.sequence - self.builder.position.sequence + self.waiting.count + self.outbox.records

    def reasons(self) -> list[tuple[str, str]]:
        """Return stage and reason of the dead letters."""
        return [(letter.stage, letter.reason) for letter in self.dead]

    async def step(self) -> None:
        """Let everything have a turn, and a second pass."""
        if not self.clock.is_confirmed:
            await self.delivery.follow_some()
        while self.builder.turn():
            pass
        self.delivery.notify()
        for _ in range(10):
            if not await self.delivery.hand_in_some():
                break
        self.world.seal()
        self.world.pass_time(1)
        for _ in range(10):
            if not await self.delivery.follow_some():
                break

    async def settle(self, steps: int = 60) -> None:
        """Go on until all is final. Fails where that takes too many steps."""
        for _ in range(steps):
            await self.step()
            if self.backlog == 0:
                return
        raise AssertionError(f"{self.backlog} are not final after {steps} steps")


@contextmanager
def opened(world: World, **more: Any) -> Iterator[Parts]:
    parts = Parts(world, **more)
    try:
        yield parts
    finally:
        parts.close()


def cdr(number: int, *, end_ms: int = NOW_MS - 60_000, **fields: str) -> bytes:
    """Return a CDR of Kamailio of a call of its own for each number."""
    document = {
        "call_id": f"call-{number}",
        "from_tag": "a",
        "start_time": f"{(end_ms - 10_000) // 1000}.000",
        "end_time": f"{end_ms // 1000}.000",
        "sip_code": "200",
        "from": "sip:+442071838750@example.net",
        **fields,
    }
    return json.dumps(document).encode()


def record_key(call_id: str) -> bytes:
    """Return the record key of a call of ``cdr``."""
    call = call_commitment(SECRET, call_id, "a", 0)
    return hash_of("record", (MEMBER, call, Leg.ORIGINATING))[:16]


def spooled(spool: Spool, *documents: bytes, time_ms: int = NOW_MS, kind: int = Kind.KAMAILIO) -> None:
    spool.append([(int(kind), document) for document in documents], time_ms=time_ms)


def tx_ids_in(outbox: Outbox) -> list[bytes]:
    raws = outbox.raws([sent.number for sent in outbox.load(0, 1000)])
    return [tx_id_of(decode(raw, Transaction).envelope) for raw in raws]
