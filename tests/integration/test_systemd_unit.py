"""The unit file that ships: systemd takes it without a word, and it sets options that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.agent import ENVIRONMENT_PREFIX, OPTIONS

UNIT = Path(__file__).parent.parent.parent / "docs" / "systemd" / "ledger-agent.service"
EXPOSURE_MAX_TENTHS = 20
"""What `systemd-analyze security` calls OK, by a wide margin: 0 is safe, 100 is a plain service of root."""


def systemd_analyze(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on the unit, with a program in it that there is here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/ledger-agent", sys.executable))
    command = ["systemd-analyze", *arguments, str(copy)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    done = systemd_analyze(tmp_path, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_hardened(tmp_path: Path) -> None:
    done = systemd_analyze(tmp_path, "security", "--offline=true", "--no-pager")
    found = re.search(r"exposure level for \S+: (\d+)\.(\d)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd judges no files: {done.stderr}")
    assert int(found[1] + found[2]) <= EXPOSURE_MAX_TENTHS


def test_its_options_exist_and_its_keys_are_credentials() -> None:
    text = UNIT.read_text()
    variables = dict(re.findall(rf"^Environment={ENVIRONMENT_PREFIX}(\w+)=(\S+)$", text, flags=re.MULTILINE))
    assert {name.lower() for name in variables} <= set(OPTIONS)
    credentials = set(re.findall(r"^LoadCredential=([\w-]+):", text, flags=re.MULTILINE))
    assert {value.removeprefix("%d/") for value in variables.values() if value.startswith("%d/")} == credentials
    assert {"SUBMIT_KEY", "MEMBER_SECRET", "TOKEN_FILE", "INGEST_TOKENS"} <= set(variables)
