"""The documents of mapping files and of CUCM name what the code has, and their examples work."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest

from node.agent import adapter_options
from node.cli.agent import main
from telephony.adapters import mapping
from telephony.adapters.cucm import CucmCdrAdapter
from telephony.adapters.mapped import MappedAdapter
from telephony.adapters.registry import Adapters
from telephony.watching import parse_watch

ROOT = Path(__file__).parents[2]
MAPPING = (ROOT / "docs" / "mapping.md").read_text()
CUCM = (ROOT / "docs" / "cucm.md").read_text()
FILES = sorted((ROOT / "tests" / "telephony" / "fixtures" / "cucm").iterdir())


def documented(document: str) -> set[str]:
    """Return every name in the first column of the document's tables."""
    first = [line.split("|")[1] for line in document.splitlines() if line.startswith("|")]
    return {name for cell in first for name in re.findall(r"`([A-Za-z0-9_]+)`", cell)}


def blocks(document: str, language: str) -> list[str]:
    """Return the fenced blocks of one language, as far left as they go."""
    found = re.findall(r"^( *)```([\w-]*)\n(.*?)^ *```$", document, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, name, text in found if name == language]


@pytest.mark.parametrize(
    "names",
    [
        mapping._TOP_KEYS[:-3],
        mapping._PLACE_KEYS,
        mapping.FIELDS,
        mapping.MEASURES,
        ("observer", "method", "band", "kind"),
        mapping.preset_names(),
    ],
)
def test_every_key_of_a_mapping_is_documented(names):
    assert set(names) - documented(MAPPING) == set()


@pytest.mark.parametrize(
    "words", [mapping.CLOCKS, mapping.SPAN_UNITS, mapping.DELAY_UNITS, mapping.LOSS_UNITS, ["iso", "h:m:s"]]
)
def test_every_unit_is_documented(words):
    assert [word for word in words if f'`"{word}"`' not in MAPPING] == []


def test_every_choice_is_documented():
    names = [*mapping.METHODS, *(member.name.lower() for choices in mapping.CHOICES.values() for member in choices)]
    assert [name for name in names if f"`{name}`" not in MAPPING] == []


def test_the_example_of_five_minutes():
    """The mapping of the document reads the sample of the document."""
    sample = blocks(MAPPING, "")[0].encode()
    adapter = MappedAdapter(mapping.parse_mapping("our-pbx", blocks(MAPPING, "toml")[0], "docs/mapping.md"))
    answered, busy = (adapter.parse(row) for row in adapter.split(sample, "text/csv")[0])
    assert (answered.end_ms - answered.setup_ms, answered.sip_code, answered.caller) == (330_000, 200, "+442071838750")
    assert answered.answer_ms == answered.setup_ms
    assert answered.qualities[0].average.mos_milli == 4200
    assert (busy.answer_ms, busy.sip_code, busy.qualities) == (0, 486, ())


def sources_of(text: str) -> dict[str, Mapping[str, object]]:
    """Return the adapters' options in a configuration."""
    return adapter_options(tomllib.loads(text).get("sources", {}))


def test_configurations_in_the_documents_are_right(tmp_path):
    """Each block with sources makes adapters, each watch is for one of them; a file it names is put in its place."""
    (tmp_path / "our-pbx.toml").write_text(blocks(MAPPING, "toml")[0])
    sources, watches = 0, []
    for block in (*blocks(MAPPING, "toml"), *blocks(CUCM, "toml")):
        text = block.replace("/etc/ledger-agent", str(tmp_path))
        sources += bool(sources_of(text) and Adapters(sources_of(text)))
        watches += [parse_watch(name, table) for name, table in tomllib.loads(text).get("watch", {}).items()]
    assert (sources, [watch.source for watch in watches]) == (3, ["cucm-cdr", "cucm-cmr"])
    assert [sum(fnmatch(file.name, watch.pattern) for file in FILES) for watch in watches] == [1, 1]


def commands(document: str) -> list[list[str]]:
    """Return the shell commands in a document's blocks, word by word."""
    lines = [line for block in blocks(document, "") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(("ledger-agent ", "curl "))]


def test_the_commands_of_map_check_show_what_the_document_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("our-pbx.toml").write_text(blocks(MAPPING, "toml")[0])
    Path("sample.csv").write_text(blocks(MAPPING, "")[0])
    (command,) = [words for words in commands(MAPPING) if words[0] == "ledger-agent"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    shown = capsys.readouterr().out
    assert [block for block in blocks(MAPPING, "") if block.startswith("line 2: call")] == [shown]


@pytest.mark.parametrize("document", [MAPPING, CUCM], ids=["mapping.md", "cucm.md"])
def test_the_posts_in_the_documents_are_taken(tmp_path, document):
    """What curl sends, by its own words: a path that there is, a type that it takes, rows that it reads."""
    (tmp_path / "our-pbx.toml").write_text(blocks(MAPPING, "toml")[0])
    text = "".join(block for block in blocks(document, "toml") if block.startswith("[sources"))
    adapters = Adapters(sources_of(text.replace("/etc/ledger-agent", str(tmp_path)))).by_name
    files = {"@sample.csv": blocks(MAPPING, "")[0].encode(), "@cdr_Cluster1_01_202611211506_17": FILES[0].read_bytes()}
    posts = [words for words in commands(document) if words[0] == "curl"]
    assert posts
    for words in posts:
        headers = dict(words[at + 1].split(": ") for at, word in enumerate(words) if word == "-H")
        assert headers["Authorization"] == "Bearer TOKEN"
        adapter = adapters[words[-1].removeprefix("http://127.0.0.1:8090/v1/ingest/")]
        assert headers["Content-Type"] in adapter.media_types
        documents, _ = adapter.split(files[words[words.index("--data-binary") + 1]], headers["Content-Type"])
        for each in documents:
            adapter.check(each)
            adapter.parse(each)


def test_every_column_of_cucm_that_is_read_is_documented():
    code = (ROOT / "telephony" / "adapters" / "cucm.py").read_text()
    code = code.replace("{side}MediaCap", "origMediaCap") + code.replace("{side}MediaCap", "destMediaCap")
    columns = {name.strip('"') for file in FILES for name in file.read_text().splitlines()[0].split(",")}
    read = {name for name in columns if re.search(rf'"{name}"', code, flags=re.IGNORECASE)}
    assert len(read) > 25
    assert {name.lower() for name in read} - {name.lower() for name in documented(CUCM)} == set()


def test_the_cucm_document_says_what_an_identity_is():
    call = CucmCdrAdapter("vienna").parse(CucmCdrAdapter().split(FILES[0].read_bytes(), "text/csv")[0][1])
    assert call.call_id in CUCM
