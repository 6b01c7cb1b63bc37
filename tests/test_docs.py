"""The documents name what the code has: structs and their fields, tags, errors, spaces, frames."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from consensus import rows, setchange, votes
from consensus.election import founding_state
from ledger import block, cdr, commitment, entries, errors, genesis, governance, payloads, transaction, transition
from ledger.codec import Wire
from ledger.crypto import TAGS
from ledger.state import EMPTY_STATE, state_changes
from ledger.store import FORMAT_VERSION, Space
from p2p import messages
from tests.ledger import ledger_samples

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = (block, cdr, commitment, entries, genesis, payloads, setchange, transaction, votes, rows, messages)
STRUCTS: list[type[Wire]] = [
    kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Wire) and kind is not Wire and kind.__module__ == module.__name__
]
ENUMERATIONS = (
    cdr.Service,
    cdr.Leg,
    cdr.ReleasedBy,
    cdr.QualityMethod,
    cdr.Band,
    cdr.MosKind,
    cdr.Observer,
    cdr.EnergyMethod,
    cdr.Boundary,
    cdr.DeviceClass,
    transaction.Kind,
    entries.KeyStanding,
    entries.ProposalAction,
    payloads.KeyOperation,
)


def error_classes(kind: type[errors.LedgerError] = errors.LedgerError) -> list[type[errors.LedgerError]]:
    """Return the tree of errors as a list, the ones defined by other modules included."""
    return [kind, *(found for child in kind.__subclasses__() for found in error_classes(child))]


def test_there_are_structs_to_look_for() -> None:
    assert {block.Header, cdr.CallRecord, genesis.Genesis, messages.Hello, votes.VoteGuard} <= set(STRUCTS)


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_struct_and_each_of_its_fields_is_in_the_protocol(kind: type[Wire]) -> None:
    assert re.search(rf"\b{kind.__name__}\b", PROTOCOL)
    assert [name for name in kind.__struct_fields__ if f"`{name}`" not in PROTOCOL] == []


@pytest.mark.parametrize("kind", ENUMERATIONS, ids=lambda kind: kind.__name__)
def test_every_value_of_an_enumeration_is_in_the_protocol(kind: type[cdr.Service]) -> None:
    assert [f"`{m.name.lower()}` {int(m)}" for m in kind if f"`{m.name.lower()}` {int(m)}" not in PROTOCOL] == []


def test_every_tag_is_in_the_table_of_tags() -> None:
    table = PROTOCOL.partition("## Hashes, keys, signatures")[2].partition("**Keys**")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == list(TAGS)


def test_every_error_has_its_line() -> None:
    table = PROTOCOL.partition("Errors have a stable name:")[2]
    documented = re.findall(r"^\| `([a-z-]+)` \|", table, flags=re.MULTILINE)
    ours = {kind.code for kind in error_classes() if kind.__module__ == errors.__name__}
    assert sorted(documented) == sorted(ours)


def test_every_space_of_the_store_has_its_line() -> None:
    table = PROTOCOL.partition("## Storage")[2]
    assert f"version {FORMAT_VERSION}." in table
    assert [s.name for s in Space if f"| `{s.name}` {s.value.hex()} |" not in table] == []


def test_every_message_has_its_type_byte() -> None:
    listed = dict(re.findall(r"^\| (\d+) \| (\w+) \|", PROTOCOL, flags=re.MULTILINE))
    assert listed == {str(number): kind.__name__ for kind, number in messages.TYPE_BYTES.items()}


def test_parameters_and_their_bounds() -> None:
    table = PROTOCOL.partition("\nParameters:\n")[2].partition("\nGenesisMember:\n")[0]
    for field in msgspec.inspect.type_info(genesis.Parameters).fields:  # type: ignore[attr-defined]
        if isinstance(field.type, msgspec.inspect.IntType):
            assert f"| `{field.name}` | {field.type.ge:,} to {field.type.le:,} |" in table


def test_bounds_that_are_written_as_numbers() -> None:
    for number in (
        cdr.RECORD_BYTES_MAX,
        transaction.TRANSACTION_BYTES_MAX,
        transaction.LIFETIME_MS_MAX,
        commitment.PRIVATE_TEXT_MAX,
        cdr.PUE_MILLI_MAX,
        votes.TARGET_AHEAD_MAX,
        governance.PROPOSAL_LIFETIME_MS_MAX,
        governance.KEYS_EVER_MAX,
    ):
        assert f"{number:,}" in PROTOCOL


def test_bounds_of_what_governs() -> None:
    assert f"at most {transition.PAYLOADS_PER_BLOCK_MAX} transactions of these kinds together" in PROTOCOL
    assert f"and {transition.PAYLOADS_PER_MEMBER_MAX} of one member" in PROTOCOL
    assert f"fewer than {governance.PROPOSALS_PER_MEMBER_MAX}\n  proposals open" in PROTOCOL


def test_every_entry_of_the_state_has_its_line() -> None:
    table = PROTOCOL.partition("\n## State\n")[2].partition("\n## ")[0]
    kinds = set(re.findall(r'^\| `\["(\w+)"', table, flags=re.MULTILINE))
    state = founding_state(ledger_samples.GENESIS)
    assert kinds == {str(key[0]) for key in state_changes(EMPTY_STATE, state)} | {"proposal", "struck"}


def test_documents_that_are_referred_to_exist() -> None:
    """Those of other parts of the project may come later than this one; a wrong name never passes."""
    named = set(re.findall(r"`(docs/[\w/.-]+\.md)`", PROTOCOL + ARCHITECTURE))
    known = {f"docs/{name}.md" for name in ("protocol", "consensus", "rules", "architecture", "operations", "kamailio")}
    assert {name for name in named if not (ROOT / name).exists()} - known == set()


def modules_named_in(package: str) -> list[str]:
    """Return the modules that the architecture document names for a package, in its order."""
    section = re.search(rf"^### `{package}`$(.*?)^##", ARCHITECTURE, flags=re.MULTILINE | re.DOTALL)
    assert section is not None
    return re.findall(r"`(\w+)(?:\.py|/)`", section[1])


@pytest.mark.parametrize("package", ["ledger", "consensus", "p2p", "telephony", "audit"])
def test_the_architecture_names_every_module(package: str) -> None:
    found = {
        path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(modules_named_in(package)) == sorted(found - {"__init__"})


def test_the_ledgers_modules_are_named_from_the_bottom_up() -> None:
    named = modules_named_in("ledger")
    upwards = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in (ROOT / "ledger").rglob("*.py")
        for module in re.findall(r"^\s*from ledger\.(\w+)", path.read_text(), flags=re.MULTILINE)
        if path.name != "__init__.py"
        and named.index(module) > named.index(path.relative_to(ROOT / "ledger").parts[0].removesuffix(".py"))
    ]
    assert upwards == []


def test_sections_that_modules_name_as_their_source_exist() -> None:
    missing = []
    for name in ("protocol", "architecture"):
        headings = set(re.findall(r"^#+ (.+)$", (ROOT / "docs" / f"{name}.md").read_text(), flags=re.MULTILINE))
        for package in ("ledger", "consensus", "p2p", "telephony", "audit", "node"):
            for path in (ROOT / package).rglob("*.py"):
                named = set(re.findall(rf'docs/{name}\.md, "([^"]+)"', path.read_text()))
                missing += [f"{path.relative_to(ROOT)}: {section}" for section in sorted(named - headings)]
    assert missing == []


def bounds_of(kind: type[Wire]) -> dict[str, tuple[int | None, int | None]]:
    """Return the bounds of the integer fields of a struct."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return {f.name: (f.type.ge, f.type.le) for f in info.fields if isinstance(f.type, msgspec.inspect.IntType)}


@pytest.mark.parametrize("kind", [cdr.CallRecord, cdr.Energy, cdr.Reading], ids=lambda kind: kind.__name__)
def test_the_api_document_has_the_bounds_of_a_record(kind: type[Wire]) -> None:
    schema = json.loads((ROOT / "node" / "api" / "openapi.json").read_text())["components"]["schemas"][kind.__name__]
    found = {name: schema["properties"][name] for name in bounds_of(kind)}
    assert {name: (s.get("minimum"), s.get("maximum")) for name, s in found.items()} == bounds_of(kind)
