"""The whole examination: everything that was answered, and what is to be said of it.

Source: docs/operations.md, "Paged at night".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from node.doctor.answers import AgentAnswers, Gathered
from node.doctor.chain import findings_of_chain
from node.doctor.findings import Finding, bad, good, in_order, lasting, size, some, warn
from node.doctor.nodes import FREE_BAD_BYTES, FREE_WARN_BYTES, findings_of_nodes

OLD_WARN_MS: Final = 60_000
OLD_BAD_MS: Final = 300_000
"""docs/metrics.md wakes somebody from here on."""


def examine(gathered: Gathered) -> list[Finding]:
    """Return everything that was found, in the order of the checks."""
    silent = [bad("answer", each.url, each.what, each.todo) for each in gathered.silent]
    of_agents = [finding for agent in gathered.agents for finding in findings_of_agent(agent)]
    return in_order([*silent, *findings_of_nodes(gathered), *findings_of_chain(gathered), *of_agents])


def findings_of_agent(agent: AgentAnswers) -> Iterator[Finding]:
    """Yield what is to be said of an agent."""
    health, about = agent.health, f"agent {agent.url}"
    yield good("answer", about, f"ledger-agent {health.version}")
    if health.status == "full":
        yield bad("agent", about, "it refuses CDRs: its disk is nearly full", "Free room; the proxies keep their CDRs")
    elif health.status != "ok":
        todo = "Its log says why. It ends with status 1 and is to be started again; nothing is lost"
        yield bad("agent", about, f"it says {health.status}: a part of it has ended", todo)
    if agent.failing_watches:
        todo = "Its log says why: a folder that is gone, rights, a full disk"
        yield bad("agent", about, f"nothing can be taken in from {', '.join(agent.failing_watches)}", todo)
    backlog = f"{some(health.backlog, 'document')} not final, the oldest for {lasting(health.oldest_age_ms)}"
    if health.oldest_age_ms > OLD_WARN_MS:
        level = bad if health.oldest_age_ms > OLD_BAD_MS else warn
        yield level("agent", about, backlog, "Is the chain final, and are its nodes reached? Nothing is lost meanwhile")
    if health.nodes_failing:
        todo = "Its log says which and why; it delivers to the others meanwhile"
        yield warn("agent", about, f"it fails at {some(health.nodes_failing, 'node')}", todo)
    if health.dead_letters:
        todo = "ledger-agent dead list says why each could not go on"
        yield warn("agent", about, f"{some(health.dead_letters, 'dead letter')}", todo)
    room = f"{size(health.disk_free_bytes)} free"
    if health.status != "full" and health.disk_free_bytes < FREE_WARN_BYTES:
        level = bad if health.disk_free_bytes < FREE_BAD_BYTES else warn
        yield level("agent", about, room, "Free room: with less it refuses CDRs")
    if health.status == "ok" and health.oldest_age_ms <= OLD_WARN_MS:
        yield good("agent", about, f"{backlog}; {room}" if health.backlog else f"nothing waits; {room}")
