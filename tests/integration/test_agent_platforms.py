"""Every platform hands its calls to a real agent the way it does: its path, its Content-Type, its credentials."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from ledger.cdr import CallRecord
from ledger.codec import decode, decode_each
from ledger.transaction import Transaction
from node.agent import running_agent
from tests.integration.test_agent import TOKEN, WAIT_S, FakeNode, configure, serving, until
from tests.telephony.adapters.test_asterisk import CUSTOM_COLUMNS
from tests.telephony.adapters.test_freeswitch import url_encoded
from tests.telephony.agent_kit import World
from tests.telephony.test_joined_calls import ANSWER, CALL_ID, CDR, LINES, PHONE

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "telephony" / "fixtures"
FREESWITCH = FIXTURES / "freeswitch"
LEDGER_MS = 1_795_310_000_000
"""22 November 2026, 01:13 UTC: after the last call of the fixtures, and within the record window of the first."""
FORM = "application/x-www-form-urlencoded"
FORM_BASE64 = "application/x-www-form-base64-encoded"
FORM_PLAIN = "application/x-www-form-plaintext"
Facts = tuple[int, int, int, int | None]
"""Of a record: SIP code, milliseconds of ringing and of talk, MOS x 1000."""


@dataclass(frozen=True)
class Post:
    """One post of a platform, as it makes it."""

    path: str
    content_type: str
    body: bytes
    is_password: bool = False
    """The token is the password of Basic authentication, as libcurl sends it with ``cred``."""
    is_expecting: bool = False
    """It waits for 100 Continue before it sends the body, as libcurl does with one of more than 1 kB."""


@dataclass(frozen=True)
class Case:
    """What a platform posts, and what becomes final of it."""

    posts: tuple[Post, ...]
    records: list[Facts]
    sources: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def that_night(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's time is that of the fixtures, whatever this machine's is; and nothing waits longer than it must."""
    started = time.monotonic()

    def now_ms() -> int:
        return LEDGER_MS + int((time.monotonic() - started) * 1000)

    monkeypatch.setattr("tests.integration.test_agent.now_ms", now_ms)
    monkeypatch.setattr("telephony.agent.now_ms", now_ms)
    monkeypatch.setattr("node.agent.STOP_S", 0.3)
    monkeypatch.setattr("telephony.delivery.ASK_MS_MIN", 10)
    monkeypatch.setattr("telephony.delivery.IDLE_S", 0.02)
    monkeypatch.setattr("telephony.agent.PACK_S", 0.01)


def freeswitch(name: str, content_type: str, body: bytes) -> Post:
    """Return a post of mod_json_cdr or mod_xml_cdr, which add the channel's id to the URL."""
    return Post(f"{name}?uuid=a_6b8e3c0a-52c5-4f6c-9a51-2a0f6a4b1c10", content_type, body, True, True)


def base64_form(document: bytes) -> bytes:
    """Return a form as FreeSWITCH fills it: base64 with its plus signs and its end as they are."""
    return b"cdr=" + base64.b64encode(document)


JSON_A, JSON_B, JSON_PLAIN, JSON_BUSY, JSON_CANCELLED = (
    (FREESWITCH / f"{name}.cdr.json").read_bytes().strip()
    for name in ("a-leg", "b-leg", "a-leg-plain-values", "busy", "cancelled")
)
XML_A, XML_B, XML_BUSY = ((FREESWITCH / f"{name}.cdr.xml").read_bytes() for name in ("a-leg", "b-leg", "busy"))


def recent(file: Path) -> bytes:
    """Return a CUCM file without the rows of years ago, which Cisco's guide has as examples."""
    lines = file.read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if b"12024120" not in line and b"151514" not in line)


CDR_FILE, CMR_FILE = sorted((FIXTURES / "cucm").iterdir())
A_LEG = (200, 6456, 65415, 4480)
B_LEG = (200, 6353, 65413, 4500)
BUSY = (486, 3550, 0, None)
CANCELLED = (487, 9496, 0, None)
CASES = {
    "freeswitch JSON": Case(
        (
            freeswitch("freeswitch", "application/json", JSON_A),
            freeswitch("freeswitch", "application/json", JSON_B),
            # With disable-100-continue its own Content-Type is lost, and libcurl's takes its place.
            Post("freeswitch?uuid=1", FORM, JSON_BUSY, is_password=True),
            freeswitch("freeswitch", "application/json", JSON_CANCELLED),
        ),
        [A_LEG, B_LEG, BUSY, CANCELLED],
    ),
    "freeswitch JSON, encode-values off": Case((freeswitch("freeswitch", "application/json", JSON_PLAIN),), [A_LEG]),
    "freeswitch JSON form": Case(
        (freeswitch("freeswitch", FORM, b"cdr=" + url_encoded(JSON_A, twice=False)),), [A_LEG]
    ),
    "freeswitch JSON base64": Case((freeswitch("freeswitch", FORM_BASE64, base64_form(JSON_A)),), [A_LEG]),
    "freeswitch XML": Case(
        (freeswitch("freeswitch-xml", "text/xml", XML_A), freeswitch("freeswitch-xml", "text/xml", XML_B)),
        [A_LEG, B_LEG],
    ),
    "freeswitch XML plain form": Case((freeswitch("freeswitch-xml", FORM_PLAIN, b"cdr=" + XML_BUSY),), [BUSY]),
    "freeswitch XML form": Case(
        (freeswitch("freeswitch-xml", FORM, b"cdr=" + quote(XML_A, safe="").encode()),), [A_LEG]
    ),
    "freeswitch XML base64": Case((freeswitch("freeswitch-xml", FORM_BASE64, base64_form(XML_A)),), [A_LEG]),
    "asterisk Master.csv": Case(
        (Post("asterisk", "text/csv", (FIXTURES / "asterisk" / "Master.csv").read_bytes()),),
        [
            (200, 6000, 65000, None),
            (480, 30000, 0, None),
            (200, 0, 32000, None),
            (486, 2000, 0, None),
            (0, 1000, 0, None),
            (200, 3000, 8000, None),
        ],
    ),
    "asterisk cdr_custom": Case(
        (Post("asterisk", "text/csv; charset=utf-8", (FIXTURES / "asterisk" / "cdr_custom.csv").read_bytes()),),
        [(200, 6000, 65000, 4300)],
        {"asterisk": {"columns": CUSTOM_COLUMNS}},
    ),
    "asterisk JSON": Case(
        (Post("asterisk-json", "application/json", (FIXTURES / "asterisk" / "cdr.jsonl").read_bytes()),),
        [(200, 6456, 65415, None), (480, 30000, 0, None)],
    ),
    "opensips": Case(
        tuple(
            Post("opensips", "application/json", line)
            for line in (FIXTURES / "opensips" / "events.jsonl").read_bytes().splitlines()
        ),
        [(200, 6000, 65415, 4300), (486, 4000, 0, None)],
    ),
    "cucm": Case(
        (
            Post("cucm-cmr", "text/csv", recent(CMR_FILE)),
            Post("cucm-cdr", "text/csv", recent(CDR_FILE)),
        ),
        [
            (200, 6000, 100000, 4350),
            (487, 3000, 0, None),
            (487, 21000, 0, None),
            (486, 1000, 0, None),
            (200, 25000, 35000, None),
            (200, 4000, 36000, None),
            (200, 5000, 15000, None),
            (200, 0, 60000, None),
            (503, 2000, 0, None),
        ],
        {"cucm-cdr": {"join_wait_s": 1}},
    ),
    "a mapping": Case(
        (
            Post(
                "our-3cx",
                "text/csv",
                (FIXTURES / "mapped" / "3cx-cdr.log").read_bytes().replace(b"2026/09/19", b"2026/11/21"),
            ),
        ),
        [(200, 0, 337000, None), (200, 3000, 25000, None), (487, 22000, 0, None)],
        {"mapped": {"our-3cx": {"preset": "3cx"}}},
    ),
    "kamailio": Case(
        (
            Post(
                "kamailio",
                "application/json",
                b"[%b]" % b",".join((FIXTURES / "kamailio-5.6.3-acc_json-cdr.jsonl").read_bytes().splitlines()),
            ),
        ),
        [(200, 1494, 6027, 4300), (200, 1934, 4018, None), (486, 365, 0, None)],
    ),
    "kamailio by transaction": Case(
        (Post("kamailio-acc", "application/json", b"[%b]" % b",".join(reversed(LINES))),),
        [
            (200, 307, 6208, None),
            (200, 308, 6206, None),
            (486, 308, 0, None),
            (487, 608, 0, None),
            (200, 307, 3206, None),
        ],
    ),
    "rtpengine": Case(
        (Post("rtpengine", "application/json", ANSWER), Post("kamailio", "application/json", CDR)),
        [(200, 307, 6207, 4400)],
        {"kamailio": {"join_wait_s": 1}},
    ),
    "a phone's report": Case(
        (Post("vq-report", "application/vq-rtcpxr", PHONE), Post("kamailio", "application/json", CDR)),
        [(200, 307, 6207, 4000)],
        {"kamailio": {"join_wait_s": 1}},
    ),
    "RTCP XR": Case(
        (
            Post("rtcp-xr", "application/json", json.dumps({"call-id": CALL_ID, "mos_lq": 38}).encode()),
            Post("kamailio", "application/json", CDR),
        ),
        [(200, 307, 6207, 3800)],
        {"kamailio": {"join_wait_s": 1}},
    ),
}


def credentials_of(post: Post) -> str:
    if post.is_password:
        return f"Basic {base64.b64encode(f'freeswitch:{TOKEN}'.encode()).decode()}"
    return f"Bearer {TOKEN}"


async def hand_in(session: aiohttp.ClientSession, listen: object, post: Post) -> tuple[int, str]:
    async with session.post(
        f"http://{listen}/v1/ingest/{post.path}",
        data=post.body,
        headers={"Content-Type": post.content_type, "Authorization": credentials_of(post)},
        expect100=post.is_expecting,
    ) as response:
        return response.status, await response.text()


def final_records(world: World) -> list[Facts]:
    """Return what is in the chain of each record, in the order of the calls."""
    records = [
        record
        for tx_id in world.final
        for record in decode_each(decode(world.raws[tx_id], Transaction).items, CallRecord)
    ]
    records.sort(key=lambda record: (record.setup_ms, record.end_ms, record.leg))
    return [
        (
            record.sip_code,
            (record.answer_ms or record.end_ms) - record.setup_ms,
            record.end_ms - record.answer_ms if record.answer_ms else 0,
            record.quality.mean.mos_milli if record.quality else None,
        )
        for record in records
    ]


@pytest.mark.parametrize("name", CASES)
async def test_what_a_platform_posts_becomes_records(tmp_path: Path, name: str) -> None:
    case, world = CASES[name], World(tmp_path, ledger_ms=LEDGER_MS)
    async with serving(FakeNode(world)) as url:
        config = configure(tmp_path, url, sources=case.sources)
        async with running_agent(config) as (agent, listen), aiohttp.ClientSession() as session:
            answers = [await hand_in(session, listen, post) for post in case.posts]
            assert [status for status, _ in answers] == [202] * len(case.posts), answers
            await until(lambda: agent.backlog == 0)
            assert agent.dead == 0
    assert final_records(world) == case.records


def watch_of(document: str, name: str, **changes: Any) -> dict[str, Any]:
    """Return a table ``[watch.NAME]`` of a document, with changes."""
    text = (ROOT / "docs" / document).read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    found = next(table for table in map(tomllib.loads, blocks) if name in table.get("watch", {}))
    return {**found["watch"][name], **changes}


async def test_freeswitchs_failed_posts_are_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose answer was lost is there although it was taken: it is known. A file that is no CDR is put aside."""
    monkeypatch.setattr("telephony.watching.LOOK_S", 0.02)
    (folder := tmp_path / "json_cdr").mkdir()
    world = World(tmp_path, ledger_ms=LEDGER_MS)
    watch = watch_of("freeswitch.md", "freeswitch-failed", directory=str(folder), settle_s=0)
    async with serving(FakeNode(world)) as url:
        config = configure(tmp_path, url, watch={"failed": watch})
        async with running_agent(config) as (agent, listen), aiohttp.ClientSession() as session:
            status, _ = await hand_in(session, listen, freeswitch("freeswitch", "application/json", JSON_A))
            assert status == 202
            files = {
                "a_1.cdr.json": JSON_A,
                "2.cdr.json": url_encoded(JSON_B, twice=False),
                "a_3.cdr.json": base64.b64encode(JSON_BUSY),
                "a_4.cdr.json": b"cut off",
            }
            for name, document in files.items():
                (tmp_path / name).write_bytes(document + b"\n")
                (tmp_path / name).rename(folder / name)
            await until(lambda: not list(folder.glob("*.json")))
            await until(lambda: agent.backlog == 0)
            assert (agent.known, agent.dead) == (1, 0)
    assert sorted(path.name for path in (folder / "done").iterdir()) == ["2.cdr.json", "a_1.cdr.json", "a_3.cdr.json"]
    assert (folder / "failed" / "a_4.cdr.json").read_bytes() == b"cut off\n"
    assert final_records(world) == [A_LEG, B_LEG, BUSY]


async def test_asterisks_file_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come while the agent runs and while it does not; a row half written waits for its end."""
    monkeypatch.setattr("telephony.watching.LOOK_S", 0.02)
    rows = (FIXTURES / "asterisk" / "Master.csv").read_bytes()
    half = rows.index(b"second line")
    master, world = tmp_path / "Master.csv", World(tmp_path, ledger_ms=LEDGER_MS)
    master.write_bytes(b"")
    watch = watch_of("asterisk.md", "asterisk", follow=str(master), begin="start", settle_s=0)
    async with serving(FakeNode(world)) as url:
        config = configure(tmp_path, url, watch={"asterisk": watch})
        for part, count in ((rows[:half], 5), (rows[half:], 6)):
            with master.open("ab") as stream:
                stream.write(part)
            async with running_agent(config) as (agent, _):
                await until(lambda count=count: len(world.counted) == count)  # type: ignore[misc]
                await until(lambda agent=agent: agent.backlog == 0)  # type: ignore[misc]
                assert agent.dead == 0
    assert final_records(world) == CASES["asterisk Master.csv"].records


BY_HAND = {
    "freeswitch.md": (
        {f"{name}.cdr.json": document for name, document in (("a_1", JSON_A), ("2", JSON_B), ("a_3", JSON_BUSY))},
        [A_LEG, B_LEG, BUSY],
    ),
    "asterisk.md": (
        {"Master.csv": (FIXTURES / "asterisk" / "Master.csv").read_bytes()},
        CASES["asterisk Master.csv"].records,
    ),
    "opensips.md": (
        {"unsent.jsonl.202611211200": (FIXTURES / "opensips" / "events.jsonl").read_bytes()},
        CASES["opensips"].records,
    ),
}
"""Files that are there after an outage, and the records that come of them."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("document", BY_HAND)
async def test_the_commands_for_handing_in_by_hand(tmp_path: Path, document: str) -> None:
    """They are run as they stand, but for address, token and folder; a loop leaves no file where it was."""
    files, records = BY_HAND[document]
    (folder := tmp_path / "files").mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    text = (ROOT / "docs" / document).read_text()
    (commands,) = re.findall(
        r"^```\n([^`]*for file in [^`]*?done|ledger-agent feed [^`]*)\n```$", text, flags=re.MULTILINE
    )
    (tmp_path / "agent.toml").write_text("")
    (tmp_path / "ingest-token").write_text(TOKEN)
    commands = re.sub(r"/var/(?:log|spool)/[a-z_/]+[a-z_](?=/|\s)", str(folder), commands)
    for there, here in (
        ("/etc/ledger-agent/agent.toml", str(tmp_path / "agent.toml")),
        ("--token-file token", f"--token-file {tmp_path}/ingest-token"),
        ("TOKEN", TOKEN),
        ("ledger-agent feed", f"{sys.executable} -m node.cli.agent feed"),
    ):
        commands = commands.replace(there, here)
    world = World(tmp_path, ledger_ms=LEDGER_MS)
    async with serving(FakeNode(world)) as url, running_agent(configure(tmp_path, url)) as (agent, listen):
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euc",
            commands.replace("127.0.0.1:8090", str(listen)),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await asyncio.wait_for(process.wait(), WAIT_S) == 0
        await until(lambda: agent.backlog == 0)
        assert agent.dead == 0
    assert final_records(world) == records
    left = [path.name for path in folder.iterdir() if path.is_file()]
    assert left == (["Master.csv"] if document == "asterisk.md" else [])
