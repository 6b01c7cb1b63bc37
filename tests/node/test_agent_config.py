"""The agent's options, and that its document speaks of all of them."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ledger.errors import ConfigError
from node.agent import ENVIRONMENT_PREFIX, OPTIONS, AgentConfig, load_agent_config
from node.config import Address
from telephony.agent import Agent, AgentSettings, steady_ms
from telephony.agent_http import Metrics
from telephony.builder import Profile
from telephony.watching import Folder, FolderSettings
from tests.telephony.agent_kit import GENESIS, KEY, MEMBER, SECRET

DOCS = Path(__file__).parent.parent.parent / "docs"
DOCUMENT = (DOCS / "agent.md").read_text()


def test_a_flag_beats_the_environment_that_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('listen = "127.0.0.1:1"\nspool = "/s"\nto = ["http://a:8080"]\nreserve_mib = 3\n')
    environment = {"LEDGER_AGENT_LISTEN": "127.0.0.1:2", "LEDGER_AGENT_TO": "http://b, https://c:1/x/"}
    found = load_agent_config({"listen": "127.0.0.1:3", "spool": None}, environment, file)
    expected = AgentConfig(
        listen=Address("127.0.0.1", 3), spool=Path("/s"), to=("http://b", "https://c:1/x"), reserve_mib=3
    )
    assert found == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "here"),
        ("to", ""),
        ("to", "ftp://a"),
        ("to", "http://a,"),
        ("to", "http://a:x"),
        ("to", "http://me:secret@a"),
        ("reserve_mib", "-1"),
        ("reserve_mib", "1.5"),
        ("spool", ""),
        ("log_level", "loud"),
    ],
)
def test_a_wrong_value_is_named_with_where_it_was_set(name: str, value: str) -> None:
    variable = ENVIRONMENT_PREFIX + name.upper()
    with pytest.raises(ConfigError) as caught:
        load_agent_config({}, {variable: value})
    assert caught.value.where == variable
    assert "secret" not in caught.value.sentence()


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("spol = '/s'\n")
    with pytest.raises(ConfigError, match=r"agent\.toml: spol: unknown option"):
        load_agent_config({}, {}, tmp_path / "agent.toml")


def test_every_option_is_in_the_document() -> None:
    assert re.findall(r"^\| `(\w+)` \|", DOCUMENT.split("## Options")[1].split("## Answers")[0], re.MULTILINE) == list(
        OPTIONS
    )


async def test_every_metric_is_in_the_document(tmp_path: Path) -> None:
    settings = AgentSettings(
        tmp_path / "spool", ("http://a",), GENESIS, MEMBER, KEY, Profile(SECRET), tmp_path / "vault"
    )
    agent = Agent(settings)
    registry = CollectorRegistry()
    watched = FolderSettings("cdrs", "kamailio", tmp_path)
    folder = Folder(watched, agent.adapters.by_name["kamailio"], agent.intake.keep, steady_ms=steady_ms)
    registry.register(Metrics(agent, [folder]))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found = {
        family.name if family.type == "histogram" else sample.name for family in families for sample in family.samples
    }
    found |= {"ledger_agent_node_failures", "ledger_agent_watch_waiting_bytes"}
    await agent.stop()
    table = (DOCS / "metrics.md").read_text().partition("\n## ledger-agent\n")[2]
    rows = re.findall(r"^\| `(ledger_agent_\w+)(?:\{[^`]*)?` \| (gauge|counter|histogram) \|", table, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(found)
    assert [name for name, kind in rows if (kind == "counter") != name.endswith("_total")] == []
    assert set(re.findall(r"\bledger_agent_\w+", table)) == found


def test_the_unit_and_the_files_in_the_document_can_be_used(tmp_path: Path) -> None:
    """What is shown of the configuration, piece by piece, makes one file."""
    toml = "\n".join(re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL))
    (tmp_path / "agent.toml").write_text(toml)
    config, table = load_agent_config({}, {}, tmp_path / "agent.toml"), tomllib.loads(toml)
    assert (config.to, set(config.watch)) == (tuple(table["to"]), set(table["watch"]))
    text = (DOCS / "systemd" / "ledger-agent.service").read_text()
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    variables = re.findall(r"^Environment=LEDGER_AGENT_(\w+)=", text, re.MULTILINE)
    assert {name.lower() for name in variables} <= set(OPTIONS)
    (added,) = re.findall(r"```ini\n(.*?)```", DOCUMENT, re.DOTALL)
    unit.read_string(added)
    assert unit.sections() == ["Unit", "Service", "Install"]
