"""``ledger-agent vault``: what a person at a stopped agent can look up, show to others, forget and hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from audit.receipt import verify_receipt
from ledger.cdr import record_key_of
from ledger.commitment import PrivateField, check_field, make_private_part, party_commitment
from ledger.errors import ConfigError, FieldError, InvalidProof, StoreLocked
from node.cli.agent import app
from node.cli.vault import months_in
from telephony.adapters.base import Kind
from telephony.dead_erasure import AS_PARTY, AS_TEXT, BY_ARRIVAL, BY_CALL, PERHAPS_NO_TEXT
from telephony.dead_letters import DeadLetters, Letter, dead_letter
from telephony.spool import Spool
from telephony.vault import Vault, VaultEntry
from tests.audit.receipt_world import PRIVATE, World, private_part

SECRET = bytes(range(32))
NOVEMBER_MS = 1_795_231_128_494
ANNA, BEN = "+442071838750", "sip:ben@host.test"
AUDIT = (Path(__file__).parent.parent.parent / "docs" / "audit.md").read_text()
DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "privacy.md").read_text()


def key(number: int) -> bytes:
    """Return a record key."""
    return number.to_bytes(16)


PARTS = {
    number: make_private_part(
        {"caller": caller, "callee": BEN, "call_id": f"call-{number}"}, [bytes([number, i]) * 16 for i in range(7)]
    )
    for number, caller in ((1, ANNA), (2, ANNA), (3, "+12025550123"))
}


class Commands:
    """Runs commands on one vault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "vault"
        self._secret = folder / "secret"
        self._secret.write_text(SECRET.hex() + "\n")
        with_records = Vault(self.folder, SECRET)
        with_records.put_many([VaultEntry(key(number), NOVEMBER_MS, b"c" * 32, part) for number, part in PARTS.items()])
        with_records.set_location(key(1), b"t" * 32, 1)
        with_records.close()

    def run(self, *arguments: str, stdin: str = "") -> Result:
        """Run one command."""
        place = ("--vault", str(self.folder), "--member-secret", str(self._secret))
        return CliRunner().invoke(app, ["vault", *arguments, *place], input=stdin)

    def said(self, *arguments: str, stdin: str = "") -> str:
        """Run one command that does what it is told; return what it printed."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exception is None
        return result.stdout

    def refused(self, *arguments: str) -> BaseException:
        """Run one that does not; return why."""
        result = self.run(*arguments)
        assert result.exception is not None
        return result.exception


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Return commands on a vault with three records."""
    return Commands(tmp_path)


def test_a_disclosed_field_convinces_a_counterparty_and_shows_nothing_else(commands: Commands, tmp_path: Path) -> None:
    said = commands.said("disclose", key(1).hex(), "--field", "caller")
    assert BEN not in said
    assert "call-1" not in said
    shown = json.loads(said)
    assert (shown["value"], shown["leaf_index"], shown["leaves"]) == (ANNA, 0, 7)
    assert shown["record"] == f"{'74' * 32}/1"
    commitment = party_commitment(PARTS[1])
    path = [bytes.fromhex(step) for step in shown["path"]]
    check_field(PrivateField("caller", bytes.fromhex(shown["salt"]), ANNA.encode()), path, commitment)
    (tmp_path / "shown.json").write_text(said)
    check = ["vault", "check", str(tmp_path / "shown.json"), "--commitment"]
    good = CliRunner().invoke(app, [*check, commitment.hex()])
    assert (good.exception, good.stdout) == (None, f"caller is what the record was made with: {ANNA}\n")
    assert isinstance(CliRunner().invoke(app, [*check, party_commitment(PARTS[2]).hex()]).exception, InvalidProof)
    assert isinstance(CliRunner().invoke(app, [*check, "nonsense"]).exception, ConfigError)
    changed = {**shown, "value": "+1", "value_hex": b"+1".hex()}
    wrongs = ("{}", "[]", "nonsense", '{"field": 1, "salt": 2}', said.replace(ANNA, "+1"), json.dumps(changed))
    for wrong in wrongs:
        (tmp_path / "shown.json").write_text(wrong)
        result = CliRunner().invoke(app, [*check, commitment.hex()])
        assert isinstance(result.exception, (ConfigError, InvalidProof))
    assert isinstance(commands.refused("disclose", key(1).hex(), "--field", "name"), FieldError)


def test_a_value_that_is_no_text_is_disclosed_as_it_is(commands: Commands, tmp_path: Path) -> None:
    part = make_private_part({"caller": "J\udcf6rg"}, [bytes([i]) * 32 for i in range(7)])
    vault = Vault(commands.folder, SECRET)
    vault.put_many([VaultEntry(key(4), NOVEMBER_MS, b"c" * 32, part)])
    vault.close()
    (tmp_path / "shown.json").write_text(commands.said("disclose", key(4).hex(), "--field", "caller"))
    check = ["vault", "check", str(tmp_path / "shown.json"), "--commitment", party_commitment(part).hex()]
    assert CliRunner().invoke(app, check).stdout == "caller is what the record was made with: J\\xf6rg\n"


def test_fields_are_added_to_a_receipt_and_verified_with_it(commands: Commands, tmp_path: Path) -> None:
    world, file = World(entries=4, blocks=9), tmp_path / "receipt.json"
    record_key = record_key_of("alfa", world.record)
    vault = Vault(commands.folder, SECRET)
    vault.put_many([VaultEntry(record_key, world.record.setup_ms, b"c" * 32, private_part())])
    vault.close()
    file.write_bytes(world.receipt())

    def disclose(fields: str, of: bytes = record_key) -> list[str]:
        return ["disclose", of.hex(), "--field", fields, "--receipt", str(file)]

    for fields, shown in (("call_id", ["call_id"]), ("caller,call_id", ["caller", "call_id"])):
        assert commands.said(*disclose(fields)).endswith(f"shows {', '.join(fields.split(','))}\n")
        verdict = verify_receipt(file.read_bytes(), world.genesis)
        assert [field.name for field in verdict.revealed] == shown
        assert verdict.revealed[-1].value.decode() == PRIVATE["call_id"]
    assert PRIVATE["callee"] not in file.read_text()
    [written] = re.findall(r"^\$ ledger-agent (vault disclose .* --receipt .*)$", AUDIT, re.MULTILINE)
    done = CliRunner().invoke(
        app,
        [
            {"RECORD_KEY": record_key.hex(), "receipt.json": str(file)}.get(word, word)
            for word in written.replace("spool/vault", str(commands.folder))
            .replace("member.secret", str(tmp_path / "secret"))
            .split()
        ],
    )
    assert (done.exception, done.stdout) == (None, f"{file} shows caller\n")
    commands.said("shred", "--subject", PRIVATE["callee"], "--reason", "letter 9")
    before = file.read_bytes()
    assert isinstance(commands.refused(*disclose("callee")), FieldError)
    assert isinstance(commands.refused(*disclose("number")), FieldError)
    assert "of another record" in str(commands.refused(*disclose("caller", key(1))))
    assert file.read_bytes() == before
    file.write_bytes(world.receipt())
    assert commands.said(*disclose("all")).endswith("shows caller\n")
    assert [field.name for field in verify_receipt(file.read_bytes(), world.genesis).revealed] == ["caller"]
    file.write_text("{}")
    assert isinstance(commands.refused(*disclose("caller")), InvalidProof)


def test_a_subject_is_found_and_forgotten_however_it_is_written(commands: Commands) -> None:
    for spelling in (ANNA, "tel:+44-20-7183-8750", "sip:+442071838750@any.test"):
        assert key(1).hex() in commands.said("find", "--subject", spelling)
    assert "give --region" in commands.said("find", "--subject", "020 7183 8750")
    assert "give --region" in str(commands.refused("shred", "--subject", "020 7183 8750", "--reason", "letter 9"))
    assert commands.said("log") == "nothing was shredded\n"
    found = json.loads(commands.said("show", key(1).hex(), "--json"))
    assert (found["caller"], found["call_id"], found["held"]) == (ANNA, "call-1", False)
    said = commands.said("shred", "--subject", "-", "--region", "GB", "--reason", "letter 9", stdin="020 7183 8750\n")
    assert said.startswith("2 records of subject ")
    found = json.loads(commands.said("show", key(1).hex(), "--json"))
    assert re.fullmatch(r"\(shredded on 20\d\d-\d\d-\d\d: letter 9\)", found["caller"])
    assert found["callee"] == BEN
    assert ANNA not in commands.said("log")
    (done,) = json.loads(commands.said("log", "--json"))
    assert (done["kind"], done["records"], done["reason"], done["is_done"]) == ("subject", 2, "letter 9", True)
    assert json.loads(commands.said("disclose", key(1).hex(), "--field", "callee"))["value"] == BEN
    assert isinstance(commands.refused("disclose", key(1).hex(), "--field", "caller"), FieldError)


def test_holds_and_retention(commands: Commands) -> None:
    assert commands.said("holds") == "no hold\n"
    commands.said("hold", "--record", key(1).hex(), "--subject", ANNA, "--reason", "dispute 17", "--who", "billing")
    assert json.loads(commands.said("show", key(2).hex(), "--json"))["held"] is True
    assert "in force" in commands.said("holds")
    assert commands.said("retention") == "private parts are kept for ever\nnothing is due\n"
    assert "30 days after their month" in commands.said("retention", "--days", "30")
    said = commands.said("shred", "--period", "2026-11", "--reason", "audit over")
    assert said == (
        "1 record of period 2026-11 forgotten; 2 records kept by a hold until it is released\n"
        "dead letters were not looked at: no spool beside this vault, name it with --spool\n"
    )
    assert json.loads(commands.said("show", key(1).hex(), "--json"))["caller"] == ANNA
    assert commands.said("release", "1", "--who", "legal") == "hold 1 is released\n"
    assert "by legal" in commands.said("holds")
    assert "audit over" in json.loads(commands.said("show", key(1).hex(), "--json"))["caller"]
    assert "for ever" in commands.said("retention", "--days", "0", "--apply")


def test_what_is_over_is_shredded(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.cli.vault._now_ms", lambda: NOVEMBER_MS + 400 * 86_400_000)
    assert "due: 2026-11" in commands.said("retention", "--days", "365")
    assert "3 records of period 2026-11 forgotten" in commands.said("retention", "--apply")
    assert "nothing is due" in commands.said("retention")


def cdr(caller: str, callee: str = BEN) -> bytes:
    """Return a CDR that Kamailio's adapter reads."""
    seconds = {"start_time": "1795231098.000", "end_time": "1795231128.000", "sip_code": "200"}
    return json.dumps({**seconds, "call_id": "a@b.test", "from_tag": "a", "from": caller, "to": callee}).encode()


SPOILT = tuple(
    dead_letter(document, stage="intake", reason="because", time_ms=NOVEMBER_MS, kind=Kind.KAMAILIO)
    for document in (cdr("020 7183 8750"), b'{"to": "+44 20 7183 8750', b"\xff\xfe\xfd", cdr("+12025550123"))
)


@pytest.fixture
def agents(tmp_path: Path) -> Commands:
    """Return commands on the vault in the spool of an agent that has stopped, with dead letters."""
    spool = Spool(tmp_path, reserve_bytes=0)
    spool.append([(Kind.KAMAILIO, cdr(ANNA))], time_ms=NOVEMBER_MS)
    spool.advance(spool.end)
    spool.close()
    letters = DeadLetters(tmp_path)
    letters.add(SPOILT)
    letters.close()
    return Commands(tmp_path)


def bytes_in(folder: Path) -> bytes:
    """Return every byte below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_nothing_of_a_forgotten_subject_is_left_in_the_agents_directory(agents: Commands, tmp_path: Path) -> None:
    """Not among the dead letters, nor in the segments that records were made of."""
    read, cut, no_text, other = (one.id for one in SPOILT)
    ask = ("shred", "--subject", ANNA, "--region", "GB", "--reason", "letter 9")
    spool = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    planned = json.loads(agents.said(*ask, "--dry-run", "--json"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == spool
    assert (planned["dry_run"], planned["records"], planned["held"]) == (True, 2, 0)
    assert {one.id for one in DeadLetters(tmp_path)} == {read, cut, no_text, other}
    assert json.loads(agents.said("show", key(1).hex(), "--json"))["caller"] == ANNA
    assert "2 dead letters to be forgotten" in agents.said(*ask, "--dry-run")
    done = json.loads(agents.said(*ask, "--json"))
    assert {name: planned[name] for name in ("records", "held", "what", "dead_letters", "spool")} == {
        name: done[name] for name in ("records", "held", "what", "dead_letters", "spool")
    }
    assert done["dead_letters"] == {
        "shredded": {read: AS_PARTY, cut: AS_TEXT},
        "held": {},
        "undecided": {no_text: PERHAPS_NO_TEXT},
    }
    assert (done["spool"], done["spooled_documents"]) == (str(tmp_path), 0)
    left = bytes_in(tmp_path)
    for written in (b"7183", b"8750", b"07183", b"71838750"):
        assert written not in left
    assert b"+12025550123" in left
    again = agents.said(*ask)
    assert "0 dead letters forgotten\n1 dead letter left for you" in again
    assert f"  {no_text}  {PERHAPS_NO_TEXT}\n" in again


def test_what_waits_in_the_spool_is_told(agents: Commands, tmp_path: Path) -> None:
    spool = Spool(tmp_path, reserve_bytes=0)
    spool.append(
        [(Kind.KAMAILIO, cdr(number)) for number in (ANNA, "+12025550123", "020 7183 8750")], time_ms=NOVEMBER_MS
    )
    spool.close()
    said = agents.said("shred", "--subject", ANNA, "--region", "GB", "--reason", "letter 9")
    # With the one before it in its segment, of which a record was made.
    assert said.splitlines()[-1].startswith("3 in the spool, not records yet: start the agent")


def test_a_subject_of_dead_letters_alone_can_be_forgotten(agents: Commands, tmp_path: Path) -> None:
    DeadLetters(tmp_path).add([dead_letter(b"x +49301234567", stage="intake", reason="x", time_ms=1, kind=1)])
    ask = ("shred", "--reason", "letter 10", "--subject")
    said = agents.said(*ask, "+49301234567").splitlines()
    assert re.fullmatch("0 records of subject [0-9a-f]{32} forgotten", said[0])
    assert said[1] == "1 dead letter forgotten"
    DeadLetters(tmp_path).add([Letter("dropped", SPOILT[2].id, 1)])
    assert "Nothing was forgotten" in str(agents.refused(*ask, "+49301234568").hint)


def test_holds_and_retention_are_for_dead_letters_too(
    agents: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.said("hold", "--subject", ANNA, "--region", "GB", "--reason", "dispute 17", "--who", "billing")
    said = agents.said("shred", "--subject", ANNA, "--region", "GB", "--reason", "letter 9")
    assert "2 dead letters kept by a hold until it is released" in said
    assert len(DeadLetters(tmp_path)) == 4
    released = agents.said("release", "1", "--who", "legal", "--region", "GB").splitlines()
    assert released == ["hold 1 is released", *(f"dead letter {one.id} forgotten" for one in SPOILT[:2])]
    monkeypatch.setattr("node.cli.vault._now_ms", lambda: NOVEMBER_MS + 400 * 86_400_000)
    assert "2 dead letters to be forgotten" in agents.said("retention", "--days", "365")
    assert "2 dead letters forgotten" in agents.said("retention", "--apply")
    assert len(DeadLetters(tmp_path)) == 0
    assert b"+12025550123" not in bytes_in(tmp_path)


def test_the_spool_is_named_or_in_the_configuration_where_the_vault_is_elsewhere(
    agents: Commands, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    agents.folder = (tmp_path / "vault").rename(elsewhere / "vault")
    config = tmp_path / "agent.toml"
    config.write_text(f'spool = "{tmp_path}"\nregion = "GB"\n')
    ask = ("shred", "--period", "2026-11", "--reason", "audit over", "--json")
    assert json.loads(agents.said(*ask, "--dry-run"))["spool"] is None
    assert json.loads(agents.said(*ask, "--dry-run", "--spool", str(tmp_path)))["spool"] == str(tmp_path)
    assert isinstance(agents.refused(*ask, "--spool", str(elsewhere)), ConfigError)
    done = json.loads(agents.said(*ask, "--config", str(config)))
    assert set(done["dead_letters"]["shredded"]) == {one.id for one in SPOILT}
    assert set(done["dead_letters"]["shredded"].values()) == {BY_CALL, BY_ARRIVAL}


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nonsense"),
        ("show", key(9).hex()),
        ("shred", "--reason", "x"),
        ("shred", "--reason", "x", "--subject", ANNA, "--period", "2026-11"),
        ("shred", "--reason", "x", "--period", "November"),
        ("shred", "--reason", "x", "--subject", "anonymous"),
        ("hold", "--reason", "x", "--who", "y"),
        ("hold", "--reason", "x", "--who", "y", "--period", "2026-11..2026-09"),
        ("find", "--subject", ANNA, "--region", "UK"),
        ("find", "--subject", ""),
        ("release", "7", "--who", "y"),
        ("retention", "--days", "-1"),
    ],
)
def test_what_makes_no_sense_is_said(commands: Commands, arguments: tuple[str, ...]) -> None:
    assert isinstance(commands.refused(*arguments), ConfigError)


def test_a_vault_that_is_in_use_or_not_there_is_said(commands: Commands, tmp_path: Path) -> None:
    running = Vault(commands.folder, SECRET)
    error = commands.refused("log")
    assert isinstance(error, StoreLocked)
    assert "another process has the vault" in str(error)
    assert "stop the node or agent that has it, do this, and start it again" in str(error)
    running.close()
    commands.folder = tmp_path / "elsewhere"
    assert isinstance(commands.refused("log"), ConfigError)
    assert not commands.folder.exists()


def test_months() -> None:
    assert months_in("2026-11") == ["2026-11"]
    assert months_in("2026-11..2027-02") == ["2026-11", "2026-12", "2027-01", "2027-02"]


def test_every_command_is_in_the_document() -> None:
    (vault,) = [group.typer_instance for group in app.registered_groups if group.name == "vault"]
    names = {command.name or command.callback.__name__ for command in vault.registered_commands}
    assert names == set(re.findall(r"^\| `vault (\w+)", DOCUMENT, re.MULTILINE))
