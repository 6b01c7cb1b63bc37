"""What is to be said of each node by itself, and beside the others.

Source: docs/operations.md, "Paged at night".
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median_low
from typing import Final

from node.clockwatch import REFUSE_PART, WARN_PART
from node.disk import DAY_MS
from node.doctor.answers import DiskAnswer, Gathered, NodeAnswers
from node.doctor.findings import Finding, bad, good, lasting, size, some, warn

NEAR_BLOCKS: Final = 3
"""Nodes are asked one after another: their final blocks may be this far apart, and by what was final in between."""
RECORD_BYTES: Final = 250
"""What the store takes for a record of whichever member, docs/operations.md."""
GROWTH_KNOWN_MS: Final = 3_600_000
"""Growth that was watched for less tells of compactions rather."""
RECENT_KNOWN_MS: Final = 60_000
"""Blocks of less tell of a single burst."""
DAYS_WARN: Final = 14
DAYS_BAD: Final = 3
FREE_WARN_BYTES: Final = 2 << 30
FREE_BAD_BYTES: Final = 256 << 20
"""Less, and nothing more is taken in soon: the node stops short of the last 64 MiB."""

SYNC_TODO: Final = {
    "syncing": "Wait: it serves meanwhile what it has. If the number does not fall, look for peers",
    "joining": "Have its key admitted: docs/operations.md, Join",
    "alone": "Check its option peers, the firewall, and the lines with 'no peering' in its log",
    "stalled": "Start the producers that do not vote; nothing else is to be done",
}
SIGNING_TODO: Final = {
    "asking": "It asks its peers what they have seen it sign: a few seconds, else look for peers",
    "new": "At the founding start the others; else it passes by itself. Leave the node running",
    "lost": "Is data in its configuration the right directory? Then leave it running until it is over",
    "old": "Look for a second node with this key first. Then leave it running until it is over",
    "clock-off": "Mend the clock of that machine (chrony, ntpd) and leave the node running",
}


def findings_of_nodes(gathered: Gathered) -> Iterator[Finding]:
    """Yield what is to be said of every node that answered."""
    for node in gathered.nodes:
        status = node.status
        yield good("answer", node.name, f"ledgerd {status.version} of chain {status.chain_name}")
        for path, why in node.unanswered.items():
            yield warn("answer", node.name, f"{path}: {why}", "Ask again; the log of the node has its side")
        yield from _of_proof(node, gathered)
        yield _of_sync(node, gathered)
        yield from _of_signing(node)
        yield _of_disk(node, gathered)
        yield from _of_peers(node)
    yield from _of_mutual_peers(gathered)
    yield from _of_clocks(gathered)


def _of_proof(node: NodeAnswers, gathered: Gathered) -> Iterator[Finding]:
    proof, said = node.proof, node.status.final.height
    if gathered.chain_id and node.status.chain_id != gathered.chain_id:
        yield bad(
            "chain",
            node.name,
            f"it is of chain {node.status.chain_id[:16]}, the genesis file of {gathered.chain_id[:16]}",
            "Is this the node, and the file, that you mean? One of them is of another chain",
        )
    elif proof is not None and proof.lie:
        todo = "Believe nothing that it says. ledgerctl follow shows it again, with the evidence"
        yield bad("proof", node.name, f"what it says is final is not proven: {proof.lie}", todo)
    elif proof is not None and proof.silence:
        yield warn("proof", node.name, f"nothing could be proven: {proof.silence}", "Ask again")
    elif proof is not None and said - proof.height > _near(node, node, gathered):
        todo = "Believe nothing above that height. ledgerctl follow shows how far it is proven"
        yield bad("proof", node.name, f"it says that block {said:,} is final, and proves {proof.height:,} only", todo)
    elif proof is not None:
        yield good("proof", node.name, f"block {proof.height:,} is proven final by the genesis file alone")


def _of_sync(node: NodeAnswers, gathered: Gathered) -> Finding:
    sync, best = node.status.sync, gathered.best
    if best is not None and sync.state == "in-step":
        behind = best.status.final.height - node.status.final.height
        if behind > _near(best, node, gathered) and best.status.chain_id == node.status.chain_id:
            return bad(
                "sync",
                node.name,
                f"it says that it is in step, and its final block is {some(behind, 'block')} below that of {best.name}",
                "Who are its peers? Believe the higher one if it is proven (--genesis), and restart this one",
            )
    if sync.state == "in-step":
        return good("sync", node.name, f"in step, final block {node.status.final.height:,}")
    what = f"{sync.state}: at block {node.status.head.height:,}"
    if sync.behind_blocks:
        what += f", {some(sync.behind_blocks, 'block')} behind"
    todo = SYNC_TODO.get(sync.state, "docs/operations.md, The node lags")
    return (bad if sync.state in {"alone", "stalled"} else warn)("sync", node.name, what, todo)


def _near(first: NodeAnswers, second: NodeAnswers, gathered: Gathered) -> int:
    """Return by how many blocks two answers may differ with nothing wrong."""
    return NEAR_BLOCKS + abs(first.asked_ms - second.asked_ms) // gathered.slot_ms


def _of_signing(node: NodeAnswers) -> Iterator[Finding]:
    signing = node.status.signing
    if signing.state == "clear":
        if node.status.is_producer:
            yield good("signing", node.name, "it votes and seals")
        return
    if not node.status.is_producer:
        return
    what = f"{signing.state}: {signing.reason}; waits for {signing.waits_for}"
    if signing.until_ms is not None:
        what += f", {lasting(max(0, signing.until_ms - node.status.now_ms))} at most"
    todo = SIGNING_TODO.get(signing.state, "docs/operations.md, A node that does not sign")
    yield (warn if signing.state in {"asking", "new"} else bad)("signing", node.name, what, todo)


# -- disk ------------------------------------------------------------------------------------------------------------


def _of_disk(node: NodeAnswers, gathered: Gathered) -> Finding:
    todo = "Free room, or move the data directory to a larger disk with the node stopped"
    disk = node.status.disk
    if node.status.is_disk_full:
        return bad("disk", node.name, "the disk is full: nothing can be stored", todo)
    if disk is None:
        return good("disk", node.name, "nobody measures it")
    growth, by = _growth(disk, node, gathered)
    what = f"{size(disk.free_bytes)} free, {size(disk.store_bytes)} stored, {by}"
    days = disk.free_bytes // growth if growth > 0 else None
    if days is not None:
        what += f": full in {_days(days)}"
    if disk.free_bytes < FREE_BAD_BYTES or (days is not None and days < DAYS_BAD):
        return bad("disk", node.name, what, todo)
    if disk.free_bytes < FREE_WARN_BYTES or (days is not None and days < DAYS_WARN):
        return warn("disk", node.name, what, todo)
    return good("disk", node.name, what)


def _days(days: int) -> str:
    return "more than ten years" if days > 3_650 else some(days, "day")


def _growth(disk: DiskAnswer, node: NodeAnswers, gathered: Gathered) -> tuple[int, str]:
    """Return the bytes by which it grows in a day, 0 where that is not known, and how it is known."""
    recent = node.recent
    passed_ms = recent.slots * gathered.slot_ms if recent is not None else 0
    if disk.growth_bytes_per_day is not None and disk.grown_ms >= GROWTH_KNOWN_MS:
        growth, by = disk.growth_bytes_per_day, f"by its files in the last {lasting(disk.grown_ms)}"
    elif recent is not None and passed_ms >= RECENT_KNOWN_MS:
        growth = recent.records * RECORD_BYTES * DAY_MS // passed_ms
        by = f"by the records of the last {lasting(passed_ms)}"
    else:
        return 0, "how fast it grows is not known yet"
    return max(0, growth), f"grows {size(max(0, growth))} a day {by}"


# -- peers -----------------------------------------------------------------------------------------------------------


def _of_peers(node: NodeAnswers) -> Iterator[Finding]:
    if node.peers is None or node.producers is None:
        return
    names = {peer.member_id for peer in node.peers.peers}
    voters = [voter.member_id for voter in node.producers.voting.producers]
    reached = sum(name in names or name == node.status.member_id for name in voters)
    absent = [name for name in voters if name not in names and name != node.status.member_id]
    what = f"{some(len(node.peers.peers), 'peer')}, with {reached} of {some(len(voters), 'voter')} in reach"
    if absent:
        what += f"; not connected: {', '.join(absent)}"
    todo = "Are they up? Check the option peers of both sides, the firewall, and 'no peering' in the logs"
    if reached < node.producers.quorum:
        yield bad("peers", node.name, f"{what}; {node.producers.quorum} make a quorum", todo)
    elif absent:
        yield warn("peers", node.name, what, todo)
    else:
        yield good("peers", node.name, what)
    plain = [peer.member_id for peer in node.peers.peers if peer.is_open_plaintext]
    if plain:
        yield warn(
            "peers",
            node.name,
            f"without TLS beyond this machine: {', '.join(plain)}",
            "Right only where something below encrypts; else give tls_certificate and dial wss://",
        )


def _of_mutual_peers(gathered: Gathered) -> Iterator[Finding]:
    """Of two nodes that were asked, each must have the other as a peer where one has."""
    asked = [node.status.member_id for node in gathered.nodes]
    # Peers are known by their members: which of a member's two nodes is meant, nobody can say.
    nodes = {node.status.member_id: node for node in gathered.nodes if asked.count(node.status.member_id) == 1}
    for name, node in nodes.items():
        for peer in node.peers.peers if node.peers is not None else ():
            other = nodes.get(peer.member_id)
            if other is None or other is node or other.peers is None:
                continue
            if name not in {each.member_id for each in other.peers.peers}:
                yield warn(
                    "peers",
                    node.name,
                    f"it has {peer.member_id} as a peer, which does not have it",
                    "A connection that is dead on one side: ask again in a minute, then look at what is between them",
                )


# -- clocks ----------------------------------------------------------------------------------------------------------


def _of_clocks(gathered: Gathered) -> Iterator[Finding]:
    """Hold the nodes' clocks against their median, and that against this machine's."""
    if not gathered.nodes:
        return
    clocks_ms = [node.clock.ahead_ms for node in gathered.nodes]
    # Of two that differ nobody could say which is off: this machine's is the third.
    middle_ms = median_low(clocks_ms if len(clocks_ms) % 2 else [*clocks_ms, 0])
    slot_ms = gathered.slot_ms
    for node in gathered.nodes:
        # Alone it can only be held against this machine, of which the next finding tells.
        ahead_ms = node.clock.ahead_ms - middle_ms if len(gathered.nodes) > 1 else 0
        # Its peers tell as well, and of them there may be more.
        ahead_ms = max(ahead_ms, -node.status.clock_skew_ms, key=abs)
        yield _of_clock(node, ahead_ms, slot_ms)
    error_ms = max(node.clock.error_ms for node in gathered.nodes)
    if abs(middle_ms) - error_ms > slot_ms // WARN_PART:
        yield warn(
            "clock",
            "this machine",
            f"its clock is {lasting(abs(middle_ms))} {'behind' if middle_ms > 0 else 'ahead of'} the nodes' "
            f"(give or take {lasting(error_ms)})",
            "Mend this machine's clock, or where there is only one node, that one's",
        )


def _of_clock(node: NodeAnswers, ahead_ms: int, slot_ms: int) -> Finding:
    off_ms = max(0, abs(ahead_ms) - node.clock.error_ms)
    which = "ahead of" if ahead_ms > 0 else "behind"
    what = f"{lasting(abs(ahead_ms))} {which} the others, give or take {lasting(node.clock.error_ms)}"
    todo = "Mend the clock of that machine (chrony, ntpd) and leave the node running"
    if off_ms > slot_ms // REFUSE_PART:
        return bad("clock", node.name, f"{what}: beyond half a slot it seals no blocks", todo)
    if off_ms > slot_ms // WARN_PART:
        return warn("clock", node.name, f"{what}: its blocks come too late for some", todo)
    return good("clock", node.name, what)
