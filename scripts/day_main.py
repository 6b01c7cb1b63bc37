"""A carrier's day through a real agent and a real cluster of four nodes, with kill -9 of both at random moments.

Holds where every call is on the chain exactly once: the keys that the chain has, read back from a node, are those that
the platforms' documents have, each once.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402
from day_chain import ChainRecords, differences, read_chain  # noqa: E402
from day_documents import DAY_MS, PLATFORMS, key_of, make_day  # noqa: E402
from day_proxies import CONNECTIONS, Proxy, Rate  # noqa: E402
from stage import NotHeld, Screen, final_height, held, play, start  # noqa: E402

from ledger.errors import LedgerError  # noqa: E402
from node.cluster import Cluster, add_agent, make_cluster  # noqa: E402
from node.founding import DEFAULT_PARAMETERS  # noqa: E402
from node.keyfile import read_secret  # noqa: E402
from node.localnet import LocalAgent, LocalNode, LocalProcess, stop_all  # noqa: E402

MEMBERS = ("alpha", "beta", "gamma", "delta")
RECORDS = 170_000
RECORDS_MIN, RECORDS_MAX = 1_000, 1_000_000
KILLS_MAX = 20
SLOT_MS = 500
WINDOW_DAYS = 7
"""The chain's record window: the day that is over when this starts is well inside."""
DAYS_AGO = 2
DOWN_S = (0.5, 3.0)
"""How long what was killed lies there."""
LOOK_S = 0.2
TELL_S = 5.0
STALL_S = 120.0
"""Nothing more acknowledged or final for so long: it hangs."""
STEP_S = 60.0


class Facts:
    """What the documents say, added up as they are made."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.platforms: Counter[str] = Counter()
        self.hours: Counter[int] = Counter()
        self.answered = 0
        self.measured = 0

    def sentence(self) -> str:
        """Return what kind of day it was."""
        count = len(self.keys)
        hour, busiest = self.hours.most_common(1)[0]
        unmeasured = self.answered - self.measured
        return (
            f"{count:,} calls, {self.answered / count:.0%} answered, {unmeasured / max(self.answered, 1):.0%} of these "
            f"without MOS; {busiest:,} in the busy hour from {hour:02d}:00; "
            + ", ".join(f"{platform} {self.platforms[platform]:,}" for platform in PLATFORMS)
        )


class Day:
    """The steps, in order."""

    def __init__(self, options: argparse.Namespace, folder: Path, screen: Screen) -> None:
        self.options = options
        self.screen = screen
        now_ms = time.time_ns() // 1_000_000
        self.start_ms = now_ms // DAY_MS * DAY_MS - DAYS_AGO * DAY_MS
        self.cluster: Cluster = make_cluster(
            folder / "network",
            MEMBERS,
            genesis_time_ms=now_ms,
            parameters=msgspec.structs.replace(
                DEFAULT_PARAMETERS, slot_ms=SLOT_MS, epoch_slots=600, record_window_ms=WINDOW_DAYS * DAY_MS
            ),
            name="day",
        )
        place = add_agent(self.cluster, self.cluster.nodes[0])
        self.agent = LocalAgent(place)
        self.ledger = [LocalNode(node) for node in self.cluster.nodes]
        self.nodes: list[LocalProcess] = [self.agent, *self.ledger]
        self.proxies = [Proxy(name, place.url, place.token) for name in PLATFORMS for _ in range(CONNECTIONS[name])]
        self.facts = Facts()
        self.failure: BaseException | None = None
        self.down: dict[LocalProcess, float] = {}
        """Who was killed and does not answer yet, and when to start it again."""
        self._started: set[LocalProcess] = set()
        self.void = 0
        self._settled = 0
        self._is_all_put = threading.Event()

    def run(self) -> None:
        """Play the day."""
        self.screen.title(f"Four nodes and an agent; seed {self.options.seed}")
        for process in self.nodes:
            start(process)
        for process in self.nodes:
            process.wait_ready()
        began_s = time.monotonic()
        try:
            self.hand_in_and_kill()
        finally:
            for proxy in self.proxies:
                proxy.end()
        seconds = time.monotonic() - began_s
        count = self.options.records
        self.screen.say(self.facts.sentence())
        self.screen.say(
            f"{count:,} records final {seconds:.1f} s after the first post: {count / seconds:,.0f} a second"
        )
        self.check()

    # -- handing in ---------------------------------------------------------------------------------------------------

    def hand_in_and_kill(self) -> None:
        """Let the platforms post the whole day, and kill and start again meanwhile; return when all is final."""
        self.screen.title("The day's CDRs go to the agent, in order; what is not answered 2xx goes again")
        maker = threading.Thread(target=self._make, name="day", daemon=True)
        for thread in (*self.proxies, maker):
            thread.start()
        chance = Random(self.options.seed)  # noqa: S311 - moments, no secret
        kills = plan_kills(chance, self.options.kills, self.nodes)
        rate, told_s, moved_s, best = Rate(), time.monotonic(), time.monotonic(), 0
        while kills or self.down or not self.is_done():
            time.sleep(LOOK_S)
            done = self.acknowledged + self.settled()
            # Who lies there cannot be killed, but who is about to stand again can.
            running = [process for process in self.nodes if process.is_running]
            if kills and running and done >= kills[0][0] * 2 * self.options.records:
                _, victim = kills.pop(0)
                self.kill(victim if victim in running else chance.choice(running), chance.uniform(*DOWN_S))
            self.start_again()
            now_s = time.monotonic()
            if done > best:
                best, moved_s = done, now_s
            if now_s - told_s >= TELL_S:
                told_s, settled = now_s, self._settled
                a_second = rate.since(settled)
                self.screen.say(f"{self.acknowledged:,} taken by the agent, {settled:,} final, {a_second:,.0f}/s")
            refusals = [proxy.refusal for proxy in self.proxies if proxy.refusal]
            held(f"no CDR is refused ({' '.join(refusals)})", not refusals)
            held(f"the day can be made ({self.failure!r})", self.failure is None)
            held(f"it goes on ({self.agent.health()})", now_s - moved_s < STALL_S)

    def _make(self) -> None:
        """Make the documents and give each to its platform."""
        member_id = self.cluster.nodes[0].member_id
        secret = read_secret(self.cluster.nodes[0].home / "secret")
        by_name = {name: cycle([proxy for proxy in self.proxies if proxy.platform == name]) for name in PLATFORMS}
        facts = self.facts
        try:
            for document in make_day(self.options.seed, self.options.records, self.start_ms):
                facts.keys.append(key_of(document, member_id, secret))
                facts.platforms[document.platform] += 1
                facts.hours[document.end_ms // 3_600_000 % 24] += 1
                facts.answered += document.is_answered
                facts.measured += document.is_measured
                next(by_name[document.platform]).put(document)
            for proxy in self.proxies:
                proxy.flush()
        except Exception as error:  # noqa: BLE001 - told by the main thread
            self.failure = error
        self._is_all_put.set()

    @property
    def acknowledged(self) -> int:
        """Return how many documents were answered 2xx."""
        return sum(proxy.acknowledged for proxy in self.proxies)

    def settled(self) -> int:
        """Return how many of them are final; the last figure known while the agent is down."""
        acknowledged, health = self.acknowledged, self.agent.health()
        if health is not None:
            self._settled = max(self._settled, acknowledged - health["backlog"])
        return self._settled

    def is_done(self) -> bool:
        """Tell whether the whole day was handed in, and nothing waits at the agent."""
        is_handed_in = self._is_all_put.is_set() and all(proxy.is_idle for proxy in self.proxies)
        health = self.agent.health() if is_handed_in else None
        return health is not None and health["backlog"] == 0

    def kill(self, victim: LocalProcess, down_s: float) -> None:
        """Kill as a power cut would, to be started again after ``down_s``."""
        share = self.acknowledged / self.options.records
        self.screen.say(f"kill -9 {victim.name}, with {share:.0%} of the day handed in, {self._settled:,} final")
        victim.kill()
        self._started.discard(victim)
        self.down[victim] = time.monotonic() + down_s

    def start_again(self) -> None:
        """Start what has lain there long enough, and note what answers again. Raises NotHeld where one cannot."""
        now_s = time.monotonic()
        for victim, due_s in list(self.down.items()):
            if now_s < due_s:
                continue
            if victim not in self._started:
                start(victim)
                self._started.add(victim)
            elif victim.is_ready():
                del self.down[victim]
                self._started.remove(victim)
                self.screen.say(f"{victim.name} is back")
            else:
                held(f"{victim.name} starts again", victim.is_running and now_s < due_s + STEP_S)

    # -- the proof ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Hold what the chain has against what was handed in."""
        self.screen.title("The chain, read back, against the documents")
        head = self.ledger[0].client.get("/v1/head")["final"]
        for node in self.ledger:
            self.until(lambda node=node: final_height(node) >= head["height"], f"{node.name} to be level")
            block_id = node.client.get(f"/v1/blocks/{head['height']}")["block_id"]
            held(f"{node.name} has the same block {head['height']}", block_id == head["block_id"])
        self.screen.say(f"all four have the same block {head['height']}")
        reader = self.ledger[-1]
        found = read_chain(reader.url)
        self.compare(found, reader.name)
        health = self.agent.health() or {}
        held(f"no dead letters ({health.get('dead_letters')})", health.get("dead_letters") == 0)
        repeated = sum(proxy.repeated for proxy in self.proxies)
        self.screen.say(f"no dead letters; {repeated} posts had to be sent again")
        for name, status in stop_all(self.nodes).items():
            held(f"{name} stopped cleanly (status {status})", status == 0)
        self.audit(self.ledger[1])

    def audit(self, node: LocalNode) -> None:
        """Have ``ledger-verify`` go through what a node has on disk, and count too."""
        command = [sys.executable, "-m", "node.cli.verify", str(node.place.data)]
        command += ["--genesis", str(self.cluster.genesis_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5 * STEP_S)
        said = (done.stdout.strip() or done.stderr.strip()).splitlines() or ["(said nothing)"]
        self.screen.say(f"ledger-verify on the disk of {node.name}: {said[-1]}")
        held("the audit holds", done.returncode == 0)
        held("it counts the same", f" {self.options.records + self.void:,} records ({self.void:,} void)" in said[-1])

    def compare(self, found: ChainRecords, name: str) -> None:
        """Fail where keys or counts differ."""
        self.void = found.void
        facts = self.facts
        wrong = differences(facts.keys, found)
        held(f"every call is on the chain exactly once: {'; '.join(wrong)}", not wrong)
        held("as many documents as asked for", len(facts.keys) == self.options.records)
        held(
            f"as many MOS as the platforms gave ({found.measured} of {facts.measured})",
            found.measured == facts.measured,
        )
        self.screen.say(
            f"{len(facts.keys):,} documents, {found.counted.total():,} records on the chain of {name}, "
            f"{len(found.counted):,} keys, the same set: every call exactly once"
        )
        self.screen.say(f"{found.void:,} void records (handed in twice, counted once); {found.measured:,} with MOS")

    def until(self, is_so, what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + STEP_S
        while True:
            try:
                if is_so():
                    return
            except LedgerError:
                pass
            if time.monotonic() > deadline:
                raise NotHeld(f"waited {STEP_S:.0f} s in vain for {what}")
            time.sleep(0.1)


def plan_kills(chance: Random, count: int, processes: list[LocalProcess]) -> list[tuple[float, LocalProcess]]:
    """Return who is killed when, as a share of the work: the agent (the first process) and a node at least once each.

    The work is done when everything is handed in and everything is final: each is half of it.
    """
    agent, *nodes = processes
    victims = [agent, chance.choice(nodes), *(chance.choice(processes) for _ in range(KILLS_MAX))][:count]
    chance.shuffle(victims)
    return list(zip(sorted(chance.uniform(0.02, 0.95) for _ in victims), victims, strict=True))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="day", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS, help=f"{RECORDS_MIN} to {RECORDS_MAX} (default 170000)")
    parser.add_argument("--seed", type=int, default=None, help="the same day and kills again (default: drawn)")
    parser.add_argument("--kills", type=int, default=3, help=f"0 to {KILLS_MAX} (default 3)")
    parser.add_argument("--keep-files", action="store_true", help="leave the files at the end, and say where")
    options = parser.parse_args(arguments)
    if not RECORDS_MIN <= options.records <= RECORDS_MAX:
        parser.error(f"--records: {RECORDS_MIN} to {RECORDS_MAX}")
    if not 0 <= options.kills <= KILLS_MAX:
        parser.error(f"--kills: 0 to {KILLS_MAX}")
    if options.seed is None:
        options.seed = secrets.randbelow(1_000_000)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Play the day; return 0 where every call is on the chain exactly once."""
    options = parse(arguments)
    return play("day", lambda folder, screen: Day(options, folder, screen), keeps_files=options.keep_files)


if __name__ == "__main__":
    raise SystemExit(main())
