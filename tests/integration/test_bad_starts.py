"""Starts that must fail: status 1, and one sentence that says what, where, what was expected and what to do.

Every case is a real ``ledgerd`` process, given what an operator might give it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ledger.crypto import PrivateKey
from ledger.genesis import chain_id_of
from ledger.store import FORMAT_VERSION
from node.cluster import Cluster, ClusterNode, make_cluster
from node.keyfile import write_key
from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import Feeder, is_final, wait_until, wall_ms
from tests.integration.fault_kit import small_disk

# The chain of a stopped node, and the process that starts others, are made once.
pytestmark = pytest.mark.xdist_group("bad-starts")

ROOT = Path(__file__).parents[2]
MEMBERS = ("alpha", "beta")
SECONDS_MAX = 60
"""A start that fails takes about one second; a busy machine makes it more."""


@pytest.fixture(scope="module")
def network() -> Iterator[Cluster]:
    """Files of two members; nothing runs."""
    with tempfile.TemporaryDirectory() as home:
        yield make_cluster(Path(home) / "net", MEMBERS, genesis_time_ms=wall_ms())


@pytest.fixture
def place(network: Cluster) -> ClusterNode:
    """The member whose node is to be started."""
    return network.nodes[0]


Start = Callable[..., subprocess.CompletedProcess[str]]

FORKER = f"""
import json, os, signal, sys
from node.cli.ledgerd import main
import node.runtime
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.alarm({SECONDS_MAX})
        files = [os.open(name, os.O_RDWR | os.O_CREAT, 0o600) for name in (os.devnull, job["stdout"], job["stderr"])]
        for fd, file in enumerate(files):
            os.dup2(file, fd)
        os.chdir(job["cwd"])
        os.environ.update(job["environment"])
        sys.argv = ["ledgerd", *job["arguments"]]
        main()
        os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Starts ``ledgerd`` processes without importing the program anew for each: a tenth of the time."""


@pytest.fixture(scope="module")
def forker() -> Iterator[subprocess.Popen[str]]:
    """A process that starts others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LEDGERD_")}
    with subprocess.Popen(
        [sys.executable, "-c", FORKER],
        env=inherited | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.communicate()


@pytest.fixture
def start(forker: subprocess.Popen[str], tmp_path: Path) -> Start:
    """Run ``ledgerd`` until it ends by itself."""
    numbers = itertools.count()

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        assert forker.stdin is not None
        assert forker.stdout is not None
        number = next(numbers)
        out, err = tmp_path / f"stdout{number}", tmp_path / f"stderr{number}"
        job = {
            "arguments": [str(argument) for argument in arguments],
            "environment": environment,
            "cwd": str(tmp_path),
            "stdout": str(out),
            "stderr": str(err),
        }
        forker.stdin.write(json.dumps(job) + "\n")
        forker.stdin.flush()
        status = int(forker.stdout.readline())
        return subprocess.CompletedProcess(job["arguments"], status, out.read_text(), err.read_text())

    return run


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str | Path) -> None:
    """Assert that one sentence with ``parts`` in this order was all that was said."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("ledgerd: ")
    at = 0
    for part in map(str, parts):
        assert part in line[at:], f"{part!r} missing or out of order in: {line}"
        at = line.index(part, at) + len(part)


def alone(place: ClusterNode, home: Path) -> list[str | Path]:
    """Return options that start ``place``'s node on free ports with its data in ``home``; later ones win."""
    return ["--config", place.config, "--data", home / "data", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]


# --- Usage and options ----------------------------------------------------------------------------------------


def test_a_wrong_command_line_is_status_2() -> None:
    command = [sys.executable, "-m", "node.cli.ledgerd", "--nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 2
    assert "No such option: --nonsense" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('chain = "x"', ("node.toml: chain: unknown option", "expected genesis, data, key")),
        ("data = 5", ("node.toml: data: not text", "found 5")),
        ("data = ", ("node.toml: not valid TOML: Invalid value",)),
        ('peers = ["http://127.0.0.1:1"]', ("node.toml: peers: not a peer address", "ws://HOST:PORT")),
        ("dev = 1.5", ("node.toml: dev: neither true nor false", "found 1.5")),
    ],
)
def test_the_configuration_file(start: Start, tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    config = tmp_path / "node.toml"
    config.write_text(text)
    assert_refused(start("--config", config), *parts)


def test_no_configuration_file(start: Start, tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert_refused(start("--config", missing), missing, "cannot be read: No such file or directory")


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("LEDGERD_API", "8080", ("LEDGERD_API: not an address", "expected HOST:PORT", "found 8080")),
        ("LEDGERD_LOG_LEVEL", "loud", ("LEDGERD_LOG_LEVEL: not a choice", "debug | info | warning | error")),
        ("LEDGERD_DEV", "perhaps", ("LEDGERD_DEV: neither true nor false", "found perhaps")),
        ("LEDGERD_ENDPOINT", "here:1", ("LEDGERD_ENDPOINT: not a peer address", "wss://HOST:PORT", "found here:1")),
    ],
)
def test_the_environment(start: Start, name: str, value: str, parts: tuple[str, ...]) -> None:
    assert_refused(start(**{name: value}), *parts)


# --- Genesis --------------------------------------------------------------------------------------------------


def test_no_genesis(start: Start) -> None:
    assert_refused(start(), "--genesis: no chain is named", "Give the chain's genesis.json, or --dev")


def test_a_genesis_that_is_not_there(start: Start, tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    assert_refused(
        start("--genesis", missing), f"{missing}: the genesis file cannot be read: No such file or directory"
    )


def _as_text(change: Callable[[dict], None]) -> Callable[[dict], str]:
    def edit(document: dict) -> str:
        change(document)
        return json.dumps(document)

    return edit


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda document: "{", ("genesis.json: not valid JSON",)),
        (lambda document: "[" * 100_000, ("genesis.json: ",)),
        (
            _as_text(lambda d: d["parameters"].update(slot_ms=1.5)),
            ("genesis.json: parameters.slot_ms: wrong type", "expected an integer, found 1.5"),
        ),
        (
            _as_text(lambda d: d.update(motto="x")),
            ("genesis.json: motto: unknown field", "expected one of version, name"),
        ),
        (_as_text(lambda d: d.pop("name")), ("genesis.json: name: missing field",)),
        (
            _as_text(lambda d: d["members"][0].update(weight=101)),
            (
                "genesis.json: chain_id: the chain_id written in the file is not that of its contents",
                "The file was edited after it was made",
            ),
        ),
        (_as_text(lambda d: d["members"].reverse()), ("genesis.json: members: members must be ascending and unique",)),
    ],
    ids=["no JSON", "nested", "float", "unknown field", "missing field", "edited", "disordered"],
)
def test_a_bad_genesis(
    start: Start,
    network: Cluster,
    place: ClusterNode,
    tmp_path: Path,
    edit: Callable[[dict], str],
    parts: tuple[str, ...],
) -> None:
    genesis = tmp_path / "genesis.json"
    genesis.write_text(edit(json.loads(network.genesis_file.read_text())))
    assert_refused(start(*alone(place, tmp_path), "--genesis", genesis), *parts)
    assert not (tmp_path / "data").exists()


def test_a_genesis_without_end(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    assert_refused(
        start(*alone(place, tmp_path), "--genesis", "/dev/zero"),
        "/dev/zero: the genesis file is too large",
        "1048576 bytes",
    )


# --- Keys, secret, tokens -------------------------------------------------------------------------------------


def test_no_key(start: Start, network: Cluster, tmp_path: Path) -> None:
    done = start("--genesis", network.genesis_file)
    assert_refused(done, "--key: a node needs a key", "ledgerctl keygen")


def test_a_key_that_is_not_there(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    done = start(*alone(place, tmp_path), "--key", missing)
    assert_refused(done, f"{missing}: the private key cannot be read: No such file", f"ledgerctl keygen {missing}")


def test_a_key_of_another_kind(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    key = tmp_path / "p384.pem"
    key.write_bytes(
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    done = start(*alone(place, tmp_path), "--key", key)
    assert_refused(done, f"{key}: not a private key this program can use", "P-256", "ledgerctl keygen")


def test_the_worlds_development_key(start: Start, tmp_path: Path) -> None:
    key = ROOT / "scripts" / "devnet" / "alpha-node.pem"
    done = start("--genesis", ROOT / "genesis.json", "--key", key, "--data", tmp_path / "data")
    assert_refused(done, f"{key}: a development key, known to everybody, is refused outside --dev", "ledgerctl keygen")


def test_a_strangers_key(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    stranger = PrivateKey.generate()
    write_key(tmp_path / "stranger.pem", stranger)
    done = start(*alone(place, tmp_path), "--key", tmp_path / "stranger.pem")
    assert_refused(
        done,
        "--key: the node key belongs to no member of this chain",
        "expected a node key of a member",
        stranger.key_id.hex(),
        "Start with the member's own key",
    )


@pytest.mark.parametrize("name", ["another member's", "without the role"])
def test_a_submit_key_that_may_not(
    start: Start, network: Cluster, place: ClusterNode, tmp_path: Path, name: str
) -> None:
    keys = {"another member's": network.nodes[1].home / "submit.pem", "without the role": place.home / "node.pem"}
    done = start(*alone(place, tmp_path), "--submit-key", keys[name])
    assert_refused(
        done, "--submit-key: not a submit key of this node's member", "a key of alpha with the submit role", "found "
    )


def test_a_log_key_that_is_none(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    done = start(*alone(place, tmp_path), "--log-key", place.home / "node.pem")
    assert_refused(done, "node.pem: not a log key", "an unencrypted PEM key on Ed25519", "ledgerctl keygen --log")
    done = start(*alone(place, tmp_path), "--log-key", tmp_path / "missing.pem")
    assert_refused(done, "the log key cannot be read", "ledgerctl keygen --log")


def test_a_witness_that_is_none(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    done = start(*alone(place, tmp_path), "--witnesses", "witness.example+1+x")
    assert_refused(done, "--witnesses: not the verifier key of a witness", "Ed25519 of type 4")


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "\u00e9" * 32])
def test_a_malformed_secret(start: Start, place: ClusterNode, tmp_path: Path, text: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(text)
    done = start(*alone(place, tmp_path), "--member-secret", secret)
    assert_refused(done, f"{secret}: not a member secret", "expected 32 bytes in hex")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[", ("not a tokens file",)),
        ('{"a": 1}', ("not a tokens file", "array")),
        ('[{"name": "a", "sha256": "00", "roles": []}]', (": a: ", "64 hex digits")),
        ('[{"name": "a", "sha256": "%s", "roles": []}]' % ("g" * 64), (": a: ", "64 hex digits")),
        ('[{"name": "a", "sha256": "%s", "roles": ["root"]}]' % ("0" * 64), (": a: ", "submit, private", "root")),
        ("[" * 100_000, ("not a tokens file",)),
    ],
    ids=["cut", "object", "short hash", "no hex", "role", "nested"],
)
def test_a_malformed_tokens_file(
    start: Start, place: ClusterNode, tmp_path: Path, text: str, parts: tuple[str, ...]
) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(text)
    assert_refused(start(*alone(place, tmp_path), "--tokens", tokens), tokens, *parts)


# --- Network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--api", "--listen"])
def test_a_port_in_use(start: Start, place: ClusterNode, tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = start(*alone(place, tmp_path), option, address)
    assert_refused(done, f"{option} {address}: the port is in use", "Choose another port, or 0 for a free one")


@pytest.mark.parametrize("option", ["--api", "--listen"])
def test_an_address_that_is_not_ours(start: Start, place: ClusterNode, tmp_path: Path, option: str) -> None:
    done = start(*alone(place, tmp_path), option, "192.0.2.1:1234")
    assert_refused(done, f"{option} 192.0.2.1:1234: cannot listen", "an address of this machine")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9090", "http://127.0.0.1:1", "ws://127.0.0.1", "ws://h:99999", "ws://h:1/x"]
)
def test_a_bad_peer_address(start: Start, place: ClusterNode, tmp_path: Path, url: str) -> None:
    done = start(*alone(place, tmp_path), "--peers", url)
    assert_refused(done, "--peers: not a peer address", "expected ws://HOST:PORT or wss://HOST:PORT", f"found {url}")


def test_plaintext_beyond_loopback(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    done = start(*alone(place, tmp_path), "--peers", "ws://192.0.2.1:9090")
    assert_refused(done, "peers: peering without TLS is for loopback only", "ws://192.0.2.1:9090", "Use wss://")


# --- The data directory ---------------------------------------------------------------------------------------


def test_a_data_directory_that_cannot_be_written(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for data in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/ledgerd")):
        done = start(*alone(place, tmp_path), "--data", data)
        assert_refused(done, f"{data}: the directory cannot be made", "Choose a directory that this user may write")


def test_a_read_only_disk(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", mib=1, read_only=True) as data:
        done = start(*alone(place, tmp_path))
    assert_refused(done, f"{data}: the directory cannot be written", "Choose a directory that this user may write")


def test_a_directory_of_other_things(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    """An empty store begun in the wrong place would vote again with a key whose votes are remembered elsewhere."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "node.pem").write_text("something of the operator's")
    done = start(*alone(place, tmp_path))
    assert_refused(done, f"--data {data}", "no node's data directory", "node.pem", "its votes are remembered there")
    assert sorted(path.name for path in data.iterdir()) == ["node.pem"]


def test_a_disk_without_room(start: Start, place: ClusterNode, tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", mib=1) as data:
        done = start(*alone(place, tmp_path))
    assert_refused(done, data, "the disk is full", "bytes free", "free some room")


def test_a_development_chain_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    done = start("--dev", "--data", "/proc/ledgerd", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0")
    assert_refused(
        done, "/proc/ledgerd/dev: the directory cannot be made", "Choose a directory that this user may write"
    )


@pytest.fixture(scope="module")
def used() -> Iterator[Cluster]:
    """A chain of one member with some final records, whose node was stopped and started often enough to have tables."""
    with tempfile.TemporaryDirectory() as home:
        cluster = make_cluster(Path(home) / "net", ["solo"], genesis_time_ms=wall_ms())
        feeder, node = Feeder(cluster), LocalNode(cluster.nodes[0])
        try:
            for _ in range(2):
                node.start()
                node.wait_ready()
                sent = feeder.send(node)
                assert sent is not None
                wait_until("final", lambda sent=sent: is_final(node, sent))
                node.terminate()
                assert node.wait_stopped() == 0
        finally:
            stop_all([node])
        yield cluster


def copied(used: Cluster, home: Path) -> tuple[ClusterNode, Path]:
    """Return the member of ``used`` and a copy of its data directory."""
    data = home / "data"
    shutil.copytree(used.nodes[0].data, data)
    return used.nodes[0], data


def test_another_chains_directory(start: Start, used: Cluster, network: Cluster, tmp_path: Path) -> None:
    copied(used, tmp_path)
    done = start(*alone(network.nodes[0], tmp_path))
    assert_refused(
        done,
        "--data: the data directory belongs to another chain",
        f"expected chain {chain_id_of(network.genesis).hex()}",
        f"found chain {chain_id_of(used.genesis).hex()}",
        "Use the genesis file it was started with, or another directory",
    )


def test_a_second_process_on_one_directory(start: Start, network: Cluster, place: ClusterNode, tmp_path: Path) -> None:
    node = LocalNode(place)
    try:
        node.start()
        node.wait_ready()
        assert node.process is not None
        done = start(*alone(place, tmp_path), "--data", place.data)
        assert_refused(
            done, f"{place.data}: process {node.process.pid} has this data directory open", "Stop that process first"
        )
        assert node.is_running
    finally:
        stop_all([node])


def test_a_store_of_another_version(start: Start, used: Cluster, tmp_path: Path) -> None:
    place, data = copied(used, tmp_path)
    format_file = data / "FORMAT"
    format_file.write_text(format_file.read_text().replace(str(FORMAT_VERSION), str(FORMAT_VERSION + 1)))
    done = start(*alone(place, tmp_path))
    assert_refused(
        done,
        f"{data}: the store is of another format version",
        f"expected {FORMAT_VERSION}, found {FORMAT_VERSION + 1}",
        "Run the newer program",
    )


def test_a_format_line_that_is_none(start: Start, used: Cluster, tmp_path: Path) -> None:
    place, data = copied(used, tmp_path)
    (data / "FORMAT").write_bytes(b"\xff\x00 hello")
    assert_refused(start(*alone(place, tmp_path)), data / "FORMAT", "this is no format line", "Restore it")


def test_flipped_bytes_in_a_table(start: Start, used: Cluster, tmp_path: Path) -> None:
    place, data = copied(used, tmp_path)
    tables = sorted((data / "db").glob("*.ldb"))
    assert tables
    for table in tables:
        content = bytearray(table.read_bytes())
        for at in range(0, len(content), 64):
            content[at] ^= 0xFF
        table.write_bytes(content)
    done = start(*alone(place, tmp_path))
    assert_refused(done, data / "db", "LevelDB finds damage", "orruption", "Restore it from a backup, or delete it")


def test_a_flipped_byte_in_the_log(start: Start, used: Cluster, tmp_path: Path) -> None:
    place, data = copied(used, tmp_path)
    (log,) = (data / "db").glob("*.log")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    assert_refused(start(*alone(place, tmp_path)), data / "db", "LevelDB finds damage", "Restore it from a backup")


def test_a_segment_cut_short(start: Start, used: Cluster, tmp_path: Path) -> None:
    place, data = copied(used, tmp_path)
    (segment,) = (data / "segments").glob("*.seg")
    size = segment.stat().st_size
    os.truncate(segment, size - 1)
    done = start(*alone(place, tmp_path))
    assert_refused(done, segment, "a segment ends too early", f"expected {size} bytes, found {size - 1} bytes")


def test_a_segment_gone(start: Start, used: Cluster, tmp_path: Path) -> None:
    place, data = copied(used, tmp_path)
    (segment,) = (data / "segments").glob("*.seg")
    segment.unlink()
    assert_refused(start(*alone(place, tmp_path)), segment, "a segment is missing", "Restore it from a backup")


def test_a_vault_of_another_secret(start: Start, used: Cluster, tmp_path: Path) -> None:
    place, data = copied(used, tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("ab" * 32)
    done = start(*alone(place, tmp_path), "--member-secret", secret)
    assert_refused(done, data / "vault", "secret")


def test_a_good_start_after_all(used: Cluster, tmp_path: Path) -> None:
    """What the damaged copies were made from starts, so the sentences above are about the damage."""
    place, _ = copied(used, tmp_path)
    command = [sys.executable, "-m", "node.cli.ledgerd", *map(str, alone(place, tmp_path)), "--log-format", "json"]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        events = (json.loads(line)["event"] for line in process.stderr)
        assert "ready" in events
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, "Traceback" in rest) == (0, False)
    finally:
        process.kill()
        process.wait()
