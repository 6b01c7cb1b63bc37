"""Who called whom is nowhere but in the carrier's own vault, encrypted, and among its dead letters.

Four nodes, an agent beside one of them, calls with values that nothing else has, good documents and bad ones, and every
byte that is written, sent, logged or answered.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from node.cluster import Cluster, ClusterNode
from node.keyfile import new_token
from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import get, running_cluster, wait_until
from tests.integration.fault_kit import Loop, Relays, lead_through

ROOT = Path(__file__).parent.parent.parent
CALLER, CALLEE, ADDRESS = "+447700900123", "+447700900987", "203.0.113.147"
TELLING = (b"77009001", b"77009009", b"qqxzvv", b"203.0.113.147")
"""What is in every private value, however it is cut or spelled."""
CALLS = 12
INFO = ("--log-level", "debug", "--log-format", "json")


def forms(text: bytes) -> set[bytes]:
    """Return how ``text`` may stand somewhere: as it is, wide, in hex, and in Base64 at each of its three phases."""
    wide = text.decode().encode("utf-16-le")
    coded = {base64.b64encode(bytes(shift) + text)[-(-4 * shift // 3) :].rstrip(b"=")[:-1] for shift in range(3)}
    return {text, wide, text.hex().encode(), *coded}


FORMS = {form for text in TELLING for form in forms(text)} | {
    form
    for party in (CALLER, CALLEE)
    for form in (
        sha256(party.encode()).digest(),
        sha256(party.encode()).hexdigest().encode(),
        int(party).to_bytes(5),
        int(party).to_bytes(8, "little"),
    )
}
"""A plain hash of a number is no protection: a numbering plan is tried in minutes."""


def told_in(data: bytes) -> list[bytes]:
    """Return which of the planted values stand in ``data`` in any form."""
    small = data.lower()
    return [form for form in FORMS if form in data or form in small]


def call(number: int, **changes: Any) -> dict[str, Any]:
    """Return a CDR as Kamailio writes it, all of whose private fields are planted."""
    end_s = int(time.time()) - 20 - number
    return {
        "start_time": f"{end_s - 30}.000",
        "end_time": f"{end_s}.000",
        "call_id": f"qqxzvv-call-{number}@{ADDRESS}",
        "from_tag": f"qqxzvv-from-{number}",
        "to_tag": f"qqxzvv-to-{number}",
        "from": f"sip:{CALLER}@qqxzvv.test;user=phone",
        "to": f"sip:{CALLEE}@qqxzvv.test",
        "ruri": f"sip:{CALLEE}@{ADDRESS}",
        "src_ip": ADDRESS,
        "sip_code": "200",
        "x_account": "qqxzvv-account",
        **changes,
    }


MALFORMED: tuple[tuple[str, bytes], ...] = (
    *(
        ("kamailio", json.dumps(call(900 + number, **changes)).encode())
        for number, changes in enumerate(
            (
                {"start_time": CALLER},
                {"end_time": "sip:qqxzvv.anna@qqxzvv.test"},
                {"sip_code": CALLEE[1:]},
                {"sip_code": "qqxzvv"},
                {"from": [CALLER]},
                {"call_id": ""},
                {"mos_avg": CALLER, "mos_samples": "4"},
                {"packets_a": "qqxzvv"},
                {"codec_a": CALLER, "setup_time": CALLER},
                {f"{CALLER}": {"qqxzvv": CALLEE}},
                {"start_time": "1", "end_time": "2"},
            )
        )
    ),
    ("kamailio", f'{{"from": "{CALLER}'.encode()),
    ("kamailio", f'["{CALLER}", {{"{CALLEE}": 1}}]'.encode()),
    ("kamailio", f'"{CALLER}"'.encode()),
    ("kamailio", CALLER.encode() + b"\xff\xfe"),
    ("kamailio-acc", json.dumps({"method": CALLER, "callid": "qqxzvv", "time": CALLER, "from_tag": CALLEE}).encode()),
    ("asterisk-json", json.dumps({"src": CALLER, "dst": CALLEE, "start": "qqxzvv", "uniqueid": CALLER}).encode()),
    ("rtpengine", json.dumps({"call-id": "qqxzvv", "tags": {CALLER: {"label": 1}, "qqxzvv": None}}).encode()),
    ("rtpengine", json.dumps({"call-id": "qqxzvv", "result": "error", "error-reason": CALLER}).encode()),
)
"""Documents that no record can be made of: values in fields where they do not belong, and what is none at all."""
BEGIN = {
    "method": "INVITE",
    "callid": f"qqxzvv-open@{ADDRESS}",
    "from_tag": "qqxzvv-a",
    "to_tag": "",
    "sip_code": "200",
}
"""The begin of a call whose end never comes: it waits in the vault."""


class Client:
    """Asks one server, and keeps every answer.

    Attributes:
        answers: all bodies, with the status and headers before each.
    """

    def __init__(self, url: str, token: str) -> None:
        self.answers: list[bytes] = []
        self._url = url
        self._token = token

    def ask(self, path: str, body: bytes | None = None, media_type: str = "application/json") -> tuple[int, bytes]:
        """Return status and body."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media_type}
        request = urllib.request.Request(self._url + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                status, answer, head = response.status, response.read(), bytes(response.headers)
        except urllib.error.HTTPError as error:
            status, answer, head = error.code, error.read(), bytes(error.headers)
        self.answers.append(b"%d %s\n%s" % (status, head, answer))
        return status, answer

    def feed(self, documents: list[tuple[str, bytes]]) -> list[int]:
        """Hand documents in, each by itself; return the statuses."""
        return [self.ask(f"/v1/ingest/{name}", body)[0] for name, body in documents]


class Listener:
    """Keeps the events of a node until its connection ends."""

    def __init__(self, place: ClusterNode) -> None:
        self.heard = bytearray()
        self._connection = http.client.HTTPConnection(place.api.host, place.api.port, timeout=60)
        self._connection.request("GET", "/v1/events")
        self._thread = threading.Thread(target=self._listen, args=(self._connection.getresponse(),), daemon=True)
        self._thread.start()

    def _listen(self, response: http.client.HTTPResponse) -> None:
        try:
            while data := response.read1(65_536):
                self.heard += data
        except (OSError, http.client.HTTPException):
            pass

    def close(self) -> None:
        """Wait for the end."""
        self._thread.join(20)
        self._connection.close()


@contextmanager
def agent_of(cluster: Cluster, place: ClusterNode, nodes: list[str], home: Path) -> Iterator[tuple[Client, int]]:
    """An agent process that signs as the member of ``place``; it has stopped behind the block.

    It watches the folder ``platform`` beside its own.
    """
    home.mkdir()
    watched = home.parent / "platform"
    watched.mkdir()
    table = {"source": "kamailio", "directory": str(watched), "settle_s": 0}
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    (home / "agent.toml").write_text("\n".join(["[watch.files]", *lines, ""]))
    text, token = new_token("proxy", ["submit"])
    (home / "tokens.json").write_text(json.dumps([{"name": "proxy", "sha256": token.sha256, "roles": ["submit"]}]))
    options = {
        "--config": str(home / "agent.toml"),
        "--listen": "127.0.0.1:0",
        "--spool": str(home / "spool"),
        "--to": ",".join(nodes),
        "--genesis": str(cluster.genesis_file),
        "--submit-key": str(place.home / "submit.pem"),
        "--member-secret": str(place.home / "secret"),
        "--token-file": str(place.home / "token"),
        "--ingest-tokens": str(home / "tokens.json"),
        "--reserve-mib": "0",
    }
    command = [sys.executable, "-m", "node.cli.agent", "run", *(part for option in options.items() for part in option)]
    with (home / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *INFO],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
    assert process.stdout is not None
    try:
        yield Client(process.stdout.readline().strip(), text), process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(module: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands."""
    command = [sys.executable, "-m", f"node.cli.{module}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, check=False, env=environment
    )


def files_in(*folders: Path) -> dict[Path, bytes]:
    """Return every file below ``folders``."""
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def unmasked(stream: bytes) -> bytes:
    """Return what one direction of a WebSocket connection carried: clients mask their frames (RFC 6455, 5.3)."""
    parts = [stream]
    at = stream.find(b"\r\n\r\n") + 4
    while at >= 4 and at + 2 <= len(stream):
        length, is_masked = stream[at + 1] & 0x7F, stream[at + 1] & 0x80
        at += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(stream[at : at + size]), at + size
        mask = stream[at : at + 4] if is_masked else bytes(4)
        at += 4 if is_masked else 0
        data = stream[at : at + length]
        pad = (mask * (len(data) // 4 + 1))[: len(data)]
        parts.append((int.from_bytes(data) ^ int.from_bytes(pad)).to_bytes(len(data)))
        at += length
    return b"\n".join(parts)


class Vault:
    """The agent's vault, by its commands."""

    def __init__(self, spool: Path, place: ClusterNode) -> None:
        self._options = ("--vault", str(spool / "vault"), "--member-secret", str(place.home / "secret"))

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command."""
        return run("agent", "vault", *arguments, *self._options, stdin=stdin)

    def said(self, *arguments: str, stdin: str = "") -> str:
        """Run one that does what it is told; return what it printed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


def feed_everything(proxy: Client, node: Client, spool: Path) -> None:
    """Hand good and bad documents to an agent and to a node; return when what can become final is."""
    calls = [call(number) for number in range(CALLS)]
    good = [("kamailio", json.dumps(document).encode()) for document in calls]
    assert proxy.feed(good) == [202] * CALLS
    statuses = proxy.feed(list(MALFORMED))
    assert set(statuses) == {202, 400, 422}
    mixed = [*calls[:2], {"call_id": "qqxzvv", "start_time": CALLER}]
    assert proxy.feed([("kamailio", json.dumps(mixed).encode())]) == [422]
    begin = {**BEGIN, "time": int(time.time()), "from": f"sip:{CALLER}@qqxzvv.test", "to": f"sip:{CALLEE}@qqxzvv.test"}
    assert proxy.feed([("kamailio-acc", json.dumps(begin).encode())]) == [202]
    own = [json.dumps(call(number, codec_a=CALLER)).encode() for number in range(100, 103)]
    assert node.feed([("kamailio", document) for document in own]) == [201] * 3
    bad = [document for document in MALFORMED if document[0] == "kamailio"]
    assert set(node.feed(bad)) <= {400, 422}
    for private in ({CALLER: 1}, {"caller": CALLER}, {"caller": {"salt": CALLER, "value": [CALLEE]}}, CALLER):
        for record in ({}, {"codec": CALLER}, {CALLEE: CALLER}, CALLER):
            assert node.ask("/v1/records", json.dumps({"record": record, "private": private}).encode())[0] == 400
            assert node.ask("/v1/records", json.dumps({"record": record, CALLER: private}).encode())[0] == 400
    watched = spool.parent.parent / "platform"
    for number, name in ((200, "good"), (201, "bad")):
        document = call(number) if name == "good" else call(number, end_time=CALLER)
        hidden = watched / ".new"
        hidden.write_text(json.dumps(document) + "\n")
        hidden.rename(watched / f"{CALLER}-qqxzvv-{name}.json")
    wait_until("the good file is done with", lambda: any(watched.glob("done/*-good.json")))
    wait_until("the bad file is put aside", lambda: any(watched.glob("failed/*-bad.json.reason")))
    # All but the begin of a call is on the chain or a dead letter, and no longer in the clear.
    wait_until("all is final", lambda: json.loads(proxy.ask("/healthz")[1])["backlog"] == 1)
    wait_until("the spool is at rest", lambda: not b"".join(path.read_bytes() for path in spool.glob("*.seg")))


def metrics_of(nodes: list[LocalNode]) -> list[bytes]:
    """Return the metrics and the status of each node."""
    answers = []
    for node in nodes:
        for path in ("/metrics", "/v1/status"):
            with urllib.request.urlopen(node.place.url + path, timeout=5) as response:
                answers.append(response.read())
    return answers


def commitment_of(node: LocalNode, place: str) -> bytes:
    """Return the commitment of a record as another carrier's node has it."""
    wait_until("the record is at another node", lambda: get(node, f"/v1/records/{place}") is not None)
    document = get(node, f"/v1/records/{place}")
    assert document is not None
    return bytes.fromhex(document["record"]["party_commitment"])


def look_everywhere(
    folder: Path, sent: list[bytes], handed: list[bytes], answers: list[bytes], commitment: bytes
) -> None:
    """Look for what was planted in everything, having made sure that it would be found."""
    files = files_in(folder / "net", folder / "agent")
    (reason,) = (folder / "platform" / "failed").glob("*.reason")
    assert told_in(reason.read_bytes()) == []
    letters = folder / "agent" / "spool" / "dead" / "letters.jsonl"
    assert letters.stat().st_mode & 0o777 == 0o600
    assert letters.parent.stat().st_mode & 0o777 == 0o700
    assert all(text in files[letters].lower() for text in TELLING)
    for line in files.pop(letters).splitlines():
        letter = json.loads(line)
        assert told_in(letter.get("reason", "").encode()) == []
    # The commitment to the very values went to every node, over every kind of link.
    assert any(commitment in part for part in sent)
    assert any(commitment in part for part in handed)
    holders = {path.relative_to(folder / "net").parts[0] for path, data in files.items() if commitment in data}
    assert {"alpha", "beta", "gamma", "delta"} <= holders
    assert sum(map(len, sent)) > 10_000
    assert b"ledger_agent_final_records" in b"".join(answers)
    assert b"event: " in b"".join(answers)
    names = [str(path) for path in files]
    assert {path.name for path in files} >= {"ledgerd.log", "agent.log", "vault.sqlite", "cursor"}
    told = {name: told_in(data) for name, data in zip(names, files.values(), strict=True)}
    told |= {f"link {number}": told_in(data) for number, data in enumerate([*sent, *handed])}
    told |= {data[:300].decode("utf-8", "replace"): told_in(data) for data in answers}
    told |= {f"name {name}": told_in(name.encode()) for name in names}
    assert {where: found for where, found in told.items() if found} == {}


def forget_the_rest(folder: Path, vault: Vault) -> None:
    """Forget the letters of the other party too: then nothing that was planted is in the clear at the agent."""
    home = folder / "agent"
    vault.said("hold", "--subject", "-", "--reason", "dispute 17", "--who", "billing", stdin=CALLEE + "\n")
    done = json.loads(vault.said("shred", "--subject", "-", "--reason", "letter 22", "--json", stdin=CALLEE + "\n"))
    (spool, letters) = (done["spool"], done["dead_letters"])
    assert (spool, done["spooled_documents"]) == (str(home / "spool"), 0)
    # All that named the caller are gone with the caller: what is left is the element of an array.
    (held,) = letters["held"]
    assert letters == {"shredded": {}, "held": {held: "its digits or its name occur in it"}, "undecided": {}}
    assert CALLEE.encode() in (home / "spool" / "dead" / "letters.jsonl").read_bytes()
    assert f"dead letter {held} forgotten" in vault.said("release", "1", "--who", "legal")
    files = files_in(home)
    assert home / "spool" / "dead" / "letters.jsonl" in files
    told = {str(path): told_in(data) for path, data in files.items()}
    assert {where: found for where, found in told.items() if found} == {}


def forget_and_verify(folder: Path, cluster: Cluster, vault: Vault, record: tuple[str, str], commitment: bytes) -> None:
    """Forget the caller, then the month; the chain verifies, and what is left is proven."""
    (key, month), disclosed = record, folder / "callee.json"
    assert json.loads(vault.said("show", key, "--json"))["caller"] == CALLER
    said = vault.said("shred", "--subject", "-", "--reason", "letter of 21 November", stdin=f"sip:{CALLER}@any.test\n")
    assert said.startswith(f"{CALLS + 1} records of subject ")
    shown = json.loads(vault.said("show", key, "--json"))
    for name in ("caller", "call_id", "from_tag", "addresses", "raw"):
        assert re.fullmatch(r"\(shredded on 20\d\d-\d\d-\d\d: letter of 21 November\)", shown[name])
    assert shown["callee"] == CALLEE
    disclosed.write_text(vault.said("disclose", key, "--field", "callee"))
    checked = run("agent", "vault", "check", str(disclosed), "--commitment", commitment.hex())
    assert checked.stdout == f"callee is what the record was made with: {CALLEE}\n"
    refused = vault.run("disclose", key, "--field", "caller")
    assert (refused.returncode, "this field was shredded" in refused.stderr) == (1, True)
    forget_the_rest(folder, vault)
    assert f"of period {month} forgotten" in vault.said("shred", "--period", month, "--reason", "audit over")
    shown = json.loads(vault.said("show", key, "--json"))
    assert shown["caller"].endswith(": letter of 21 November)")
    assert shown["callee"].endswith(": letter 22)")
    for place in cluster.nodes:
        audit = run("verify", str(place.data), "--genesis", str(cluster.genesis_file))
        assert (audit.returncode, audit.stdout.startswith("OK")) == (0, True), audit.stdout + audit.stderr


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_planted_numbers_are_in_the_vault_alone_and_can_be_forgotten(tmp_path: Path) -> None:
    """Then: forgotten, the chain verifies, and what is left is proven."""
    with Loop() as loop:
        relays = Relays(keeps=True)
        to_nodes = Relays(keeps=True)
        try:
            with running_cluster(
                tmp_path / "net", arguments=INFO, prepare=lambda made: lead_through(relays, loop, made)
            ) as (cluster, nodes):
                alpha, beta = cluster.nodes[0], cluster.nodes[1]
                ports = [loop.run(to_nodes.open(("agent", place.member_id), place.api)) for place in (alpha, beta)]
                urls = [f"http://127.0.0.1:{port}" for port in ports]
                listener = Listener(cluster.nodes[2])
                vault = Vault(tmp_path / "agent" / "spool", alpha)
                with agent_of(cluster, alpha, urls, tmp_path / "agent") as (proxy, _):
                    node = Client(beta.url, beta.token)
                    feed_everything(proxy, node, tmp_path / "agent" / "spool")
                    answers = [*proxy.answers, *node.answers]
                    busy = vault.run("show", "00" * 16)
                    answers += [busy.stdout.encode(), busy.stderr.encode()]
                    assert busy.returncode == 1
                    assert "another process has the vault" in busy.stderr
                    answers += [*metrics_of(nodes), proxy.ask("/metrics")[1], proxy.ask("/healthz")[1]]
                found = vault.said("find", "--subject", "-", stdin=CALLER + "\n")
                records = re.findall(r"([0-9a-f]{32}) +(20\d\d-\d\d)", found)
                assert len(records) == CALLS + 1
                shown = json.loads(vault.said("disclose", records[0][0], "--field", "callee"))
                commitment = commitment_of(nodes[3], shown["record"])
                stop_all(nodes)
                listener.close()
        finally:
            loop.run(relays.close())
            loop.run(to_nodes.close())
    sent = [unmasked(bytes(part)) for part in relays.heard]
    handed = [bytes(part) for part in to_nodes.heard]
    look_everywhere(tmp_path, sent, handed, [*answers, bytes(listener.heard)], commitment)
    forget_and_verify(tmp_path, cluster, vault, records[0], commitment)
