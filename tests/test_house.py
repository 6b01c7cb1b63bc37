"""The rules of the house that no other tool holds: sizes, integers only, documents that tell the truth."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ledger", "consensus", "p2p", "telephony", "audit", "node")
INTEGERS_ONLY = ("ledger/rules", "ledger/models", "consensus")

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

# Absolute paths into somebody's machine. Each pattern is written so that it does not match itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|work|Users)/[\w.]")
REGISTRY_HOST = re.compile(r"py[p]i\.org|pythonhoste[d]\.org")

MARKDOWN_LINK = re.compile(r"\[[^\]\n]*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
SCRIPT_MENTION = re.compile(r"(?<![\w./])(?:\./)?(scripts/[a-z_][\w-]*(?:\.\w+)?|\.ci/\w+)")
CHANGE_KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def tracked_files() -> list[Path]:
    """Return what git has or would add; without git, what an unpacked archive holds."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        hidden = {".venv", "build", "dist"}
        found = [path for path in ROOT.rglob("*") if not hidden & set(path.relative_to(ROOT).parts)]
    else:
        found = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    return sorted(path for path in found if path.is_file())


def package_modules() -> list[Path]:
    """Return the modules that ship."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def markdown_files() -> list[Path]:
    """Return every document that a reader may open."""
    return [path for path in tracked_files() if path.suffix == ".md"]


def named(path: Path) -> str:
    """Return ``path`` as seen from the project's folder."""
    return path.relative_to(ROOT).as_posix()


def prose_of(document: str) -> str:
    """Return ``document`` without its fenced code blocks, where brackets are not links."""
    return re.sub(r"^(```|~~~).*?^\1", "", document, flags=re.MULTILINE | re.DOTALL)


def long_functions(source: str) -> list[tuple[str, int]]:
    """Return the functions longer than a screen, with their lines from ``def`` to the end."""
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    return [(name, lines) for name, lines in sizes if lines > FUNCTION_LINES_MAX]


def floats(source: str) -> list[tuple[int, str]]:
    """Return where ``source`` makes a float: constants, true division, conversions."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            found.append((node.lineno, repr(node.value)))
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            found.append((node.lineno, "/"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
            found.append((node.lineno, "float()"))
    return sorted(found)


def test_the_rules_catch_what_they_forbid() -> None:
    body = "    pass\n" * FUNCTION_LINES_MAX
    assert long_functions(f"def f():\n{body}") == [("f", FUNCTION_LINES_MAX + 1)]
    assert long_functions(f"async def f():\n{body}") == [("f", FUNCTION_LINES_MAX + 1)]
    assert long_functions(f"def f():\n{body[9:]}") == []
    assert floats("a = 1\nb = a / 2\nb /= 2\nc = 1e3\nd = float(a)\ne = a // 2") == [
        (2, "/"),
        (3, "/"),
        (4, "1000.0"),
        (5, "float()"),
    ]
    for place in ("home", "root", "work"):
        assert MACHINE_PATH.search(f"see /{place}/x")
    assert not MACHINE_PATH.search("at/home/x, ./root/x, https://host/root/x")
    assert MARKDOWN_LINK.findall('[a](b.md) and [c](<d e> "t") and [f](g.md#h "t")') == ["b.md", "g.md#h"]
    assert SCRIPT_MENTION.findall("`./scripts/test`, scripts/sip-lab. a/scripts/x .ci/run") == [
        "scripts/test",
        "scripts/sip-lab",
        ".ci/run",
    ]


def test_functions_fit_a_screen() -> None:
    found = {named(path): long_functions(path.read_text()) for path in package_modules()}
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_files_stay_readable() -> None:
    sizes = {named(path): len(path.read_text().splitlines()) for path in package_modules()}
    assert {name: lines for name, lines in sizes.items() if lines > FILE_LINES_MAX} == {}


def test_rules_models_and_consensus_use_integers_only() -> None:
    modules = [path for path in package_modules() if named(path).startswith(INTEGERS_ONLY)]
    assert modules
    found = {named(path): floats(path.read_text()) for path in modules}
    assert {name: places for name, places in found.items() if places} == {}


def test_the_independent_reading_imports_nothing_of_the_project() -> None:
    """``audit/reference*.py`` is a second implementation: shared code would share its mistakes."""
    imported = set()
    for path in (ROOT / "audit").glob("reference*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add("audit" if node.level else node.module or "")
    others = {name for name in imported if not name.startswith("audit.reference")}
    assert {name.split(".")[0] for name in others} & set(PACKAGES) == set()


def test_every_dependency_has_its_reason_above_it() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lines = [line.strip() for line in text.splitlines()]
    without = [name for name in wanted if not lines[lines.index(f'"{name}",') - 1].startswith("# ")]
    assert without == []


def test_every_package_is_listed_and_typed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(patterns) == sorted(f"{package}*" for package in PACKAGES)
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []


def test_the_locks_agree_and_name_no_index() -> None:
    runtime, dev = ((ROOT / name).read_text() for name in ("requirements.lock", "requirements-dev.lock"))
    assert set(runtime.splitlines()) - set(dev.splitlines()) == set()
    for lock in (runtime, dev):
        assert "://" not in lock
        assert re.findall(r"^-.*", lock, flags=re.MULTILINE) == []
        requirements = re.findall(
            r"^(\w[^\s]*==[^\s]+).*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+$", lock, re.MULTILINE
        )
        assert len(requirements) == len(re.findall(r"^\w", lock, flags=re.MULTILINE))


@pytest.mark.parametrize("source", ["requirements.lock", "requirements-dev.lock"])
def test_the_locks_hold_every_dependency(source: str) -> None:
    """A dependency added to pyproject.toml without ./scripts/lock would be missing on a fresh machine."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*tables["project"]["dependencies"], *tables["build-system"]["requires"]]
    if "dev" in source:
        wanted += tables["project"]["optional-dependencies"]["dev"]
    locked = set(re.findall(r"^([\w-]+)==", (ROOT / source).read_text(), flags=re.MULTILINE))
    assert {re.split(r"[^\w-]", name)[0] for name in wanted} - locked == set()


def test_no_file_names_somebodys_machine() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{named(path)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
        found += [f"{named(path)}: {match.group()}" for match in REGISTRY_HOST.finditer(text)]
    assert found == []


def test_links_lead_somewhere() -> None:
    broken = []
    for path in markdown_files():
        for target in MARKDOWN_LINK.findall(prose_of(path.read_text())):
            name = target.partition("#")[0]
            if name and "://" not in name and not name.startswith("mailto:") and not (path.parent / name).exists():
                broken.append(f"{named(path)}: {target}")
    assert broken == []


def test_scripts_that_documents_name_exist_and_run() -> None:
    mentions = {
        (named(path), script) for path in markdown_files() for script in SCRIPT_MENTION.findall(path.read_text())
    }
    assert mentions
    assert [mention for mention in sorted(mentions) if not (ROOT / mention[1]).exists()] == []


def test_scripts_are_executable() -> None:
    scripts = [
        path
        for path in tracked_files()
        if named(path).startswith(("scripts/", ".ci/")) and path.read_bytes().startswith(b"#!")
    ]
    assert scripts
    assert [named(path) for path in scripts if not path.stat().st_mode & 0o111] == []


def test_changelog_keeps_its_form() -> None:
    """Keep a Changelog 1.1: Unreleased first, then versions with dates, known kinds of change."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    wrong = [title for title in versions[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", title)]
    assert wrong == []
    assert set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE)) <= set(CHANGE_KINDS)


@pytest.mark.xdist_group("cluster")
def test_groups_of_tests_are_seen(request: pytest.FixtureRequest) -> None:
    """Whole clusters of processes do not run side by side: where tests are spread, their group is in the id."""
    is_spread = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@cluster") == is_spread
