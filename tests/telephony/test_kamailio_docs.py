"""The configurations, their document and the adapters name the same fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from telephony.adapters.registry import Adapters

ROOT = Path(__file__).parents[2]
CONFIG, ACC, REPORTS = (
    (ROOT / "docs" / "kamailio" / f"{name}.cfg").read_text() for name in ("kamailio", "kamailio-acc", "vq-reports")
)
DOCUMENT = (ROOT / "docs" / "kamailio.md").read_text()
VOICE_METRICS = (ROOT / "docs" / "voice-metrics.md").read_text()
ACC_EXTRA_MAX = 64
"""Extra fields that Kamailio's acc module takes."""


def cdr_fields() -> list[str]:
    """Return the names of the extra fields in the configuration."""
    found = re.search(r'"cdr_extra", "([^"]+)"', CONFIG)
    assert found
    return [pair.partition("=")[0] for pair in found[1].split(";")]


def documented() -> set[str]:
    """Return every name in the first column of the document's tables."""
    first = [line.split("|")[1] for line in DOCUMENT.splitlines() if line.startswith("|")]
    return {name for cell in first for name in re.findall(r"`([a-z0-9_]+)`", cell)}


def test_every_field_is_documented():
    """A field added to the configuration needs its row."""
    assert set(cdr_fields()) - documented() == set()


def test_fields_fit_into_acc():
    fields = cdr_fields()
    assert len(fields) == len(set(fields))
    assert len(fields) <= ACC_EXTRA_MAX


def test_every_variable_of_rtpengine_is_set():
    """All that its module offers: worst, best and mean, over both legs, of leg A and of leg B."""
    expected = set()
    for leg in ("", "_A", "_B"):
        for reading, last in (("min", "at"), ("max", "at"), ("average", "samples")):
            figures = ("", "_packetloss", "_jitter", "_roundtrip", "_roundtrip_leg", f"_{last}")
            expected |= {f"mos_{reading}{figure}{leg}_pv" for figure in figures}
    assert len(expected) == 54
    assert set(re.findall(r'"(mos_\w+_pv)", "\$(?:dlg_var|avp)\(\w+\)"', CONFIG)) == expected | {
        "mos_A_label_pv",
        "mos_B_label_pv",
    }


def test_figures_without_a_field_share_one():
    """Each that rtpengine puts into an AVP is in mos_more by its name, and is documented."""
    shared = set(re.findall(r'_pv", "\$avp\((\w+)\)"', CONFIG)) - {"mos_A_label", "mos_B_label"}
    (text,) = re.findall(r"\$dlg_var\(mos_more\) = (.*?);\n", CONFIG, re.DOTALL)
    assert set(re.findall(r'"[;]?(\w+)=" \+ \$avp\((\w+)\)', text)) == {(name, name) for name in shared}
    assert len(shared) == 12
    assert [name for name in shared if f"`{name}`" not in DOCUMENT] == []
    assert set(cdr_fields()) & shared == set()


def test_every_field_is_set_somewhere():
    """A dialog variable that nothing sets would be null for ever."""
    set_by_script = set(re.findall(r"\$dlg_var\((\w+)\) =", CONFIG))
    set_by_module = set(re.findall(r'_pv", "\$dlg_var\((\w+)\)"', CONFIG))
    set_by_function = set(re.findall(r', "\$dlg_var\((\w+)\)"\);', CONFIG))
    assert set(cdr_fields()) - set_by_script - set_by_module - set_by_function == set()


@pytest.mark.parametrize("config", [CONFIG, ACC, REPORTS])
def test_every_local_setting_is_documented(config):
    """What kamailio-local.cfg may define is in the document."""
    settings = set(re.findall(r"^#!ifndef (\w+)", config, re.MULTILINE))
    assert settings == {name for name in settings if name in DOCUMENT + VOICE_METRICS}


def test_accounting_by_transaction_is_documented():
    """Each field that kamailio-acc.cfg adds has its row; so have those that acc writes by itself."""
    found = re.search(r'"acc_extra", "([^"]+)"', ACC)
    assert found
    section = DOCUMENT.split("## Accounting by transaction")[1].split("\n## ")[0]
    first = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    written = {"time", "method", "from_tag", "to_tag", "callid", "sip_code", "sip_reason"}
    assert set(re.findall(r"`(\w+)`", first)) == written | {pair.partition("=")[0] for pair in found[1].split(";")}


def test_delivery_is_the_same_in_both_configurations():
    """One text, in two files that each can be tried alone."""
    assert ACC.partition("# ----- [LEDGER] delivery")[2] == CONFIG.partition("# ----- [LEDGER] delivery")[2] != ""


@pytest.mark.parametrize("config", [CONFIG, ACC, REPORTS])
def test_paths_are_those_of_adapters(config):
    paths = re.findall(r"/v1/ingest/([a-z-]+)", config)
    assert paths
    assert set(paths) <= set(Adapters().by_name)


def delivery(code: int, config: str = CONFIG, name: str = "CDR_POST") -> str:
    """Return what a configuration does with an answer: ``again``, ``singly`` or ``done``; ``code`` as it has it."""
    route = config.partition(f"route[{name}] {{")[2].partition("\n}\n")[0]
    condition = re.findall(r"if \((\$var\(code\).*)\) \{", route)[0]
    expression = condition.replace("$var(code)", str(code)).replace("||", "or").replace("&&", "and")
    assert re.fullmatch(r"[0-9 ()<>=!andor]+", expression)
    if eval(expression):
        return "again"
    return "singly" if code > 299 else "done"


def test_only_what_is_about_the_cdr_is_a_dead_letter():
    """A wrong token or address, which a person mends, must not cost a CDR; nor must libcurl's small numbers."""
    codes = [*range(100), *range(100, 600)]
    found = {way: [code for code in codes if delivery(code) == way] for way in ("singly", "done")}
    assert found == {"singly": [400, 409, 413, 422], "done": list(range(200, 300))}
    assert [delivery(code) for code in codes] == [delivery(code, REPORTS, "REPORT_POST") for code in codes]


def test_the_queue_is_drained_in_batches():
    """Up to 50 CDRs are one post, a JSON array; the loop over the queue has no end of its own."""
    worker = CONFIG.split("route[CDR_WORKER] {")[1].split("\n}\n")[0]
    assert "$var(count) < 50" in worker
    assert '$var(body) = $var(list) + "]";' in worker
    assert worker.count("mq_fetch") == 1
    assert re.search(r"^max_while_loops\s*=\s*0$", CONFIG, re.MULTILINE)
