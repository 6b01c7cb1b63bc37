"""Metrics as Prometheus reads them, for tests of their names, tables, rules and panels."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

PROMTOOL = shutil.which("promtool")
"""Of the Debian package prometheus; None where it is not installed."""
LABELS_OF_EVERYTHING = frozenset({"instance", "job"})
"""What Prometheus itself adds."""
ABBREVIATED = re.compile(r"(^|_)(ns|us|ms|msec|secs?|min|hrs?|kb|mb|gb|kib|mib|gib|pct|percent|msgs?|req|temp)(_|$)")


@dataclass
class Family:
    """One metric: what it is called in rules and panels, and which labels its samples have."""

    name: str
    kind: str
    text: str
    labels: set[str] = field(default_factory=set)
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)


def families_of(scrape: str) -> dict[str, Family]:
    """Return the metrics of a scrape by the names that the documents use: a counter's with ``_total``."""
    found = {}
    for family in text_string_to_metric_families(scrape):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        samples = [(sample.labels, sample.value) for sample in family.samples if sample.name == name]
        found[name] = Family(name, family.type, family.documentation, labels, samples)
    return found


def faults_of(scrape: str) -> list[str]:
    """Return what in a scrape is not as Prometheus' conventions have it: the rules of ``promtool check metrics``."""
    faults = []
    for family in families_of(scrape).values():
        name = family.name
        if not family.text:
            faults.append(f"{name}: no help")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            faults.append(f"{name}: not in small letters with underscores")
        if ABBREVIATED.search(name):
            faults.append(f"{name}: an abbreviated unit, or one that is no base unit")
        if family.kind != "counter" and name.endswith("_total"):
            faults.append(f"{name}: only counters end so")
        if family.kind != "histogram" and name.endswith(("_count", "_sum", "_bucket")):
            faults.append(f"{name}: only parts of histograms end so")
        if re.search(r"_(gauge|counter|histogram|summary)(_|$)", name):
            faults.append(f"{name}: names its kind")
        if family.labels & {"instance", "job", "quantile"}:
            faults.append(f"{name}: a label that Prometheus gives")
        faults += [
            f"{name}: label {label} is not in small letters" for label in family.labels if label.lower() != label
        ]
    return faults


def check_with_promtool(scrape: str) -> str:
    """Return what ``promtool check metrics`` has to say of a scrape; nothing where all is well."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=scrape, capture_output=True, text=True, check=False, timeout=30
    )
    return (done.stdout + done.stderr).strip()
