"""docs/monitoring: what is shown and judged exists, each alert is tried both ways and says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from node.cli.ledgerctl import app as ledgerctl
from node.cluster import Cluster, add_agent, free_ports
from node.localnet import LocalAgent
from tests.integration.cluster_kit import Feeder, running_cluster
from tests.metric_kit import LABELS_OF_EVERYTHING, PROMTOOL
from tests.test_operations import commands_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "monitoring"
METRICS_MD = (ROOT / "docs" / "metrics.md").read_text()
LABELS = {
    name: set(re.findall(r"`(\w+)`", text))
    for name, text in re.findall(r"^\| `(\w+)` \| (?:gauge|counter|histogram) \| (.+) \|$", METRICS_MD, re.MULTILINE)
}
"""Of each metric of nodes and agents; other tests hold the tables against what is scraped."""
HISTOGRAMS = set(re.findall(r"^\| `(\w+)` \| histogram \|", METRICS_MD, re.MULTILINE))
OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
WORDS = {"and", "or", "by", "on", "unless", "without", "ignoring", "bool", "offset", "group_left", "group_right"}
"""Of the query language, that look like names."""


@dataclass
class Rule:
    """One alert as the file has it."""

    name: str
    expr: str
    severity: str
    summary: str
    description: str


def rules() -> list[Rule]:
    """Return the alerts. The file is YAML of one form, which this reads and ``promtool`` understands."""
    found = []
    for text in (FOLDER / "alerts.yml").read_text().split("      - alert: ")[1:]:
        name = text.partition("\n")[0]
        expr = re.search(r"^        expr: (?:>-\n((?:          .+\n)+)|(.+)\n)", text, re.MULTILINE)
        severity = re.search(r"^          severity: (\w+)$", text, re.MULTILINE)
        summary = re.search(r'^          summary: "(.+)"$', text, re.MULTILINE)
        description = re.search(r'^          description: "(.+)"$', text, re.MULTILINE)
        if expr is None or severity is None or summary is None or description is None:
            pytest.fail(f"{name} lacks a part")
        folded = " ".join(line.strip() for line in (expr[1] or expr[2]).splitlines())
        found.append(Rule(name, folded, severity[1], summary[1], description[1]))
    return found


def panels() -> Iterator[tuple[str, str]]:
    """Yield title and query of everything that the dashboard shows."""
    document: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    for panel in document["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def as_asked(expr: str) -> str:
    """Return a query of the dashboard as Prometheus gets it."""
    return expr.replace("$__rate_interval", "1m").replace("$instance", ".*")


def faults_of(expr: str) -> list[str]:
    """Return what a query asks for that nobody tells: metrics, and labels of these."""
    faults, labels, bare = [], set(LABELS_OF_EVERYTHING), re.sub(r'"[^"]*"', '""', expr)
    is_histogram = False
    for name, matchers in re.findall(r"\b([A-Za-z_]\w*)\b(?!\s*\()(?:\{([^}]*)\})?", _without_lists(bare)):
        if name in WORDS:
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        known = OF_PROMETHEUS.get(name, LABELS.get(base if base in HISTOGRAMS else name))
        if known is None:
            faults.append(f"no metric {name}")
            continue
        is_histogram = is_histogram or name.endswith("_bucket")
        labels |= known
        wrong = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - known - LABELS_OF_EVERYTHING
        faults += [f"{name} has no label {label}" for label in sorted(wrong)]
    listed = {label for part in re.findall(r"\b(?:by|on|group_right|group_left) \(([^)]*)\)", bare)
              for label in re.findall(r"\w+", part)}  # fmt: skip
    faults += [f"nothing has label {label}" for label in sorted(listed - labels - ({"le"} if is_histogram else set()))]
    return faults


def _without_lists(expr: str) -> str:
    """Return a query without lists of labels, numbers and durations."""
    expr = re.sub(r"\b(by|on|group_right|group_left) \([^)]*\)", "", expr)
    return re.sub(r"\[[^\]]*\]|\b\d[\w.]*\b", "", expr)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_alerts_ask_for_what_is_told(rule: Rule) -> None:
    assert faults_of(rule.expr) == []


def test_panels_ask_for_what_is_told() -> None:
    found = [(title, fault) for title, expr in panels() for fault in faults_of(as_asked(expr))]
    assert found == []
    assert len(list(panels())) > 30


def test_the_dashboard_can_be_imported_and_read() -> None:
    document = json.loads((FOLDER / "dashboard.json").read_text())
    found = document["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    places = [panel["gridPos"] for panel in found]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert max(x for x, _ in cells) < 24
    assert len(set(cells)) == len(cells)
    drawn = [panel for panel in found if panel["type"] != "row"]
    assert [panel["title"] for panel in drawn if panel["datasource"]["uid"] != "${datasource}"] == []
    variables = {variable["name"] for variable in document["templating"]["list"]}
    named = set(re.findall(r"\$\{?(\w+)", (FOLDER / "dashboard.json").read_text()))
    assert named - variables == {"__rate_interval", "__all"}


@pytest.mark.parametrize(
    ("expr", "faults"),
    [
        ("ledgerd_peer > 1", ["no metric ledgerd_peer"]),
        ('sum(ledgerd_sync{stat="in-step"})', ["ledgerd_sync has no label stat"]),
        ("sum by (producer) (ledgerd_peers)", ["nothing has label producer"]),
        ("sum by (le) (ledgerd_peers)", ["nothing has label le"]),
        ("rate(ledgerd_finality_seconds_total[5m])", ["no metric ledgerd_finality_seconds_total"]),
        ("histogram_quantile(0.5, sum by (le) (rate(ledgerd_finality_seconds_bucket[5m])))", []),
    ],
)
def test_what_nobody_tells_is_found(expr: str, faults: list[str]) -> None:
    assert faults_of(expr) == faults


def test_the_document_lists_the_alerts_and_no_other() -> None:
    pages, tickets = ([rule.name for rule in rules() if rule.severity == severity] for severity in ("page", "ticket"))
    assert sorted(pages + tickets) == sorted(set(re.findall(r"`(Ledger[A-Z]\w+)`", METRICS_MD)))
    of_nodes, of_agents = METRICS_MD.split("\n## ledger-agent\n")
    at_night = of_nodes.partition("\nIn the morning:")[0] + of_agents.partition("\nIn the morning:")[0]
    assert sorted(pages) == sorted(set(re.findall(r"`(Ledger[A-Z]\w+)`", at_night)))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_an_alert_names_a_section_that_says_what_to_do(rule: Rule) -> None:
    assert "$labels" in rule.summary or "$value" in rule.summary
    found = re.search(r"\b(docs/[\w-]+\.md)(?:, ([^.]+))?\.$", rule.description)
    assert found is not None
    headings = re.findall(r"^#+ (.+)$", (ROOT / found[1]).read_text(), re.MULTILINE)
    assert found[2] is None or found[2] in headings


def test_every_alert_is_tried_both_ways() -> None:
    tests = (FOLDER / "alerts-test.yml").read_text()
    tried = re.findall(
        r"eval_time: \w+\n        exp_samples: \[\]\n.+\n        eval_time: \w+\n        exp_samples:\n"
        r"          - labels: '\{alertname=\"(\w+)\"",
        tests,
    )
    assert sorted(tried) == sorted(rule.name for rule in rules())


def test_the_files_that_the_guide_names_are_there() -> None:
    text = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"^\| `([\w.-]+)` \|", text, re.MULTILINE))
    assert named == {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert f"{len(rules())} rules" in text


def test_the_doctor_of_the_guide_is_spelt_as_the_program_wants_it() -> None:
    (words,) = commands_of((FOLDER / "README.md").read_text())
    command: Any = typer.main.get_command(ledgerctl)
    assert words[1] == "doctor"
    command.commands["doctor"].make_context("doctor", words[2:])


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: Debian package prometheus")
class TestWithPromtool:
    """The commands of docs/monitoring/README.md."""

    def run(self, *words: str, folder: Path = FOLDER) -> str:
        assert PROMTOOL is not None
        done = subprocess.run([PROMTOOL, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_the_configuration_is_one(self) -> None:
        assert "SUCCESS" in self.run("check", "config", "prometheus.yml")

    @pytest.mark.slow
    def test_alerts_fire_where_they_should_and_nowhere_else(self) -> None:
        assert "SUCCESS" in self.run("test", "rules", "alerts-test.yml")

    def test_the_queries_of_the_dashboard_are_some(self, tmp_path: Path) -> None:
        rows = [
            f"      - record: panel:{number}\n        expr: {json.dumps(as_asked(expr))}\n"
            for number, (_, expr) in enumerate(panels())
        ]
        (tmp_path / "panels.yml").write_text("groups:\n  - name: panels\n    rules:\n" + "".join(rows))
        assert f"{len(rows)} rules found" in self.run("check", "rules", "panels.yml", folder=tmp_path)


PROMETHEUS = shutil.which("prometheus")
WITHOUT_EVENTS = {"Suspicious records", "Lies and reorganisations", "Watched files"}
"""Panels of which something must have happened, or been set up, to be seen."""


def ask(url: str, path: str, **query: str) -> Any:
    """Return what Prometheus answers, None where it does not."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=5) as response:
            return json.load(response)["data"]
    except OSError:
        return None


@contextmanager
def prometheus(folder: Path, targets: dict[str, list[str]]) -> Iterator[str]:
    """A Prometheus that asks the targets of each job once a second and has the rules; yields its address."""
    (port,) = free_ports(1)
    jobs = [{"job_name": job, "static_configs": [{"targets": names}]} for job, names in targets.items()]
    second = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    document = {"global": second, "rule_files": [str(FOLDER / "alerts.yml")], "scrape_configs": jobs}
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(document))
    listen, data = f"127.0.0.1:{port}", folder / "tsdb"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(PROMETHEUS), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}",
                f"--web.listen-address={listen}",
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip
        try:
            yield f"http://{listen}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed: Debian package prometheus")
def test_every_panel_draws_something_of_a_real_network(tmp_path: Path) -> None:
    agents: list[LocalAgent] = []

    def prepare(cluster: Cluster) -> None:
        agents.append(LocalAgent(add_agent(cluster, cluster.nodes[0])))

    with running_cluster(tmp_path / "net", prepare=prepare) as (cluster, nodes):
        (agent,) = agents
        agent.start()
        try:
            agent.wait_ready()
            feeder = Feeder(cluster)
            jobs = {"ledgerd": [str(node.place.api) for node in nodes], "ledger-agent": [str(agent.place.listen)]}
            with prometheus(tmp_path, jobs) as url:

                def undrawn() -> list[str]:
                    feeder.send(nodes[0])
                    return [
                        f"{title}: {expr}"
                        for title, expr in panels()
                        if title not in WITHOUT_EVENTS
                        and not (ask(url, "query", query=as_asked(expr).replace("[1m]", "[5s]")) or {}).get("result")
                    ]

                missing = ["not asked yet"]
                for _ in range(30):
                    missing = undrawn()
                    if not missing:
                        break
                    time.sleep(0.5)
                assert missing == []
                groups = ask(url, "rules")["groups"]
                judged = [rule for group in groups for rule in group["rules"]]
                assert [(rule["name"], rule["health"]) for rule in judged if rule["health"] != "ok"] == []
                assert len(judged) == len(rules())
        finally:
            agent.terminate()
            agent.wait_stopped()
