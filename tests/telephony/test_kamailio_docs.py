"""The configuration, its document and the adapter name the same fields."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "docs" / "kamailio" / "kamailio.cfg").read_text()
DOCUMENT = (ROOT / "docs" / "kamailio.md").read_text()
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


def test_every_field_is_set_somewhere():
    """A dialog variable that nothing sets would be null for ever."""
    set_by_script = set(re.findall(r"\$dlg_var\((\w+)\) =", CONFIG))
    set_by_module = set(re.findall(r'_pv", "\$dlg_var\((\w+)\)"', CONFIG))
    set_by_function = set(re.findall(r', "\$dlg_var\((\w+)\)"\);', CONFIG))
    assert set(cdr_fields()) - set_by_script - set_by_module - set_by_function == set()


def test_every_local_setting_is_documented():
    """What kamailio-local.cfg may define is in the document."""
    settings = set(re.findall(r"^#!ifndef (\w+)", CONFIG, re.MULTILINE))
    assert settings == {name for name in settings if name in DOCUMENT}
