"""A network through its life, with real nodes: growth, a new key, a liar, an absentee, and a forger. See --help.

Every step says what it shows and fails the run where it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402
from scenario_feed import LOOK_S, Feeder, FinalityWatch, OfficeWatch, wait_for  # noqa: E402
from stage import Screen, final_height, held, play, start, uninterrupted  # noqa: E402

from ledger.crypto import PrivateKey  # noqa: E402
from ledger.errors import LedgerError  # noqa: E402
from node.cluster import Cluster, add_home, make_cluster  # noqa: E402
from node.founding import DEFAULT_PARAMETERS  # noqa: E402
from node.keyfile import read_key, write_key  # noqa: E402
from node.localnet import EQUIVOCATOR, LocalNode, stop_all  # noqa: E402

FOUNDERS = ("alpha", "beta", "gamma", "delta")
NEWCOMERS = ("epsilon", "zeta", "eta")
ROTATING, LIAR, ABSENT = "beta", "zeta", "delta"
SLOT_MS = 500
SEATS = 7
WEIGHT = 100
GAP_SLOTS = 20
"""Finality never pauses longer: a node calls itself stalled from here on."""
LAST = 40
"""Transactions of the last ten seconds."""
COMMAND_S = 120.0
STEP_S = 40.0
"""What takes no epochs takes no longer than this."""


class Scenario:
    """The acts, in order."""

    def __init__(self, options: argparse.Namespace, folder: Path, screen: Screen) -> None:
        self.screen = screen
        self.folder = folder
        self.epoch_s = options.epoch_slots * SLOT_MS / 1000
        self.cluster: Cluster = make_cluster(
            folder / "network",
            FOUNDERS,
            genesis_time_ms=time.time_ns() // 1_000_000,
            parameters=msgspec.structs.replace(
                DEFAULT_PARAMETERS, slot_ms=SLOT_MS, epoch_slots=options.epoch_slots, producer_count=SEATS
            ),
            name="scenario",
        )
        self.nodes = [LocalNode(place) for place in self.cluster.nodes]
        for name in NEWCOMERS:
            place = add_home(self.cluster, name)
            self.nodes.append(LocalNode(place, program=EQUIVOCATOR) if name == LIAR else LocalNode(place))
        self.feeder = Feeder(self.cluster, self.nodes)
        self.finality = FinalityWatch(self.nodes[0])
        self.offices = OfficeWatch(screen, self.nodes[0])

    def run(self) -> None:
        """Play all of it."""
        self.begin()
        self.grow()
        self.rotate_and_lie()
        self.lie_dead()
        self.shrink()
        self.settle()
        self.judge()

    @property
    def honest(self) -> list[LocalNode]:
        """Return the nodes that never signed what they must not."""
        return [node for node in self.nodes if node.name != LIAR]

    def node(self, name: str) -> LocalNode:
        """Return a member's node."""
        return next(node for node in self.nodes if node.name == name)

    def until(self, what: str, is_so: Callable[[], bool], *, epochs: float = 0) -> None:
        """Wait for something, for some epochs at most besides the time that any step may take."""
        wait_for(what, is_so, STEP_S + epochs * self.epoch_s, self.check)

    def check(self) -> None:
        """Fail the run where records are no longer taken."""
        held(f"records are taken{f': {self.feeder.failure}' if self.feeder.failure else ''}", not self.feeder.failure)

    # -- the acts -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the founders' nodes, and the records."""
        self.screen.title(f"Four founders; slots of {SLOT_MS} ms, epochs of {self.epoch_s:g} s, {SEATS} seats")
        for node in self.nodes[: len(FOUNDERS)]:
            start(node)
        for node in self.nodes[: len(FOUNDERS)]:
            node.wait_ready()
        self.until("the founders to peer", lambda: all(self.peers(node) == 3 for node in self.nodes[:4]))
        self.screen.say("alpha, beta, gamma and delta produce and vote; from now on records flow until the end")
        self.finality.start()
        self.offices.start()
        self.feeder.start()

    def grow(self) -> None:
        """Three members are admitted, join, stand, are elected, prove themselves, and vote."""
        self.screen.title("Three more carriers: admitted, joined, elected, and then, having sealed, voting")
        for name in NEWCOMERS:
            start(self.node(name))
        self.admit()
        self.screen.say("alpha proposed each, the other founders approved: two-thirds of the weight admits")
        for name in NEWCOMERS:
            node = self.node(name)
            node.wait_ready()
            self.until(f"{name} to be in step", partial(self.is_in_step, node))
            self.screen.say(f"{name} has joined: it fetched the chain by itself and is in step")
        calls = []
        for name in NEWCOMERS:
            place = self.node(name).place
            calls.append(
                [
                    *("candidate", "stand", "--with-key", place.home / "node.pem"),
                    *("--endpoint", f"ws://{place.listen}", "--zone", place.grid_zone, *self.signing(name)),
                ]
            )
        self.ctl_all(calls)
        self.ctl_all([["delegate", f"{name}={WEIGHT}", *self.signing(name)] for name in NEWCOMERS])
        self.screen.say("each stands for a seat, with its own weight behind it")
        self.until("seven to vote", lambda: len(self.offices.voters()) == len(FOUNDERS) + len(NEWCOMERS), epochs=4)

    def admit(self) -> None:
        """Let alpha propose each newcomer and the other founders approve."""
        calls = []
        for name in NEWCOMERS:
            home = self.node(name).place.home
            keys = [(f"--with-{role}-key", home / f"{role}.pem") for role in ("node", "submit", "govern")]
            options = [part for pair in keys for part in pair]
            calls.append(["propose", "admit", name, "--weight", WEIGHT, *options, *self.signing("alpha")])
        proposals = [made["tx_id"] for made in self.ctl_all(calls)]
        for proposal in proposals:
            # Two-thirds of the weight, which is the same for all; alpha has approved by proposing.
            needed = -(-2 * len(self.members()) // 3)
            self.ctl_all([["approve", proposal, *self.signing(founder)] for founder in FOUNDERS[1:needed]])
        held("the newcomers are members", self.members() >= set(NEWCOMERS))

    def rotate_and_lie(self) -> None:
        """One changes its node key while another equivocates; the same election answers both."""
        self.screen.title(f"{ROTATING} changes its node key; {LIAR} signs two votes for one height")
        node, home = self.node(ROTATING), self.node(ROTATING).place.home
        old, new = read_key(home / "node.pem", is_dev=False), PrivateKey.generate()
        write_key(home / "next.pem", new)
        node.terminate()
        held(f"{ROTATING} stopped cleanly", node.wait_stopped() == 0)
        rotated = LocalNode(node.place, ["--next-key", str(home / "next.pem")])
        self.nodes[self.nodes.index(node)] = rotated
        start(rotated)
        rotated.wait_ready()
        self.until(f"{ROTATING} to be in step", partial(self.is_in_step, rotated))
        self.screen.say(f"{ROTATING} was started again with both keys at hand")
        liar = self.node(LIAR)
        assert liar.process is not None
        liar.process.send_signal(signal.SIGUSR1)
        self.ctl("key", "rotate", old.key_id.hex(), home / "next.pem", *self.signing(ROTATING))
        self.until(f"evidence against {LIAR}", lambda: LIAR in self.struck(), epochs=1)
        self.show("evidence", LIAR, "--url", self.nodes[0].place.url)
        self.until(f"{LIAR} to vote no longer", lambda: LIAR not in (self.offices.voters() or {LIAR}), epochs=2)
        self.until("the new key to vote", lambda: self.offices.voters().get(ROTATING) == new.key_id.hex(), epochs=4)
        key = self.key_of(old.key_id.hex())
        held("the old key has ended", key["standing"] == "revoked")
        self.screen.say(f"the old key of {ROTATING} is {key['standing']}; {LIAR} is out, and no finality was lost")

    def lie_dead(self) -> None:
        """One node dies, lies dead for two epochs, and comes back."""
        self.screen.title(f"kill -9 {ABSENT}, for two epochs")
        node = self.node(ABSENT)
        before = final_height(self.nodes[0])
        node.kill()
        ends, missed = time.monotonic() + 2 * self.epoch_s, 0
        while time.monotonic() < ends:
            self.check()
            producers = self.offices.look()["producers"]
            missed = max([missed, *(each["missed"] for each in producers if each["member_id"] == ABSENT)])
            time.sleep(LOOK_S)
        gained = final_height(self.nodes[0]) - before
        held(f"blocks became final without {ABSENT}", gained > self.epoch_s)
        self.screen.say(f"{gained} blocks became final without it; it missed up to {missed} turns an epoch")
        start(node)
        node.wait_ready()
        target, begun = final_height(self.nodes[0]), time.monotonic()
        self.until(f"{ABSENT} to catch up", partial(self.has_final, node, target))
        self.until(f"{ABSENT} to be in step", partial(self.is_in_step, node))
        self.screen.say(f"{ABSENT} is back and fetched what it missed by itself in {time.monotonic() - begun:.1f} s")

    def shrink(self) -> None:
        """The newcomers that are left withdraw: four vote again."""
        leaving = [name for name in NEWCOMERS if name != LIAR]
        self.screen.title(f"{' and '.join(leaving)} withdraw")
        self.ctl_all([["candidate", "withdraw", *self.signing(name)] for name in leaving])
        self.until("the four founders alone to vote", lambda: set(self.offices.voters()) == set(FOUNDERS), epochs=3)
        # Some more blocks by these four alone.
        height = final_height(self.nodes[0])
        self.until("finality by four", lambda: final_height(self.nodes[0]) > height + 4)

    def settle(self) -> None:
        """Stop the records and count them, on every honest node."""
        self.screen.title("What was handed in")
        self.feeder.stop()
        self.check()
        sent = self.feeder.sent
        for node in self.honest:
            self.until(f"all to be final on {node.name}", partial(self.is_all_final, node))
        self.offices.stop()
        self.finality.stop()
        height = final_height(self.nodes[0])
        ids = set()
        for node in self.honest:
            self.until(f"block {height} on {node.name}", partial(self.has_final, node, height))
            times, void, block_id = self.walk(node, height)
            missing = [tx_id for tx_id in sent if not times[tx_id]]
            held(f"every transaction is final on {node.name} (missing: {missing[:3]})", not missing)
            held(f"none is there twice on {node.name}", max(times.values()) == 1)
            held(f"no record of them is void on {node.name}", void == 0)
            ids.add(block_id)
        held(f"all have the same block {height}", len(ids) == 1)
        records = sum(sent.values())
        self.screen.say(
            f"{records} records in {len(sent)} transactions, each final exactly once on all of "
            f"{', '.join(node.name for node in self.honest)}"
        )
        self.screen.say(f"{self.feeder.retries} times another node had to be asked, {ABSENT} being dead")
        gap = self.finality.gap_s * 1000 / SLOT_MS
        self.screen.say(
            f"finality never paused longer than {self.finality.gap_s:.1f} s, {gap:.1f} slots "
            f"(before block {self.finality.gap_height})"
        )
        held(f"finality never paused for more than {GAP_SLOTS} slots", gap <= GAP_SLOTS)
        sizes = self.offices.sizes
        self.screen.say(f"who voted, by number: {' -> '.join(map(str, sizes))}")
        # A newcomer that had no turn in its first epoch waits for the next.
        grown = sizes[: sizes.index(SEATS) + 1] if SEATS in sizes else []
        held("the voting set grew from 4 to 7", grown[:1] == [4] and grown == sorted(grown))
        held("it shrank to 4 again", sizes[-1] == 4 and 6 in sizes)

    def judge(self) -> None:
        """Audit the chain, follow it, and forge it."""
        from scenario_forgery import take_chain, try_forgeries

        self.screen.title("Whoever trusts no node")
        followed = ["alpha", "epsilon"]
        urls = [self.node(name).place.url for name in followed]
        self.show("follow", *urls, "--genesis", self.cluster.genesis_file, "--once", "--headers", only=("voters", "OK"))
        export = self.folder / "chain.export"
        chain = take_chain(self.node("gamma").client, self.cluster.genesis, self.all_keys())
        export.write_bytes(chain.to_export())
        for name, status in stop_all(self.nodes).items():
            held(f"{name} stopped cleanly (status {status})", status == 0)
        self.verify("data of delta", self.node(ABSENT).place.data)
        self.verify("export of gamma", export)
        self.screen.title("A forger with the node keys of zeta, epsilon, eta, and beta's old one, and every seal")
        count = try_forgeries(chain, self.folder / "forged.export", self.screen.say)
        self.screen.say(f"{count} forgeries of this chain, each refused by ledger-verify and by the light client")

    # -- parts ----------------------------------------------------------------------------------------------------

    def is_all_final(self, node: LocalNode) -> bool:
        """Tell whether the last transactions are final on a node; ``walk`` looks at all of them."""
        try:
            promises = [
                node.client.get(f"/v1/transactions/{tx_id}")["promise"] for tx_id in [*self.feeder.sent][-LAST:]
            ]
        except LedgerError:
            return False
        return all(promise["state"] == "final" for promise in promises)

    def walk(self, node: LocalNode, height: int) -> tuple[Counter[str], int, str]:
        """Return how often each transaction is in a node's final blocks, its void records, and the last block's id."""
        times: Counter[str] = Counter()
        void, block_id = 0, ""
        for at in range(1, height + 1):
            block = node.client.get(f"/v1/blocks/{at}")
            times.update(item["tx_id"] for item in block["transactions"])
            void += sum(len(item["void"]) for item in block["transactions"])
            block_id = block["block_id"]
        return times, void, block_id

    def peers(self, node: LocalNode) -> int:
        """Return how many peers a node has."""
        return len(node.client.get("/v1/peers")["peers"])

    def is_in_step(self, node: LocalNode) -> bool:
        """Tell whether a node is in step, by its own word."""
        try:
            return bool(node.client.get("/v1/status")["sync"]["state"] == "in-step")
        except LedgerError:
            return False

    def has_final(self, node: LocalNode, height: int) -> bool:
        """Tell whether the block at ``height`` is final on a node."""
        return final_height(node) >= height

    def members(self) -> set[str]:
        """Return who is a member."""
        return {member["member_id"] for member in self.nodes[0].client.get("/v1/members")["members"]}

    def struck(self) -> set[str]:
        """Return the members with evidence against them in the chain."""
        return {entry["member_id"] for entry in self.offices.look()["struck"]}

    def key_of(self, key_id: str) -> dict[str, Any]:
        """Return a key as the chain knows it."""
        keys: list[dict[str, Any]] = self.nodes[0].client.get("/v1/keys")["keys"]
        return next(key for key in keys if key["key_id"] == key_id)

    def all_keys(self) -> list[PrivateKey]:
        """Return every node key there was."""
        homes = [node.place.home for node in self.nodes]
        files = [home / name for home in homes for name in ("node.pem", "next.pem") if (home / name).exists()]
        return [read_key(file, is_dev=False) for file in files]

    def signing(self, name: str) -> list[object]:
        """Return the options with which a member signs, and hands in at its own node."""
        place = self.node(name).place
        return ["--key", place.home / "govern.pem", "--node", place.url, "--token-file", place.home / "token"]

    # -- commands -------------------------------------------------------------------------------------------------

    def ctl(self, *arguments: object) -> Any:
        """Run ``ledgerctl``; return what it says as JSON."""
        return self.ctl_all([arguments])[0]

    def ctl_all(self, calls: Sequence[Sequence[object]]) -> list[Any]:
        """Run several ``ledgerctl`` at once; return what each says as JSON."""
        answers = []
        for call, done in zip(calls, run_all("node.cli.ledgerctl", [[*call, "--json"] for call in calls]), strict=True):
            held(f"ledgerctl {call[0]} {call[1]}: {done.stderr.strip()}", done.returncode == 0)
            answers.append(json.loads(done.stdout))
        return answers

    def show(self, *arguments: object, only: tuple[str, ...] = ("",)) -> None:
        """Run ``ledgerctl`` and show what it says, lines that begin with one of ``only``; it must succeed."""
        done = run_all("node.cli.ledgerctl", [arguments])[0]
        self.screen.say(f"$ ledgerctl {' '.join(str(a).replace(str(self.folder) + '/', '') for a in arguments)}")
        for line in done.stdout.splitlines():
            if line.startswith(only):
                print(f"          {line}", flush=True)
        held(f"ledgerctl {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}", done.returncode == 0)

    def verify(self, what: str, target: Path) -> None:
        """Run ``ledger-verify`` as anyone would; it must accept."""
        done = run_all("node.cli.verify", [[target, "--genesis", self.cluster.genesis_file]])[0]
        lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or ["(said nothing)"]
        self.screen.say(f"ledger-verify, {what}: {lines[-1]}")
        held(f"the audit of the {what} holds", done.returncode == 0)


def run_all(module: str, calls: Sequence[Sequence[object]]) -> list[subprocess.CompletedProcess[str]]:
    """Run a program of this project several times at once and return how each ended; none is left behind."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "150"}
    running: list[subprocess.Popen[str]] = []
    done = []
    try:
        for call in calls:
            command = [sys.executable, "-m", module, *map(str, call)]
            with uninterrupted():
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
                running.append(process)
        for process in running:
            output, said = process.communicate(timeout=COMMAND_S)
            done.append(subprocess.CompletedProcess(process.args, process.returncode, output, said))
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    return done


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="scenario", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="epochs of 12 slots")
    parser.add_argument("--epoch-slots", type=int, default=None, help="10 to 200 (default 20)")
    parser.add_argument("--keep-files", action="store_true", help="leave the files at the end, and say where")
    options = parser.parse_args(arguments)
    if options.epoch_slots is None:
        options.epoch_slots = 12 if options.quick else 20
    if not 10 <= options.epoch_slots <= 200:
        parser.error("--epoch-slots: 10 to 200")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Play the scenario; return 0 where every step held."""
    options = parse(arguments)
    return play("scenario", lambda folder, screen: Scenario(options, folder, screen), keeps_files=options.keep_files)


if __name__ == "__main__":
    raise SystemExit(main())
