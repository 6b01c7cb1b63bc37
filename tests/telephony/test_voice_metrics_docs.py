"""The document of voice metrics names what the code reads, and its examples are read as it says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from ledger.cdr import Levels, MosKind, Observer
from node.agent import join_times, load_agent_config
from telephony.adapters.registry import Adapters
from telephony.adapters.rtcp_xr import BOUNDS, RtcpXrAdapter
from telephony.adapters.vq_report import REPORTS, VqReportAdapter
from telephony.source import SourceReading

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "voice-metrics.md").read_text()
RTPENGINE, REPORT, XR = (
    DOCUMENT.split(f"\n## {title}")[1].split("\n## ")[0] for title in ("rtpengine", "RFC 6035", "RFC 3611")
)


def blocks(language: str, text: str = DOCUMENT) -> list[str]:
    """Return the fenced blocks of a language, without the indentation of the list that they are in."""
    found = re.findall(r"^( *)```([\w-]*)\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, name, block in found if name == language]


def named(section: str) -> set[str]:
    """Return every name in the first column of a section's table."""
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def code(name: str) -> str:
    return (ROOT / "telephony" / "adapters" / f"{name}.py").read_text()


def test_paths_are_those_of_adapters():
    paths = set(re.findall(r"/v1/ingest/([a-z-]+)", DOCUMENT))
    assert paths == {"rtpengine", "vq-report", "rtcp-xr"}
    assert paths <= set(Adapters().by_name)


def test_every_value_of_a_report_is_documented():
    read = re.findall(r'metrics\.\w+\("(\w+)\.(\w+)"', code("vq_report"))
    assert len(read) > 20
    assert {name for pair in read for name in pair} - named(REPORT) == set()
    assert {name.lower() for name in named(REPORT) if name.startswith("VQ")} == REPORTS


def test_every_member_of_rtcp_xr_is_documented():
    read = set(re.findall(r'fields\.\w+\("([\w-]+)"', code("rtcp_xr"))) | set(BOUNDS)
    assert read == named(XR)


def test_every_member_of_rtpengines_answer_is_documented():
    read = set(re.findall(r'(?:fields|tags|media|entry|stream|stats|mean)\.\w+\("([\w -]+)"', code("rtpengine")))
    assert len(read) > 20
    words = " ".join(named(RTPENGINE))
    left = {name for name in read if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words)}
    assert left <= {"result", "error-reason", "tag", "type", "stats", "flags"}


def test_the_report_in_the_document():
    (text,) = blocks("vq-rtcpxr")
    part = VqReportAdapter().parse(text.encode())
    (quality,) = part.qualities
    assert (quality.observer, quality.kind, quality.r_milli, quality.one_way_us) == (
        Observer.CALLER,
        MosKind.CQ,
        89_000,
        102_000,
    )
    assert quality.average == SourceReading(4100, 84_000, 3000, 4000, None)
    assert part.levels == Levels(-21, -64, 55, 32, 1, 120, 9000, 40, 80, 60)


def test_the_objects_in_the_document_say_the_same():
    adapter = RtcpXrAdapter()
    values, block = (adapter.parse(text.encode()) for text in blocks("json", XR))
    assert values.levels == block.levels == Levels(-21, -64, 55, 32, 1, 120, 9000, 40, 80, 60)
    assert values.qualities[0].average == SourceReading(4100, 84_000, 3000, 3906, None)
    assert block.qualities[0].average == SourceReading(4100, 84_000, None, 3906, None)
    assert (values.call.from_tag, block.call) == ("9123dh311", None)


def test_the_configurations_in_the_document_are_right(tmp_path):
    waits, sources = blocks("toml")
    (tmp_path / "agent.toml").write_text(waits)
    config = load_agent_config({}, {}, tmp_path / "agent.toml")
    times = join_times(config.sources, config.join_keep_s)
    assert (times.wait_of("kamailio"), times.wait_of("cucm-cdr")) == (30_000, 180_000)
    Adapters(tomllib.loads(sources)["sources"])


def test_what_kamailio_sends_is_what_the_adapter_takes():
    """The lines for rtpengine's answer add the member by which it is known, and post to its adapter."""
    text = "".join(blocks("kamailio"))
    assert '"call-id", "$ci"' in text
    (path,) = re.findall(r"/v1/ingest/([a-z-]+)", text)
    answer = json.loads((ROOT / "tests/telephony/fixtures/rtpengine-10.5.3-query.json").read_bytes())
    adapter = Adapters().by_name[path]
    assert adapter.parse(json.dumps({**answer, "call-id": "c"}).encode()).join == ("call-id", "c")
    assert re.findall(r'\$var\(type\) = "([^"]+)"', text) == ["application/json"]


@pytest.mark.parametrize("name", ["kamailio.md", "cucm.md", "agent.md"])
def test_links_lead_somewhere(name):
    assert f"({name})" in DOCUMENT or name == "kamailio.md"
    assert (ROOT / "docs" / name).exists()
