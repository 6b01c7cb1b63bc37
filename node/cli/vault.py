"""``ledger-agent vault``: looks into a party vault, shows what is asked for, forgets, holds and retains.

A vault belongs to one process: these commands work while the node or agent that has it is stopped.

Source: docs/privacy.md.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import ConfigError

if TYPE_CHECKING:
    from node.cli.vault_letters import Letters
    from telephony.dead_erasure import Target
    from telephony.vault import Vault
    from telephony.vault_bodies import PrivateView, Shredding
    from telephony.vault_holds import Hold

app = typer.Typer(
    no_args_is_help=True, help="The private parts of records: show, disclose, forget, hold. With the agent stopped."
)

VaultOption = Annotated[Path, typer.Option("--vault", envvar="LEDGER_AGENT_VAULT", help="The vault's directory.")]
SecretOption = Annotated[
    Path, typer.Option("--member-secret", envvar="LEDGER_AGENT_MEMBER_SECRET", help="File with the member's secret.")
]
RegionOption = Annotated[
    str, typer.Option("--region", envvar="LEDGER_AGENT_REGION", help="Country of national numbers, as GB.")
]
Key = Annotated[str, typer.Argument(metavar="RECORD_KEY", help="32 hex digits, as the API and find show them.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept and shown, so no number in it.")]
Who = Annotated[str, typer.Option("--who", help="Who says so.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The agent's TOML file: its region, spool and options of platforms.")
]
SpoolOption = Annotated[
    Path | None,
    typer.Option("--spool", envvar="LEDGER_AGENT_SPOOL", help="The agent's spool, where the vault is not in it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
RECORD_KEY_BYTES = 16
MONTHS_MAX = 1200
DISCLOSED_BYTES_MAX = 1024 * 1024


@app.command()
def show(key: Key, vault: VaultOption, member_secret: SecretOption, as_json: AsJson = False) -> None:
    """Show the private part of a record: all fields, and of those that were shredded when and why."""
    from ledger.commitment import PRIVATE_FIELDS
    from node.cli.output import print_facts, print_json

    with _opened(vault, member_secret) as opened:
        record_key, view = _view(opened, key)
        is_held = opened.erasure.holds.is_held(record_key)
    facts: dict[str, Any] = {"record_key": key, "held": is_held}
    for name in PRIVATE_FIELDS:
        field = view.fields.get(name)
        facts[name] = _text(field.value) if field is not None else _why(view.shredded[name])
    if as_json:
        print_json(facts)
    else:
        print_facts({"": facts})


@app.command()
def disclose(
    key: Key,
    vault: VaultOption,
    member_secret: SecretOption,
    field: Annotated[str, typer.Option("--field", help="caller, callee, call_id ...")],
    receipt: Annotated[
        Path | None,
        typer.Option("--receipt", metavar="FILE", help="Add it to this receipt instead; also caller,call_id, or all."),
    ] = None,
) -> None:
    """Print one private field with what proves it, as JSON for a counterparty; the other fields stay hidden.

    With --receipt it is added to the record's receipt, which ledger-verify checks with the genesis alone.
    """
    from ledger.commitment import PRIVATE_FIELDS
    from node.cli.output import print_json

    if receipt is not None:
        _reveal(key, vault, member_secret, field, receipt)
        return
    with _opened(vault, member_secret) as opened:
        record_key, view = _view(opened, key)
        place = opened.find([record_key])[record_key]
    proven, path = view.prove(field)
    document = {
        "record_key": key,
        # Where the counterparty finds the commitment.
        "record": f"{place.tx_id.hex()}/{place.index}" if place.tx_id is not None else None,
        "field": field,
        "salt": proven.salt.hex(),
        "value": _text(proven.value),
        # The very bytes: platforms report text that is none.
        "value_hex": proven.value.hex(),
        "leaf_index": PRIVATE_FIELDS.index(field),
        "leaves": len(PRIVATE_FIELDS),
        "path": [step.hex() for step in path],
    }
    print_json(document)


def _reveal(key: str, vault: Path, member_secret: Path, names: str, file: Path) -> None:
    """Add private fields to a receipt. Raises ConfigError, FieldError, InvalidProof."""
    from audit.receipt_file import RECEIPT_BYTES_MAX, read_receipt
    from audit.revealed import RevealedField, add_revealed, parse_names
    from ledger.cdr import record_key_of
    from node.cli.output import print_line, read_file, replace_file

    chosen = parse_names(names)
    data = read_file(str(file), bytes_max=RECEIPT_BYTES_MAX)
    read, _ = read_receipt(data)
    of_receipt = record_key_of(read.envelope.member_id, read.record).hex()
    if of_receipt != key:
        raise ConfigError("the receipt is of another record", where=str(file), expected=key, actual=of_receipt)
    with _opened(vault, member_secret) as opened:
        _, view = _view(opened, key)
    if names == "all":
        chosen = tuple(name for name in chosen if name in view.fields)
    replace_file(file, add_revealed(data, [RevealedField(*view.prove(name)) for name in chosen]))
    print_line(f"{file} shows {', '.join(chosen) or 'nothing: all of it was shredded'}")


@app.command("check")
def check_disclosed(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What disclose printed; - for standard input.")],
    commitment: Annotated[str, typer.Option("--commitment", help="The record's party_commitment, from the chain.")],
) -> None:
    """Check a field that a counterparty disclosed against the record on the chain. Needs no vault."""
    import msgspec

    from ledger.commitment import PrivateField, check_field
    from node.cli.output import print_line, read_file

    try:
        document = msgspec.json.decode(read_file(file, bytes_max=DISCLOSED_BYTES_MAX))
        parts = [document["field"], bytes.fromhex(document["salt"]), bytes.fromhex(document["value_hex"])]
        field, said = msgspec.convert(parts, PrivateField), document["value"]
        path, root = [bytes.fromhex(step) for step in document["path"]], bytes.fromhex(commitment)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError):
        raise ConfigError("not a disclosed field", where=file, expected="what vault disclose printed") from None
    check_field(field, path, root)
    text = _text(field.value)
    if said != text:
        raise ConfigError("the text is not that of the bytes", where=file, expected="what vault disclose printed")
    # Somebody else wrote it: no escape sequences for this terminal.
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    print_line(f"{field.name} is what the record was made with: {text}")


@app.command()
def find(
    vault: VaultOption,
    member_secret: SecretOption,
    subject: Annotated[str, typer.Option("--subject", help="Number or URI; -: from standard input.")],
    region: RegionOption = "",
) -> None:
    """List the records that a subject is in: record key and month."""
    from node.cli.output import print_rows

    party = _party(subject, region)
    with _opened(vault, member_secret) as opened:
        found = opened.records_of(party)
    print_rows([{"record_key": key.hex(), "period": period} for key, period in found], empty=_nobody(party, region))


@app.command()
def shred(
    vault: VaultOption,
    member_secret: SecretOption,
    reason: Reason,
    subject: Annotated[str, typer.Option("--subject", help="Number or URI; -: from standard input.")] = "",
    period: Annotated[str, typer.Option("--period", help="A month, as 2026-11.")] = "",
    region: RegionOption = "",
    config: ConfigOption = None,
    spool: SpoolOption = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be forgotten.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a subject or a month for good, in the vault and among the dead letters.

    What a hold keeps follows when the hold is released.
    """
    from node.cli.vault_letters import letters_beside, preview, region_of, tell
    from telephony.dead_erasure import OfPeriod, OfSubject
    from telephony.vault_keys import end_of_period_ms

    if bool(subject) == bool(period):
        raise ConfigError("which?", where="--subject or --period", expected="one of the two")
    region = region_of(config, region)
    party = _party(subject, region) if subject else ""
    if period:
        end_of_period_ms(period)
    target = OfSubject(party) if party else OfPeriod(period)
    with _opened(vault, member_secret) as opened:
        letters = letters_beside(opened, vault, spool, config, region)
        if party:
            _check_somebody(opened, letters, target, party, region)
        # First, for it may be refused.
        spooled = letters.count_spooled(target)
        if is_dry:
            done = preview(opened, party, period, reason, _now_ms())
            report = letters.find(target)
        elif party:
            done = opened.erasure.shred_subject(party, reason=reason, now_ms=_now_ms())
            report = letters.shred(target, _now_ms())
        else:
            done = opened.erasure.shred_period(period, reason=reason, now_ms=_now_ms())
            report = letters.shred(target, _now_ms())
    tell(done, letters, report, spooled, is_dry=is_dry, as_json=as_json)


def _check_somebody(opened: Vault, letters: Letters, target: Target, party: str, region: str) -> None:
    """Raise ConfigError where nothing is of a subject: somebody must not believe that it was forgotten."""
    if opened.records_of(party):
        return
    found = letters.find(target)
    if not (found.shredded or found.held or found.undecided or letters.count_spooled(target)):
        raise ConfigError(_nobody(party, region), where="--subject", hint="Nothing was forgotten")


@app.command()
def log(vault: VaultOption, member_secret: SecretOption, as_json: AsJson = False) -> None:
    """List what was shredded, the oldest first."""
    import dataclasses

    from node.cli.output import print_json, print_rows

    with _opened(vault, member_secret) as opened:
        done = opened.erasure.log()
    if as_json:
        print_json([dataclasses.asdict(one) for one in done])
    else:
        rows = [
            {
                "when": _utc(one.time_ms),
                "what": f"{one.kind} {one.what}",
                "records": one.records,
                "held": one.held,
                "reason": one.reason,
            }
            for one in done
        ]
        print_rows(rows, empty="nothing was shredded")


@app.command()
def hold(
    vault: VaultOption,
    member_secret: SecretOption,
    reason: Reason,
    who: Who,
    records: Annotated[list[str] | None, typer.Option("--record", help="Record key; may be given often.")] = None,
    subjects: Annotated[list[str] | None, typer.Option("--subject", help="Number or URI; may be given often.")] = None,
    period: Annotated[str, typer.Option("--period", help="A month, or the first and last, 2026-09..2026-11.")] = "",
    region: RegionOption = "",
) -> None:
    """Keep disputed records from being shredded, by request or by age, until the hold is released."""
    from node.cli.output import print_line

    with _opened(vault, member_secret) as opened:
        placed = opened.erasure.holds.place(
            reason=reason,
            who=who,
            now_ms=_now_ms(),
            records=[_record_key(key) for key in records or ()],
            subjects=[_party(subject, region) for subject in subjects or ()],
            periods=months_in(period) if period else (),
        )
    print_line(f"hold {placed.number} is in force")


@app.command()
def holds(vault: VaultOption, member_secret: SecretOption, as_json: AsJson = False) -> None:
    """List the holds, those released as well."""
    import dataclasses

    from node.cli.output import print_json, print_rows

    with _opened(vault, member_secret) as opened:
        placed = opened.erasure.holds.all()
    if as_json:
        print_json([dataclasses.asdict(one) for one in placed])
    else:
        print_rows([_hold_row(one) for one in placed], empty="no hold")


@app.command()
def release(
    number: Annotated[int, typer.Argument(metavar="HOLD", help="Its number, as holds shows it.")],
    vault: VaultOption,
    member_secret: SecretOption,
    who: Who,
    region: RegionOption = "",
    config: ConfigOption = None,
    spool: SpoolOption = None,
) -> None:
    """End a hold. What it kept from being shredded is shredded now."""
    from node.cli.output import print_line
    from node.cli.vault_letters import letters_beside, region_of

    region = region_of(config, region)
    with _opened(vault, member_secret) as opened:
        opened.erasure.holds.release(number, who=who, now_ms=_now_ms())
        gone = letters_beside(opened, vault, spool, config, region).settle(_now_ms())
    print_line(f"hold {number} is released")
    for id_ in gone:
        print_line(f"dead letter {id_} forgotten")


@app.command()
def retention(
    vault: VaultOption,
    member_secret: SecretOption,
    days: Annotated[
        int | None, typer.Option("--days", help="Keep private parts this long after their month; 0: for ever.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Shred the months whose time is up.")] = False,
    config: ConfigOption = None,
    spool: SpoolOption = None,
) -> None:
    """Show or set how long private parts and dead letters are kept, and shred what is older."""
    from node.cli.output import print_line
    from node.cli.vault_letters import letters_beside, region_of, sentence, sentences
    from telephony.dead_erasure import OfRetention

    lines: list[str] = []
    with _opened(vault, member_secret) as opened:
        if days is not None:
            opened.erasure.set_retain_days(days or None)
        kept, due = opened.erasure.retain_days, opened.erasure.retention_due(_now_ms())
        done = opened.erasure.apply_retention(_now_ms()) if apply else []
        if kept:
            letters = letters_beside(opened, vault, spool, config, region_of(config, ""))
            target = OfRetention(kept, _now_ms())
            report = letters.shred(target, _now_ms()) if apply else letters.find(target)
            if letters.spool is not None and (report.shredded or report.held):
                lines = sentences(letters, report, 0, is_dry=not apply)
    print_line(
        f"private parts are kept for {kept} days after their month" if kept else "private parts are kept for ever"
    )
    for one in done:
        print_line(sentence(one))
    if not apply:
        print_line(f"due: {', '.join(due)}" if due else "nothing is due")
    for line in lines:
        print_line(line)


def months_in(text: str) -> list[str]:
    """Return the months of ``2026-09..2026-11``, or the one of ``2026-09``. Raises ConfigError."""
    from telephony.vault_keys import end_of_period_ms, period_of

    first, dots, last = text.partition("..")
    last = last if dots else first
    end_ms = end_of_period_ms(last)
    months = [first]
    next_ms = end_of_period_ms(first)
    if next_ms > end_ms:
        raise ConfigError("the last month is before the first", where="--period", actual=text)
    while next_ms < end_ms and len(months) < MONTHS_MAX:
        months.append(period_of(next_ms))
        next_ms = end_of_period_ms(months[-1])
    return months


@contextlib.contextmanager
def _opened(directory: Path, member_secret: Path) -> Iterator[Vault]:
    from node.keyfile import read_secret
    from telephony.vault import Vault

    if not (directory / "vault.sqlite").exists():
        hint = "It is the folder vault of a node's data, or of an agent's spool"
        raise ConfigError("no vault here", where=f"--vault {directory}", hint=hint)
    vault = Vault(directory, read_secret(member_secret))
    try:
        yield vault
    finally:
        vault.close()


def _view(vault: Vault, key: str) -> tuple[bytes, PrivateView]:
    record_key = _record_key(key)
    view = vault.look(record_key)
    if view is None:
        raise ConfigError("the vault has no private part of this record", where="RECORD_KEY", actual=key)
    return record_key, view


def _record_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != RECORD_KEY_BYTES:
        raise ConfigError("not a record key", where="RECORD_KEY", expected=f"{2 * RECORD_KEY_BYTES} hex digits")
    return key


def _party(text: str, region: str) -> str:
    from telephony.numbers import check_region, party_of

    check_region(region)
    if text == "-":
        # What stands on the command line, every user of the machine may see.
        text = sys.stdin.readline().strip()
    party = party_of(text, region)
    if not party:
        raise ConfigError("whom?", where="--subject", expected="a number or URI, or - for a line of standard input")
    return party


def _nobody(party: str, region: str) -> str:
    """Return what to say where no record has a party: somebody must not believe that it was forgotten."""
    text = f"no record of this subject, as the vault writes it: {party}"
    return (
        text if region or party.startswith("+") else f"{text}. For a national number give --region as the agent has it"
    )


def _hold_row(hold: Hold) -> dict[str, Any]:
    until = f"released {_utc(hold.released_ms)} by {hold.released_by}" if hold.released_ms is not None else "in force"
    return {
        "hold": hold.number,
        "since": _utc(hold.since_ms),
        "who": hold.who,
        "targets": hold.targets,
        "state": until,
        "reason": hold.reason,
    }


def _why(shredding: Shredding | None) -> str:
    if shredding is None:
        return "(shredded; the vault does not know when and why)"
    return f"(shredded on {_utc(shredding.time_ms)[:10]}: {shredding.reason})"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
