"""The demonstration: four nodes, real traffic's likeness, a crash, an audit, a proof and a forgery. See --help.

Every step says what it shows and fails the run where it does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402
from demo_forgery import forge_receipt, forge_record  # noqa: E402
from stage import NotHeld, Screen, final_height, held, play, start  # noqa: E402

from ledger.errors import LedgerError  # noqa: E402
from ledger.readable import to_readable  # noqa: E402
from node.cli.lines import add_up, describe_briefly, energy_wh, method_name  # noqa: E402
from node.client import RECORDS_PER_REQUEST, ApiFault, Client, Handed  # noqa: E402
from node.cluster import Cluster, make_cluster  # noqa: E402
from node.founding import DEFAULT_PARAMETERS  # noqa: E402
from node.keyfile import read_secret  # noqa: E402
from node.localnet import LocalNode, stop_all  # noqa: E402
from telephony.synthetic import Traffic, generate_records  # noqa: E402

MEMBERS = ("alpha", "beta", "gamma", "delta")
FED = 3
"""Records go to the first three; the last one is killed on the way."""
BATCHES = 48
FEED_SECONDS = 10.0
"""Fed as traffic comes, evenly; a carrier's busy hour is 200 records a second."""
RECORDS_MIN, RECORDS_MAX = 300, 100_000
STEP_SECONDS = 40.0
"""No step waits longer."""


@dataclass
class Watcher:
    """Follows one node's live stream, prints finality as it comes, and adds up what became final."""

    screen: Screen
    node: LocalNode
    genesis_time_ms: int
    slot_ms: int
    totals: list[dict[str, Any]] = field(default_factory=list)
    delays_ms: list[int] = field(default_factory=list)
    blocks: int = 0
    stopping: bool = False

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self.stopping:
            with contextlib.suppress(LedgerError):
                for event in self.node.client.events():
                    if event.get("event") == "final":
                        self._on_final(event)
            time.sleep(0.1)

    def _on_final(self, event: dict[str, Any]) -> None:
        self.blocks += 1
        totals = event["totals"]
        if not totals["records"]:
            return
        delay_ms = time.time_ns() // 1_000_000 - self.genesis_time_ms - event["slot"] * self.slot_ms
        self.totals.append(totals)
        self.delays_ms.append(delay_ms)
        self.screen.say(f"block {event['height']} final in {delay_ms / 1000:.1f} s: {describe_briefly(totals)}")

    @property
    def records(self) -> int:
        return sum(totals["records"] for totals in self.totals)


class Demo:
    """The steps, in order."""

    def __init__(self, options: argparse.Namespace, folder: Path, screen: Screen) -> None:
        self.options = options
        self.screen = screen
        self.folder = folder
        self.cluster: Cluster = make_cluster(
            folder / "network",
            MEMBERS,
            genesis_time_ms=time.time_ns() // 1_000_000,
            parameters=msgspec.structs.replace(DEFAULT_PARAMETERS, slot_ms=500, epoch_slots=600),
            name="demo",
        )
        self.nodes = [LocalNode(place) for place in self.cluster.nodes]
        parameters = self.cluster.genesis.parameters
        self.watcher = Watcher(screen, self.nodes[0], self.cluster.genesis.genesis_time_ms, parameters.slot_ms)
        self.handed: list[tuple[LocalNode, Handed]] = []
        self.head = ""

    def run(self) -> None:
        self.start()
        self.feed()
        self.settle()
        self.refuse()
        if self.options.sip:
            self.call()
        receipt = self.prove()
        self.stop()
        self.audit()
        self.check_receipt(receipt)
        self.forge(receipt)
        if self.options.keep:
            self.keep()

    # -- the network ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.screen.title("Four carriers, a node each, with fresh keys")
        for node in self.nodes:
            start(node)
        for node in self.nodes:
            node.wait_ready()
            self.screen.say(f"{node.name:<6} API {node.place.url}   peers on {node.place.listen}")
        self.watcher.start()
        until(lambda: all(len(node.client.get("/v1/peers")["peers"]) == 3 for node in self.nodes), "all nodes to peer")
        self.screen.say("every node has proven its membership to every other; 3 of 4 make a quorum, one may fail")

    def feed(self) -> None:
        count = self.options.records
        self.screen.title(f"{count} call records over the HTTP API of three nodes; the fourth is killed on the way")
        streams = [self.records_of(node, seed) for seed, node in enumerate(self.nodes[:FED], 1)]
        victim, done, killed_at, is_back = self.nodes[-1], 0, 0, False
        for i in range(BATCHES):
            due = time.monotonic() + FEED_SECONDS / BATCHES
            node = self.nodes[i % FED]
            batch = list(islice(streams[i % FED], count * (i + 1) // BATCHES - count * i // BATCHES))
            for first in range(0, len(batch), RECORDS_PER_REQUEST):
                group = submit(node.client, batch[first : first + RECORDS_PER_REQUEST])
                self.handed += [(node, handed) for handed in group]
            done += len(batch)
            if i % 8 == 7:
                self.screen.say(f"{done} records in, each on a node's disk before it was answered")
            if i == BATCHES // 4:
                victim.kill()
                killed_at = final_height(self.nodes[0])
                self.screen.say(f"kill -9 {victim.name}: the other three are a quorum and go on")
            elif i >= 3 * BATCHES // 4 and not is_back:
                held("blocks became final with one node down", final_height(self.nodes[0]) > killed_at)
                self.revive(victim)
                is_back = True
            time.sleep(max(0.0, due - time.monotonic()))

    def records_of(self, node: LocalNode, seed: int) -> Iterator[dict[str, Any]]:
        """Return calls that ended in the last minutes, as the node's member would record them."""
        secret = read_secret(node.place.home / "secret")
        start_ms = time.time_ns() // 1_000_000 - 3_600_000
        traffic = Traffic(seed, start_ms, calls_per_hour=200_000, member_secret=secret)
        return ({"record": to_readable(record)} for record in generate_records(traffic))

    def revive(self, node: LocalNode) -> None:
        target = final_height(self.nodes[0])
        start(node)
        node.wait_ready()
        begun = time.monotonic()
        behind = target - final_height(node)
        until(lambda: final_height(node) >= target, f"{node.name} to catch up")
        self.screen.say(
            f"{node.name} is back, {max(behind, 0)} final blocks behind, "
            f"and caught up by itself in {time.monotonic() - begun:.1f} s"
        )

    def settle(self) -> None:
        self.screen.title("stored -> accepted -> included -> final")
        fed = len(self.handed)
        until(lambda: self.watcher.records >= fed, "every record to be final")
        last = {handed.tx_id: (node, handed) for node, handed in self.handed}
        for tx_id, (_, handed) in last.items():
            for node in self.nodes:
                until(lambda node=node, handed=handed: promise(node, handed) == "final", f"{tx_id} on {node.name}")
        held("no record is missing and none counts twice", self.watcher.records == fed)
        head = self.nodes[0].client.get("/v1/head")["final"]
        for node in self.nodes:
            until(lambda node=node: final_height(node) >= head["height"], f"{node.name} to have block {head['height']}")
            block_id = node.client.get(f"/v1/blocks/{head['height']}")["block_id"]
            held(f"{node.name} has the same block {head['height']}", block_id == head["block_id"])
        delays = sorted(self.watcher.delays_ms)
        median, worst = delays[len(delays) // 2] / 1000, delays[-1] / 1000
        self.screen.say(f"{fed} records final on all four nodes, in {len(last)} transactions")
        self.screen.say(f"finality after the start of the slot: median {median:.1f} s, longest {worst:.1f} s")
        totals = add_up(self.watcher.totals)
        for mos in totals["mos"]:
            mean = mos["sum_milli"] / mos["count"] / 1000
            self.screen.say(
                f"MOS {mean:.2f} over {mos['count']} calls by {method_name(mos)}, "
                f"lowest {mos['minimum_milli'] / 1000:.2f}"
            )
        unmeasured = totals["records"] - sum(mos["count"] for mos in totals["mos"])
        self.screen.say(f"no MOS for {unmeasured} calls: not answered, too short, or nobody measured")
        self.screen.say(
            f"{totals['talk_ms'] // 60_000:,} minutes of talk used {energy_wh(totals):,.1f} Wh, "
            f"{totals['co2_ug'] / 1_000_000:,.1f} g of CO2e"
        )

    def refuse(self) -> None:
        self.screen.title("What contradicts itself, or comes twice")
        node, place = self.handed[0]
        record = node.client.record(place.tx_id, place.index)["record"]
        again = submit(node.client, [{"record": record}])[0]
        held("the same record again is known", again.outcome == "already stored")
        self.screen.say("the same record again: already stored, does not count twice")
        record = self.measured_record()
        record["quality"]["mean"]["mos_milli"] += 50
        record["quality"]["best"] = None
        refused = node.client.submit([{"record": record}])[0]
        held("a record with an embellished MOS is refused", refused.outcome == "refused" and bool(refused.problem))
        problem = refused.problem or {}
        self.screen.say(
            f"a MOS embellished by 0.05: refused by rule {problem.get('rule')} "
            f"(expected {problem.get('expected')}, found {problem.get('actual')})"
        )

    def measured_record(self) -> dict[str, Any]:
        """Return a record whose MOS the rules compute again: by the E-model, with losses."""
        for document in islice(self.records_of(self.nodes[0], 99), 1_000):
            record: dict[str, Any] = document["record"]
            quality = record["quality"]
            if quality and quality["method"] == "g107" and quality["mean"] != quality["best"]:
                return record
        raise NotHeld("no such record among a thousand")

    # -- real calls -----------------------------------------------------------------------------------------------

    def call(self) -> None:
        self.screen.title("Real SIP calls through Kamailio and rtpengine")
        node = self.nodes[0]
        before = final_height(node)
        command = [sys.executable, str(ROOT / "scripts" / "sip-lab"), "--token", node.place.token]
        command += ["--ingest-url", f"{node.place.url}/v1/ingest/kamailio"]
        lab = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            output, _ = lab.communicate(timeout=3 * STEP_SECONDS)
        except BaseException:
            lab.terminate()  # it ends what it started
            lab.wait(STEP_SECONDS)
            raise
        for line in output.splitlines():
            self.screen.say(line)
        held("the SIP lab's calls went as planned", lab.returncode == 0)
        wanted = sum("CDR delivered" in line for line in output.splitlines())
        for other in self.nodes:
            until(lambda other=other: len(records_after(other, before)) == wanted, f"the calls on {other.name}")
        records = records_after(self.nodes[-1], before)
        held("all nodes have the same records", all(records_after(other, before) == records for other in self.nodes))
        for record in sorted(records, key=lambda record: record["end_ms"]):
            quality, energy = record["quality"], record["energy"]
            mos = f"MOS {quality['mean']['mos_milli'] / 1000:.1f} by {quality['method']}" if quality else "no MOS"
            length_s = (record["end_ms"] - record["setup_ms"]) / 1000
            self.screen.say(
                f"on all four: SIP {record['sip_code']}, {length_s:.1f} s, {mos}, {energy['co2_ug']} ug CO2e"
            )

    # -- the evidence ---------------------------------------------------------------------------------------------

    def prove(self) -> Path:
        self.screen.title("A receipt: one record, provable without any node")
        _, place = self.handed[len(self.handed) // 2]
        # From a node that did not take the record in.
        body = self.nodes[-1].client.get_bytes(f"/v1/records/{place.tx_id}/{place.index}/receipt")
        receipt = self.folder / "receipt.json"
        receipt.write_bytes(body)
        self.screen.say(f"{place.tx_id[:16]}.../{place.index} from {self.nodes[-1].name}, {len(body):,} bytes")
        head = self.nodes[0].client.get("/v1/head")["final"]
        self.head = f"{head['height']}:{head['block_id']}"
        return receipt

    def stop(self) -> None:
        self.screen.title("Stop, and audit what each node has on disk")
        self.watcher.stopping = True
        for node in self.nodes:
            until(lambda node=node: final_height(node) >= int(self.head.split(":")[0]), f"{node.name} to be level")
        for name, status in stop_all(self.nodes).items():
            held(f"{name} stopped cleanly (status {status})", status == 0)
        self.screen.say("all four stopped")

    def audit(self) -> None:
        for node in self.nodes:
            status, said = self.verify(node.place.data, "--since", self.head)
            self.screen.say(f"{node.name:<6} {said}")
            held(f"the audit of {node.name} holds", status == 0)

    def check_receipt(self, receipt: Path) -> None:
        status, said = self.verify(receipt)
        self.screen.say(f"receipt {said}")
        held("the receipt holds", status == 0)

    def forge(self, receipt: Path) -> None:
        self.screen.title("And a forger")
        copy = self.folder / "forged"
        shutil.copytree(self.nodes[0].place.data, copy)
        self.screen.say(forge_record(copy) + "; checksums mended")
        status, said = self.verify(copy)
        self.screen.say(f"audit  {said}")
        held("the forged copy is caught", status == 1)
        forged = self.folder / "forged.json"
        self.screen.say(forge_receipt(receipt, forged))
        status, said = self.verify(forged)
        self.screen.say(f"receipt {said}")
        held("the forged receipt is caught", status == 1)

    def verify(self, target: Path, *options: str) -> tuple[int, str]:
        """Run ledger-verify as anyone would; return its status and verdict."""
        command = [sys.executable, "-m", "node.cli.verify", str(target)]
        command += ["--genesis", str(self.cluster.genesis_file), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3 * STEP_SECONDS)
        lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
        return done.returncode, lines[-1] if lines else "(said nothing)"

    def keep(self) -> None:
        self.screen.title("The network goes on, as --keep asked")
        for node in self.nodes:
            start(node)
        for node in self.nodes:
            node.wait_ready()
            pid = node.process.pid if node.process else 0
            self.screen.say(f"{node.name:<6} {node.place.url}  token in {node.place.home / 'token'}  pid {pid}")
        pids = " ".join(str(node.process.pid) for node in self.nodes if node.process)
        self.screen.say(f"stop it with: kill {pids}; then remove {self.folder}")


def submit(client: Client, documents: list[dict[str, Any]]) -> list[Handed]:
    """Hand records in; while a node says "later", try again, as a proxy's agent does."""
    deadline = time.monotonic() + STEP_SECONDS
    while True:
        try:
            results = client.submit(documents)
        except ApiFault as fault:
            if fault.status not in {0, 503} or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
            continue
        refused = [result.problem for result in results if result.problem]
        held(f"records are taken{f' (refused: {refused[0]})' if refused else ''}", not refused)
        return results


def promise(node: LocalNode, handed: Handed) -> str:
    try:
        return str(node.client.record(handed.tx_id, handed.index)["promise"]["state"])
    except ApiFault as fault:
        if fault.status == 404:
            return "unknown"
        raise


def records_after(node: LocalNode, height: int) -> list[dict[str, Any]]:
    """Return the records in final blocks above ``height``."""
    records: list[dict[str, Any]] = []
    for at in range(height + 1, final_height(node) + 1):
        for transaction in node.client.get(f"/v1/blocks/{at}")["transactions"]:
            records += node.client.get(f"/v1/transactions/{transaction['tx_id']}")["records"]
    return records


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so; fail the run where it does not come about."""
    deadline = time.monotonic() + STEP_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise NotHeld(f"waited {STEP_SECONDS:.0f} s in vain for {what}")
        time.sleep(0.1)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--sip", action="store_true", help="real SIP calls too; needs Kamailio and rtpengine")
    parser.add_argument("--keep", action="store_true", help="leave the network running at the end")
    parser.add_argument("--records", type=int, default=4_000, help=f"{RECORDS_MIN} to {RECORDS_MAX} (default 4000)")
    options = parser.parse_args(arguments)
    if not RECORDS_MIN <= options.records <= RECORDS_MAX:
        parser.error(f"--records: {RECORDS_MIN} to {RECORDS_MAX}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return 0 where every step held."""
    options = parse(arguments)
    return play("demo", lambda folder, screen: Demo(options, folder, screen), keeps_running=options.keep)


if __name__ == "__main__":
    raise SystemExit(main())
