"""What is to be said of the chain, by all nodes together.

Source: docs/operations.md, "Paged at night".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from node.doctor.answers import Gathered, NodeAnswers, ProducersAnswer, VoterAnswer
from node.doctor.findings import Finding, bad, good, lasting, some, warn

STALL_SLOTS: Final = 20
"""Records that are not final after so many slots mean that something is wrong; nodes say ``stalled`` then."""
IDLE_BEATS: Final = 3
"""A chain at rest seals an empty block each heartbeat, and the one before becomes final with it."""
SILENT_BLOCKS: Final = 3
"""A voter may be this far behind what is final: votes come later than the block, and nodes are asked in turns."""
MISSED_MIN: Final = 3
"""Fewer missed slots in an epoch are a restart."""
EXPIRES_SOON_MS: Final = 86_400_000
CHANGE_WARN_MS: Final = 5 * 60_000
CHANGE_BAD_MS: Final = 30 * 60_000
"""A change of the voting set takes a few blocks; docs/metrics.md wakes nobody before."""


def findings_of_chain(gathered: Gathered) -> Iterator[Finding]:
    """Yield what is to be said of the chain; nothing where no node answered."""
    best = gathered.best
    for conflict in gathered.conflicts:
        yield bad(
            "chain",
            " and ".join(conflict.urls),
            conflict.what,
            "Two histories: ledger-verify --compare with both addresses shows where they part and who signed both. "
            "Keep that, tell every member, and believe neither until it is settled",
        )
    if best is None:
        return
    yield from _of_identity(gathered, best)
    yield _of_finality(gathered, best)
    yield from _of_votes(gathered, best)
    yield from _of_slots(best)
    yield from _of_versions(gathered)
    yield from _of_governance(best)


def _of_identity(gathered: Gathered, best: NodeAnswers) -> Iterator[Finding]:
    chains = {node.status.chain_id: node for node in gathered.nodes}
    if len(chains) > 1:
        what = "; ".join(f"{node.name} is of {chain_id[:16]}" for chain_id, node in sorted(chains.items()))
        yield bad("chain", "all", f"these are nodes of {len(chains)} chains: {what}", "Ask those of one chain together")
    elif not gathered.conflicts:
        yield good("chain", "all", f"chain {best.status.chain_name}, {best.status.chain_id[:16]}")


def _of_finality(gathered: Gathered, best: NodeAnswers) -> Finding:
    status = best.status
    pool = max(node.status.pool_records for node in gathered.nodes)
    what = f"block {status.final.height:,} is final, begun {lasting(status.final_age_ms)} ago; "
    what += f"{some(pool, 'record')} wait" + ("s" if pool == 1 else "")
    limit_ms = (STALL_SLOTS if pool else IDLE_BEATS * gathered.heartbeat_slots + STALL_SLOTS) * gathered.slot_ms
    if status.final_age_ms > limit_ms:
        todo = "Start the producers that do not vote: records are kept and wait; nothing else is to be done"
        return bad("finality", "chain", f"{what}: nothing becomes final", todo)
    return good("finality", "chain", what)


# -- producers -------------------------------------------------------------------------------------------------------


def _of_votes(gathered: Gathered, best: NodeAnswers) -> Iterator[Finding]:
    producers = best.producers
    if producers is None:
        return
    if not best.status.head.height:
        yield good("votes", "chain", "no block yet to vote for")
        return
    silent, unheard = [], []
    for voter in producers.voting.producers:
        height = last_vote_height(gathered, voter)
        if height is None and not _is_up(gathered, voter.member_id):
            silent.append((voter.member_id, "no vote of it was seen, and its node is not there"))
        elif height is None:
            unheard.append(voter.member_id)
        elif best.status.final.height - height > SILENT_BLOCKS:
            silent.append((voter.member_id, f"has not voted since block {height + 1:,}"))
    tolerated, voters = producers.faults_tolerated, len(producers.voting.producers)
    for member_id, what in silent:
        bears = _what_is_borne(tolerated - len(silent))
        todo = "Is its node up, connected and clear to sign? Tell the member; meanwhile stop no other producer"
        level = bad if len(silent) >= max(tolerated, 1) else warn
        yield level("votes", member_id, f"{what}; {bears}", todo)
    if unheard:
        yield warn(
            "votes",
            ", ".join(unheard),
            "no vote was seen since the start of the nodes asked",
            "Ask again in a minute, or ask more nodes: one that has just started knows of a quorum's votes only",
        )
    if not silent and not unheard:
        yield good(
            "votes", "chain", f"all {some(voters, 'producer')} vote; the chain bears {some(tolerated, 'failure')}"
        )


def _what_is_borne(left: int) -> str:
    if left < 0:
        return "with so many silent nothing becomes final"
    return f"the chain bears {some(left, 'more failure')}" if left else "the chain bears no further failure"


def last_vote_height(gathered: Gathered, voter: VoterAnswer) -> int | None:
    """Return the highest block that a voter was seen to vote for, by any node asked or in a certificate."""
    seen = [each for node in gathered.nodes if node.producers is not None for each in node.producers.voting.producers]
    heights = [each.last_vote_height for each in seen if each.key_id == voter.key_id]
    heights += [node.recent.votes.get(voter.key_id) for node in gathered.nodes if node.recent is not None]
    return max((height for height in heights if height is not None), default=None)


def _is_up(gathered: Gathered, member_id: str) -> bool:
    """Tell whether a member's node answers, or is a peer of one that does."""
    answering = {node.status.member_id for node in gathered.nodes}
    connected = {peer.member_id for node in gathered.nodes if node.peers is not None for peer in node.peers.peers}
    return member_id in answering | connected


def _of_slots(best: NodeAnswers) -> Iterator[Finding]:
    if best.producers is None:
        return
    missing = [s for s in best.producers.producers if s.missed >= MISSED_MIN and s.missed > s.sealed]
    for seat in missing:
        yield warn(
            "slots",
            seat.member_id,
            f"missed {seat.missed:,} of {some(seat.missed + seat.sealed, 'slot')} of this epoch",
            "Is its node up, in step, and its clock right? Who misses more than half ranks last in the next election",
        )
    if not missing:
        total = sum(seat.missed for seat in best.producers.producers)
        yield good("slots", "chain", f"{some(total, 'slot')} missed in this epoch, nobody more than half of its own")


# -- programs and governance -----------------------------------------------------------------------------------------


def _of_versions(gathered: Gathered) -> Iterator[Finding]:
    versions: dict[str, set[str]] = {}
    for node in gathered.nodes:
        versions.setdefault(f"ledgerd/{node.status.version}", set()).add(node.status.member_id or node.url)
        for peer in node.peers.peers if node.peers is not None else ():
            if peer.agent:
                versions.setdefault(peer.agent, set()).add(peer.member_id)
    rule_sets: dict[str, list[str]] = {}
    for node in gathered.nodes:
        rule_sets.setdefault(node.status.rule_set, []).append(node.name)
    if len(rule_sets) > 1:
        what = "; ".join(f"{rules[:16]} at {', '.join(names)}" for rules, names in sorted(rule_sets.items()))
        todo = "They judge records differently: install the release that the chain's members use"
        yield bad("versions", "all", f"rules differ: {what}", todo)
    if len(versions) > 1:
        what = "; ".join(f"{version} at {', '.join(sorted(names))}" for version, names in sorted(versions.items()))
        yield warn("versions", "all", f"programs differ: {what}", "Finish the upgrade, one node after another")
    elif len(rule_sets) == 1:
        (version,) = versions
        yield good("versions", "all", f"{version} and the same rules everywhere")


def _of_governance(best: NodeAnswers) -> Iterator[Finding]:
    found = [*_of_proposals(best)]
    if best.producers is not None:
        found += _of_members(best.producers)
        found += _of_set_change(best, best.producers)
    for key in best.keys.keys if best.keys is not None else ():
        if key.standing == "retiring":
            found.append(
                warn(
                    "governance",
                    key.member_id,
                    f"its key {key.key_id[:8]} retires: it still has an office",
                    "Leave both keys at its node until ledgerctl key list says revoked",
                )
            )
    yield from found or [good("governance", "chain", "nothing is open, nobody is struck, no key retires")]


def _of_proposals(best: NodeAnswers) -> Iterator[Finding]:
    for each in best.proposals.proposals if best.proposals is not None else ():
        left_ms = each.proposal.expires_ms - best.status.now_ms
        about, lacks = f"proposal {each.proposal_id[:8]}", each.weight_needed - each.weight
        what = f"by {each.proposer}, lacks weight {lacks:,}, ends in {lasting(max(0, left_ms))}"
        if left_ms < EXPIRES_SOON_MS:
            todo = "ledgerctl proposals shows it; approve it in time, or let it end and propose it anew"
            yield warn("governance", about, what, todo)
        else:
            yield good("governance", about, what)


def _of_members(producers: ProducersAnswer) -> Iterator[Finding]:
    for struck in producers.struck:
        yield warn(
            "governance",
            struck.member_id,
            "it was proven faulty and is out until it is readmitted",
            "ledgerctl evidence shows what it signed; docs/operations.md, A producer was struck",
        )


def _of_set_change(best: NodeAnswers, producers: ProducersAnswer) -> Iterator[Finding]:
    if producers.pending is None or best.pending_since_ms is None:
        return
    since_ms = max(0, best.status.now_ms - best.pending_since_ms)
    what = f"a change of the voting set was scheduled in block {producers.pending.height:,}, {lasting(since_ms)} ago"
    if since_ms > CHANGE_WARN_MS:
        todo = "A quorum of the old set and of the new one must vote: ledgerctl producers shows both"
        yield (bad if since_ms > CHANGE_BAD_MS else warn)("governance", "chain", f"{what}, and is not final", todo)
    else:
        yield good("governance", "chain", what)
