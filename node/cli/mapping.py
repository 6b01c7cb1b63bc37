"""``ledger-agent map``: tries a mapping file on a sample of CDRs before any of them is handed in.

Source: docs/mapping.md, "Try it".
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ledger.errors import ConfigError, EncodingError

if TYPE_CHECKING:
    from telephony.adapters.mapped import MappedAdapter
    from telephony.source import SourceCall, SourceReading

map_app = typer.Typer(no_args_is_help=True, help="Mapping files for CDRs of platforms without an adapter.")

TRIED_NAME: Final = "tried"
"""A mapping has its name from the configuration; here it has none yet."""
ROWS_SHOWN: Final = 10
SAMPLE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A sample is tried whole; what is handed in is limited by the agent, post by post."""


@map_app.callback()
def about_mappings() -> None:
    """Mapping files for CDRs of platforms without an adapter."""


@map_app.command()
def check(
    mapping: Annotated[str, typer.Argument(metavar="MAPPING", help="A TOML file, or the name of a preset.")],
    sample: Annotated[str, typer.Argument(metavar="[SAMPLE]", help="File of CDRs, - for standard input.")] = "",
    timezone: Annotated[str, typer.Option(help="Instead of the mapping's own, as in the configuration.")] = "",
    rows: Annotated[int, typer.Option(min=0, help="Calls to show; all rows are tried.")] = ROWS_SHOWN,
) -> None:
    """Show what each row becomes, with private values masked, and every row that is refused.

    Status 1 where the mapping is wrong or a row is refused.
    """
    from node.cli.output import print_line, read_file
    from telephony.adapters.mapped import MappedAdapter, read_mapping
    from telephony.adapters.mapping import preset_names

    is_preset = mapping in preset_names() and not Path(mapping).exists()
    if not is_preset and not Path(mapping).expanduser().exists():
        presets = ", ".join(preset_names())
        raise ConfigError("neither a file nor a preset", where=mapping, expected=f"a TOML file, or one of {presets}")
    read = read_mapping(TRIED_NAME, None if is_preset else mapping, mapping if is_preset else None, timezone or None)
    adapter = MappedAdapter(read)
    if not sample:
        print_line("the mapping is right; with a file of CDRs behind it, it is tried on them")
        return
    raise typer.Exit(_try_rows(adapter, read_file(sample, bytes_max=SAMPLE_BYTES_MAX), rows))


def _try_rows(adapter: MappedAdapter, body: bytes, shown: int) -> int:
    """Print the calls and the refusals of a sample, and return the exit status. Raises EncodingError for no sample."""
    from node.cli.output import print_line
    from telephony.adapters.discreet import without_values

    try:
        documents = adapter.numbered(body)
    except EncodingError as error:
        raise without_values(error) from None
    seen: dict[tuple[str, str, int], str] = {}
    calls = 0
    for where, document in documents:
        try:
            call = adapter.parse(document)
        except EncodingError as error:
            print_line(f"{where}: refused: {without_values(error).sentence()}")
            continue
        calls += 1
        if calls <= shown:
            print_line("\n".join(f"{where}: {line}" for line in lines_of(call)))
        identity = (call.call_id, call.from_tag, call.invite_cseq)
        if identity in seen:
            print_line(f"{where}: the same call as {seen[identity]}: the ledger counts one of them")
        seen.setdefault(identity, where)
    refused = len(documents) - calls
    print_line(f"{len(documents)} rows: {calls} calls, {len(seen)} different, {refused} refused")
    return 1 if refused or not documents else 0


def lines_of(call: SourceCall) -> list[str]:
    """Return a call for a person: times, outcome, quality; of numbers and names only their form."""
    from ledger.models.explain import method_name

    talk = f"answered after {_seconds(call.answer_ms - call.setup_ms)}" if call.answer_ms else "not answered"
    parties = f"{masked(call.caller) or 'unknown'} -> {masked(call.callee) or 'unknown'}"
    outcome = f"SIP {call.sip_code or 'unknown'}, Q.850 {call.q850_cause or 'unknown'}"
    lines = [
        f"call {masked(call.call_id)}, from tag {masked(call.from_tag) or 'none'}, {parties}",
        f"  setup {_utc(call.setup_ms)}, {talk}, ended after {_seconds(call.end_ms - call.setup_ms)}",
        f"  {outcome}, released by {call.released_by.name.lower()}, codec {_codec(call.codec)}",
    ]
    for quality in call.qualities:
        what = f"{method_name(quality.method)}, {quality.observer.name.lower()}, {quality.kind.name}"
        lines.append(f"  quality ({what}): {_reading(quality.average)}")
    return lines + [f"  note: {note}" for note in call.notes]


def _codec(name: str) -> str:
    """Return a codec's name if it is one: where a mapping is wrong, a number may stand there."""
    from ledger.models.tables import CODECS

    is_known = name.lower() in {codec.name.lower() for codec in CODECS.values()}
    return name if is_known else f"{masked(name)}, which is in no registry" if name else "unknown"


def masked(text: str) -> str:
    """Return the form of ``text`` alone, printable."""
    from telephony.adapters.rows import form_of

    hidden = form_of(text)
    return hidden if hidden.isprintable() else hidden.encode("unicode_escape").decode()


def _reading(reading: SourceReading) -> str:
    facts = [f"MOS {reading.mos_milli // 1000}.{reading.mos_milli % 1000:03}"]
    for name, value, unit in (
        ("round trip", reading.rtt_us, "us"),
        ("jitter", reading.jitter_us, "us"),
        ("loss", reading.loss_ppm, "ppm"),
    ):
        facts.append(f"{name} {'unknown' if value is None else f'{value} {unit}'}")
    return ", ".join(facts)


def _utc(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{time_ms % 1000:03}Z"


def _seconds(span_ms: int) -> str:
    return f"{span_ms // 1000}.{span_ms % 1000:03} s"
