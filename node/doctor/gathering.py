"""Asks nodes and agents, all at once, each within a bounded time; whatever comes back is an answer or a finding.

Source: docs/operations.md, "Paged at night".
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from audit.follow import Follower
from audit.light import HEADERS_MAX, LightClient
from ledger.errors import EncodingError, InvalidProof, LedgerError
from ledger.genesis import GENESIS_BYTES_MAX, Genesis, chain_id_of, genesis_from_json
from node.client import ApiFault, Client
from node.clock import now_ms
from node.doctor.answers import (
    AgentAnswers,
    BlockAnswer,
    Clock,
    Conflict,
    Gathered,
    HealthAnswer,
    KeysAnswer,
    NoAnswer,
    NodeAnswers,
    PeersAnswer,
    ProducersAnswer,
    Proof,
    ProposalsAnswer,
    RecentBlocks,
    StatusAnswer,
    read_answer,
    read_json,
    recent_of,
)
from node.doctor.findings import lasting
from node.light import ApiSource

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 8 << 20
"""Longer ones are cut, and then no JSON any more."""
HEALTH_BYTES_MAX: Final = 1 << 16
TIMEOUTS_IN_ALL: Final = 6
"""An address gets so many times the time of one answer; what comes later is as good as silence."""
PROOF_S: Final = 60.0
"""Longest to follow one node from the genesis file on."""
START_IT: Final = "Is it running, and is this the address that its log names as api? If it is down, start it"


@dataclass(frozen=True, slots=True)
class _Looked:
    """What stands behind one address, with the follower that proved it."""

    answers: NodeAnswers | AgentAnswers | NoAnswer
    genesis: Genesis | None = None
    follower: Follower | None = None


def gather(urls: Sequence[str], *, genesis: Genesis | None, timeout_s: float) -> Gathered:
    """Ask every address once; return what came.

    genesis: what proofs begin at; without it nothing is proven. timeout_s: for one answer. Raises ConfigError for what
    is no address.
    """
    clients = {url: Client(url, timeout_s=timeout_s) for url in dict.fromkeys(urls)}
    limit_s = TIMEOUTS_IN_ALL * timeout_s + (PROOF_S if genesis is not None else 0)
    looked = _at_once({url: _asking(client, genesis, timeout_s) for url, client in clients.items()}, limit_s)
    found = [looked.get(url) or _Looked(_too_slow(url, limit_s)) for url in clients]
    nodes = [each.answers for each in found if isinstance(each.answers, NodeAnswers)]
    rules = genesis or next((each.genesis for each in found if each.genesis is not None), None)
    parameters = rules.parameters if rules is not None else None
    return Gathered(
        nodes=nodes,
        agents=[each.answers for each in found if isinstance(each.answers, AgentAnswers)],
        silent=[each.answers for each in found if isinstance(each.answers, NoAnswer)],
        conflicts=_conflicts([each.follower for each in found if each.follower is not None]),
        slot_ms=parameters.slot_ms if parameters is not None else 1_000,
        heartbeat_slots=parameters.heartbeat_slots if parameters is not None else 60,
        chain_id=chain_id_of(genesis).hex() if genesis is not None else "",
    )


def _at_once(work: Mapping[str, Callable[[], T]], limit_s: float) -> dict[str, T]:
    """Do all of it beside one another; return what was done when time is up. What hangs is left behind."""
    done: queue.SimpleQueue[tuple[str, T]] = queue.SimpleQueue()

    def run(name: str, one: Callable[[], T]) -> None:
        done.put((name, one()))

    for name, one in work.items():
        threading.Thread(target=run, args=(name, one), daemon=True, name=f"doctor {name}").start()
    results: dict[str, T] = {}
    deadline = time.monotonic() + limit_s
    while len(results) < len(work):
        try:
            name, result = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        results[name] = result
    return results


def _too_slow(url: str, limit_s: float) -> NoAnswer:
    what = f"it answers, but not all within {lasting(round(1_000 * limit_s))}"
    return NoAnswer(url, what, "Is that machine overloaded, or the way to it? --timeout gives it longer")


def _asking(client: Client, genesis: Genesis | None, timeout_s: float) -> Callable[[], _Looked]:
    def ask() -> _Looked:
        try:
            return _look(client, genesis, timeout_s)
        except LedgerError as error:
            return _Looked(NoAnswer(client.url, error.sentence(), START_IT))
        except Exception as error:  # noqa: BLE001 - one address must not keep the others from being looked at
            what = f"this program failed: {type(error).__name__}: {error}"
            return _Looked(NoAnswer(client.url, what, "Please report it"))

    return ask


def _look(client: Client, genesis: Genesis | None, timeout_s: float) -> _Looked:
    """Return what is at an address: a node, an agent, or what else."""
    began_ms = now_ms()
    try:
        document = _get(client, "/v1/status")
    except ApiFault as fault:
        return _Looked(_look_for_agent(client, fault))
    ended_ms = now_ms()
    try:
        status = read_answer(document, StatusAnswer)
    except EncodingError as error:
        todo = "Is it a ledgerd, and of this release? ledgerctl status shows what it says"
        return _Looked(NoAnswer(client.url, f"its status is not that of this release: {error.sentence()}", todo))
    middle_ms = (began_ms + ended_ms) // 2
    clock = Clock(status.now_ms - middle_ms, (ended_ms - began_ms + 1) // 2)
    node = _ask_more(client, NodeAnswers(client.url, middle_ms, clock, status), timeout_s)
    own = _genesis_of(client)
    if genesis is None or chain_id_of(genesis).hex() != status.chain_id:
        return _Looked(node, own)
    follower = Follower(LightClient(genesis), ApiSource(client.url, timeout_s=timeout_s))
    proof = _prove(follower)
    return _Looked(replace(node, proof=proof), own, None if proof.lie or proof.silence else follower)


def _get(client: Client, path: str) -> Any:
    status, body = client.look(path, bytes_max=ANSWER_BYTES_MAX)
    try:
        document = read_json(body)
    except ValueError:
        document = None
    if status != 200 or not isinstance(document, dict):
        raise _foreign(status, body, document)
    return document


def _foreign(status: int, body: bytes, document: Any) -> ApiFault:
    """Return what answers in the place of a node, by what it says."""
    if isinstance(document, dict) and isinstance(document.get("detail"), str):
        what, hint = document["detail"], str(document.get("hint", ""))
        return ApiFault(f"it answers {status}: {what}", status=status, hint=hint)
    if status in {401, 403}:
        what, hint = f"it wants to know who asks (HTTP {status})", "A proxy in between? Ask the node itself"
    elif body.lstrip()[:1] == b"<":
        what, hint = f"a web page (HTTP {status}), not a ledgerd", "Another program, or a proxy, has this port"
    elif 300 <= status < 400:
        what, hint = f"it sends elsewhere (HTTP {status})", "Give the address it leads to"
    else:
        what = f"HTTP {status} with {len(body)} bytes that are no answer of a ledgerd"
        hint = "Is this the address that its log names as api? Peers have another"
    return ApiFault(what, status=status, hint=hint)


def _look_for_agent(client: Client, fault: ApiFault) -> AgentAnswers | NoAnswer:
    """Return the agent at an address that is no node's, or what is there."""
    nobody = NoAnswer(client.url, fault.what, fault.hint or START_IT)
    if not fault.status:
        return replace(nobody, todo=START_IT)
    _, body = client.look("/healthz", bytes_max=HEALTH_BYTES_MAX)
    try:
        health = read_answer(read_json(body), HealthAnswer)
    except (EncodingError, ValueError):
        return nobody
    return AgentAnswers(client.url, health, _failing_watches(client))


def _failing_watches(client: Client) -> tuple[str, ...]:
    status, body = client.look("/metrics", bytes_max=ANSWER_BYTES_MAX)
    try:
        families = list(text_string_to_metric_families(body.decode())) if status == 200 else []
    except ValueError:
        return ()
    samples = [sample for family in families for sample in family.samples]
    failing = [s.labels.get("watch", "?") for s in samples if s.name == "ledger_agent_watch_failing" and s.value]
    return tuple(sorted(failing))


def _ask_more(client: Client, node: NodeAnswers, timeout_s: float) -> NodeAnswers:
    """Return a node's answers with the rest of them; what is not answered is named."""
    unanswered: dict[str, str] = {}

    def ask(path: str, kind: type[T]) -> T | None:
        try:
            return read_answer(_get(client, path), kind)
        except LedgerError as error:
            unanswered[path] = error.sentence()
            return None

    # After the status: a vote for what was final then has been seen by now.
    producers = ask("/v1/producers", ProducersAnswer)
    peers, proposals, keys = (
        ask("/v1/peers", PeersAnswer),
        ask("/v1/proposals", ProposalsAnswer),
        ask("/v1/keys", KeysAnswer),
    )
    pending = ask(f"/v1/blocks/{producers.pending.height}", BlockAnswer) if producers and producers.pending else None
    recent = None
    if producers is not None:
        try:
            recent = _recent(ApiSource(client.url, timeout_s=timeout_s), node.status.final.height, producers)
        except LedgerError as error:
            unanswered["/v1/light/headers"] = error.sentence()
    return replace(
        node,
        producers=producers,
        peers=peers,
        proposals=proposals,
        keys=keys,
        recent=recent,
        pending_since_ms=pending.time_ms if pending is not None else None,
        unanswered=unanswered,
    )


def _recent(source: ApiSource, final_height: int, producers: ProducersAnswer) -> RecentBlocks:
    """Return what the last blocks up to the final one tell; nothing on a chain that has none."""
    if final_height < 1:
        return RecentBlocks()
    first = max(1, final_height - HEADERS_MAX + 1)
    return recent_of(source.headers(first, final_height - first + 1), producers.voting)


def _genesis_of(client: Client) -> Genesis | None:
    """Return the genesis as a node tells it, for its parameters; nothing is believed of it beyond."""
    try:
        return genesis_from_json(client.get_bytes("/v1/genesis", bytes_max=GENESIS_BYTES_MAX), where=client.url)
    except LedgerError:
        return None


def _prove(follower: Follower) -> Proof:
    """Follow a node from the genesis file to its final block."""
    try:
        follower.catch_up()
    except InvalidProof as error:
        return Proof(follower.client.point.height, lie=error.sentence())
    except ApiFault as error:
        return Proof(follower.client.point.height, silence=error.what)
    return Proof(follower.client.point.height)


def _conflicts(followers: Sequence[Follower]) -> list[Conflict]:
    """Return which nodes' final blocks are not of one history: each is held against the next higher."""
    ranked = sorted(followers, key=lambda each: each.client.point.height)
    found = []
    for lower, higher in itertools.pairwise(ranked):
        try:
            lower.compare(higher)
        except InvalidProof as error:
            found.append(Conflict((lower.source.name, higher.source.name), error.sentence()))
        except ApiFault:
            continue
    return found
