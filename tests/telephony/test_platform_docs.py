"""The configurations in the documents of FreeSWITCH, Asterisk and OpenSIPS make what their adapters read."""

from __future__ import annotations

import base64
import configparser
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import pytest

from telephony.adapters import asterisk, opensips
from telephony.adapters.asterisk import make_asterisk, make_asterisk_json
from telephony.adapters.fields import Values
from telephony.adapters.freeswitch import make_freeswitch, make_freeswitch_xml
from telephony.adapters.opensips import make_opensips
from telephony.adapters.registry import Adapters
from telephony.adapters.rows import read_row, split_rows
from telephony.source import SourceCall
from telephony.watching import parse_watch

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
FREESWITCH, ASTERISK, OPENSIPS = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("freeswitch", "asterisk", "opensips")
)
DOCUMENTS = {"freeswitch": FREESWITCH, "asterisk": ASTERISK, "opensips": OPENSIPS}
INGEST = "/v1/ingest/"

JSON_CDR_PARAMETERS = frozenset(
    [
        "auth-scheme",
        "cred",
        "delay",
        "disable-100-continue",
        "enable-cacert-check",
        "enable-ssl-verifyhost",
        "encode",
        "encode-values",
        "err-log-dir",
        "log-b-leg",
        "log-dir",
        "log-errors-to-disk",
        "log-http-and-disk",
        "prefix-a-leg",
        "queue-capacity",
        "retries",
        "rotate",
        "ssl-cacert-file",
        "ssl-cert-path",
        "ssl-key-password",
        "ssl-key-path",
        "ssl-version",
        "timeout",
        "url",
    ]
)
"""What mod_json_cdr.c of FreeSWITCH 1.10 looks for."""
XML_CDR_PARAMETERS = JSON_CDR_PARAMETERS - {"encode-values", "log-errors-to-disk", "queue-capacity"} | {"cookie-file"}
"""What mod_xml_cdr.c does."""


def blocks(document: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document, flags=re.MULTILINE | re.DOTALL)


def documented(document: str) -> set[str]:
    """Return every name in the first column of the document's tables."""
    first = [line.split("|")[1] for line in document.splitlines() if line.startswith("|")]
    return {name for cell in first for name in re.findall(r"`([A-Za-z0-9_ -]+)`", cell)}


def tables(document: str) -> Iterator[dict[str, Any]]:
    """Return the agent's configurations in a document."""
    return (tomllib.loads(block) for block in blocks(document, "toml"))


@pytest.fixture
def looked_for(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the set that gets the name of every field an adapter looks for."""
    found: set[str] = set()
    plain = Values.plain

    def noting(values: Values, name: str) -> str:
        found.add(values.where(name))
        return plain(values, name)

    monkeypatch.setattr(Values, "plain", noting)
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_agents_configuration_is_right(name):
    """Each table of sources makes adapters; each watch is of a source there is."""
    found = list(tables(DOCUMENTS[name]))
    assert found
    for table in found:
        adapters = Adapters(table.get("sources", {}))
        for key, watch in table.get("watch", {}).items():
            assert parse_watch(key, watch).source in adapters.by_name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_url_is_one_of_the_agents(name):
    urls = re.findall(r"http://127\.0\.0\.1:8090(/[a-z0-9/-]*)", DOCUMENTS[name])
    paths = {f"{INGEST}{adapter}" for adapter in Adapters().by_name} | {"/metrics", "/healthz"}
    assert urls or name == "asterisk"
    assert set(urls) - paths == set()


# -- FreeSWITCH --------------------------------------------------------------------------------------------------------


def parameters(block: str) -> tuple[str, dict[str, str]]:
    """Return the name of a FreeSWITCH configuration, and its parameters."""
    root = ET.fromstring(block)
    found = [(param.attrib["name"], param.attrib["value"]) for param in root.iterfind("settings/param")]
    assert len(dict(found)) == len(found)
    return root.attrib["name"], dict(found)


CONFIGURATIONS = dict(parameters(block) for block in blocks(FREESWITCH, "xml"))


@pytest.mark.parametrize(
    ("name", "known"), [("json_cdr.conf", JSON_CDR_PARAMETERS), ("xml_cdr.conf", XML_CDR_PARAMETERS)]
)
def test_freeswitch_knows_every_parameter(name, known):
    assert set(CONFIGURATIONS[name]) - known == set()


def posted(encode: str, document: bytes, plain_type: str) -> tuple[str, bytes]:
    """Return Content-Type and body as FreeSWITCH makes them with its parameter ``encode``."""
    if encode == "true":
        return "application/x-www-form-urlencoded", b"cdr=" + quote(document, safe="").encode()
    if encode == "base64":
        return "application/x-www-form-base64-encoded", b"cdr=" + base64.b64encode(document)
    return plain_type, document


def test_freeswitch_json_as_configured():
    settings = CONFIGURATIONS["json_cdr.conf"]
    adapter = make_freeswitch({})
    assert urlsplit(settings["url"]).path == INGEST + adapter.name
    names = {"true": "a-leg", "false": "a-leg-plain-values"}
    document = (FIXTURES / "freeswitch" / f"{names[settings['encode-values']]}.cdr.json").read_bytes().strip()
    media_type, body = posted(settings["encode"], document, "application/json")
    assert media_type in adapter.media_types
    (found,), _ = adapter.split(body, media_type)
    assert adapter.parse(found).call_id == "a84b4c76e66710@192.0.2.17"


def test_freeswitch_xml_as_configured():
    settings = CONFIGURATIONS["xml_cdr.conf"]
    adapter = make_freeswitch_xml({})
    assert urlsplit(settings["url"]).path == INGEST + adapter.name
    media_type, body = posted(settings["encode"], (FIXTURES / "freeswitch" / "a-leg.cdr.xml").read_bytes(), "text/xml")
    assert media_type in adapter.media_types
    (found,), _ = adapter.split(body, media_type)
    assert adapter.parse(found).call_id == "a84b4c76e66710@192.0.2.17"


def test_the_watched_folder_is_the_one_of_failed_posts():
    (watch,) = (table["watch"]["freeswitch-failed"] for table in tables(FREESWITCH) if "watch" in table)
    assert watch["directory"] == CONFIGURATIONS["json_cdr.conf"]["err-log-dir"]


def test_every_variable_of_freeswitch_is_documented(looked_for):
    for file in (FIXTURES / "freeswitch").iterdir():
        adapter = make_freeswitch({}) if file.suffix == ".json" else make_freeswitch_xml({})
        for document in adapter.split(file.read_bytes(), "")[0]:
            adapter.parse(document)
    names = {name.rpartition(".")[2] for name in looked_for if not name.lower().startswith(("callstats", "call-stats"))}
    assert len(names) > 30
    assert names - documented(FREESWITCH) == set()


# -- Asterisk ----------------------------------------------------------------------------------------------------------


def ini(text: str) -> configparser.ConfigParser:
    """Return a configuration of Asterisk's."""
    found = configparser.ConfigParser(interpolation=None, delimiters=("=>", "="))
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read_string(text)
    return found


CDR_CONF, CDR_CUSTOM, CDR_JSON = (ini(block) for block in blocks(ASTERISK, "ini"))
CUSTOM_OPTIONS = next(
    table["sources"]["asterisk"]
    for table in tables(ASTERISK)
    if "columns" in table.get("sources", {}).get("asterisk", {})
)


def test_master_csv_as_configured():
    """The switches in cdr.conf give the columns that the adapter takes their number for."""
    switches = {name for name, value in CDR_CONF["csv"].items() if value == "yes"}
    assert {"loguniqueid", "loguserfield", "newcdrcolumns", "usegmtime"} == switches
    expected = (*asterisk.COLUMNS, "uniqueid", "userfield", *asterisk.NEW_COLUMNS)
    rows = [read_row(row)[0] for row in split_rows((FIXTURES / "asterisk" / "Master.csv").read_bytes())]
    assert {asterisk.columns_of(row) for row in rows} == {expected}


def test_the_agents_columns_are_those_of_cdr_custom():
    written = re.findall(r"\$\{CDR\((\w+)(?:,f)?\)\}", CDR_CUSTOM["mappings"]["ledger.csv"])
    assert CUSTOM_OPTIONS["columns"] == written


def test_a_row_of_cdr_custom_as_configured():
    (call,) = calls(make_asterisk(CUSTOM_OPTIONS), (FIXTURES / "asterisk" / "cdr_custom.csv").read_bytes())
    assert (call.call_id, call.from_tag, call.to_tag) == ("a84b4c76e66710@192.0.2.17", "1928301774", "as4f2b6c11")
    assert [quality.average.mos_milli for quality in call.qualities] == [4300, 4355]


def test_what_the_dialplan_sets_is_written():
    (dialplan,) = re.findall(r"^\[from-trunk\]\n.*?^```$", ASTERISK, flags=re.MULTILINE | re.DOTALL)
    set_there = set(re.findall(r"Set\(CDR\((\w+)\)", dialplan))
    assert len(set_there) == 6
    assert set_there - set(CUSTOM_OPTIONS["columns"]) == set()
    fields = CDR_JSON["ledger.json"]["fields"].replace(" ", "").split(",")
    assert {name.removesuffix("(uservar)") for name in fields if name.endswith("(uservar)")} == set_there
    written = json.loads((FIXTURES / "asterisk" / "cdr.jsonl").read_bytes().splitlines()[0])
    assert set(written) - {name.partition("(")[0] for name in fields} == set()


def test_every_disposition_is_documented():
    rows = re.findall(r"^\| (`[A-Z ]+`(?:, `[A-Z ]+`)*) \| (\d+|none) \| (\d+|none) \|", ASTERISK, flags=re.MULTILINE)
    found = {
        name: tuple(0 if number == "none" else int(number) for number in numbers)
        for names, *numbers in rows
        for name in re.findall(r"`([A-Z ]+)`", names)
    }
    assert found == dict(asterisk._SIP_AND_CAUSE)


def test_every_column_of_asterisk_is_documented(looked_for):
    folder = FIXTURES / "asterisk"
    calls(make_asterisk({}), (folder / "Master.csv").read_bytes())
    calls(make_asterisk(CUSTOM_OPTIONS), (folder / "cdr_custom.csv").read_bytes())
    calls(make_asterisk_json({}), (folder / "cdr.jsonl").read_bytes())
    assert len(looked_for) > 15
    assert looked_for - documented(ASTERISK) == set()


def calls(adapter: Any, body: bytes) -> list[SourceCall]:
    return [adapter.parse(document) for document in adapter.split(body, "")[0]]


# -- OpenSIPS ----------------------------------------------------------------------------------------------------------

EVENTS = [json.loads(line) for line in (FIXTURES / "opensips" / "events.jsonl").read_bytes().splitlines()]
EXTRA = re.search(r'"extra_fields", "evi: ([^"]+)"', OPENSIPS)
assert EXTRA
EXTRA_FIELDS = EXTRA[1].split("; ")
CORE_FIELDS = ["method", "from_tag", "to_tag", "callid", "sip_code", "sip_reason", "time"]


def carried(event: str) -> dict[str, str]:
    """Return the members of the document that the script makes of an event, and the parameters they are from."""
    (route,) = re.findall(rf"^event_route\[{event}\] {{\n(.*?)^}}", OPENSIPS, flags=re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"\$json\(cdr/(\w+)\) = \$param\((\w+)\);", route))


def test_what_opensips_collects_is_posted():
    """An extra field is declared, set, and carried; nothing is carried that no event has."""
    set_there = re.findall(r"\$acc_extra\((\w+)\) =", OPENSIPS)
    assert set(set_there) == set(EXTRA_FIELDS) - {"codec"}
    assert set(carried("E_ACC_CDR")) == {*CORE_FIELDS, *EXTRA_FIELDS, "duration", "ms_duration", "setuptime", "created"}
    assert set(carried("E_ACC_MISSED_EVENT")) <= {*CORE_FIELDS, *EXTRA_FIELDS, "setuptime", "created"}
    for event in opensips.EVENTS:
        assert all(name == parameter for name, parameter in carried(event).items())


@pytest.mark.parametrize("index", range(len(EVENTS)))
def test_what_the_script_makes_of_an_event_is_the_call(index):
    """It says as much as OpenSIPS's own notification, whose null members are left out."""
    event, adapter = EVENTS[index], make_opensips({})
    document = {name: event["params"].get(source) for name, source in carried(event["method"]).items()}
    posted_ = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
    (made,), (whole,) = calls(adapter, posted_), calls(adapter, json.dumps(event).encode())
    made.raw = whole.raw = ""
    assert made == whole


def test_opensips_posts_what_the_adapter_takes():
    ((url, media_type),) = re.findall(r'rest_post\("([^"]+)", \$var\(body\), "([^"]+)"', OPENSIPS)
    adapter = make_opensips({})
    assert urlsplit(url).path == INGEST + adapter.name
    assert media_type in adapter.media_types


def test_what_could_not_be_posted_stays_json_in_the_file():
    """event_flatstore puts a blank where a value has its delimiter; JSON has no tab that is not escaped."""
    (delimiter,) = re.findall(r'"event_flatstore", "delimiter", "([^"]+)"', OPENSIPS)
    (folder,) = re.findall(r'"flatstore:(/[^"]+)/unsent', OPENSIPS)
    assert delimiter == r"\t"
    assert [table["watch"]["opensips-unsent"]["directory"] for table in tables(OPENSIPS) if "watch" in table] == [
        folder
    ]


def test_every_field_of_opensips_is_documented(looked_for):
    calls(make_opensips({}), b"\n".join(json.dumps(event).encode() for event in EVENTS))
    names = {name.removeprefix("params.") for name in looked_for}
    assert len(names) > 25
    assert names - documented(OPENSIPS) == set()
