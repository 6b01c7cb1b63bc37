"""What a shredding of the vault takes beside it: dead letters, and what of the spool is done with; and its report.

Source: docs/privacy.md, "To forget".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import ConfigError

if TYPE_CHECKING:
    from telephony.dead_erasure import Held, Reader, Report, Target
    from telephony.dead_letters import DeadLetters
    from telephony.vault import Vault
    from telephony.vault_bodies import Shredding

SPOOL_FORMAT = "ledger-agent spool "
FORMAT_BYTES_MAX = 100
READ_DOCUMENTS = 1_000
READ_BYTES = 8 * 1024 * 1024
LINES_MAX = 50
"""Ids printed under one heading; --json has all."""


@dataclass(frozen=True, slots=True)
class Letters:
    """The dead letters beside a vault; nothing is known of them where there is no spool."""

    spool: Path | None
    reader: Reader
    held: Held

    def find(self, target: Target) -> Report:
        """Return what ``shred`` would do. Raises StoreError."""
        from telephony.dead_erasure import Report, find_letters

        with self._opened() as letters:
            return find_letters(letters, self.reader, target, self.held) if letters is not None else Report()

    def shred(self, target: Target, now_ms: int) -> Report:
        """Forget the dead letters that are meant, but for those that a hold keeps, and what of the spool is done with.

        Raises StoreError.
        """
        from telephony.dead_erasure import Report, shred_letters
        from telephony.spool import Spool

        if self.spool is not None:
            opened = Spool(self.spool)
            try:
                opened.retire()
            finally:
                opened.close()
        with self._opened() as letters:
            if letters is None:
                return Report()
            return shred_letters(letters, self.reader, target, self.held, now_ms=now_ms)

    def settle(self, now_ms: int) -> list[str]:
        """Forget the dead letters that a released hold had kept; return their ids. Raises StoreError."""
        from telephony.dead_erasure import settle_letters

        with self._opened() as letters:
            return settle_letters(letters, self.reader, self.held, now_ms=now_ms) if letters is not None else []

    def count_spooled(self, target: Target) -> int:
        """Return how many documents in the spool are, or may be, meant. Where all are records already, none is left.

        Raises StoreLocked while an agent has the spool, another StoreError.
        """
        from telephony.spool import Spool
        from telephony.spool_files import Position

        if self.spool is None:
            return 0
        opened, count = Spool(self.spool), 0
        try:
            if opened.cursor.sequence == opened.end.sequence:
                return 0
            # A segment stays, in the clear, until all of it is records: so from its begin, not from the cursor.
            position = Position(opened.cursor.segment, 0, opened.cursor.segment)
            while True:
                batch = opened.read(position, count_max=READ_DOCUMENTS, bytes_max=READ_BYTES)
                documents = [(frame.kind, frame.document, frame.time_ms) for frame in batch.frames]
                documents += [(0, damage.data, 0) for damage in batch.damages]
                count += sum(target.find(self.reader.read(*document)) is not None for document in documents)
                if batch.end == position:
                    return count
                position = batch.end
        finally:
            opened.close()

    @contextmanager
    def _opened(self) -> Iterator[DeadLetters | None]:
        from telephony.dead_letters import DeadLetters

        if self.spool is None:
            yield None
            return
        letters = DeadLetters(self.spool)
        try:
            yield letters
        finally:
            letters.close()


def letters_beside(vault: Vault, directory: Path, spool: Path | None, config: Path | None, region: str) -> Letters:
    """Return the dead letters that belong to the vault in ``directory``.

    spool: where the agent's spool is; None: the vault is in it, or the configuration says where it is.
    config: the agent's TOML file, for the options of its platforms; None: none has any.
    Raises ConfigError where ``spool`` is none.
    """
    from node.agent import adapter_options, load_agent_config
    from telephony.adapters.registry import Adapters
    from telephony.dead_erasure import Held, Reader

    options = load_agent_config({}, {}, config)
    if spool is not None and not _is_spool(spool):
        raise ConfigError("no spool here", where=f"--spool {spool}", expected="the directory of a ledger-agent")
    places = [spool] if spool is not None else [directory.absolute().parent, *([options.spool] if config else [])]
    reader = Reader(Adapters(adapter_options(options.sources)).by_kind, region)
    held = Held(vault.erasure.holds.in_force(), vault.erasure.subject_of, region)
    return Letters(next(filter(_is_spool, places), None), reader, held)


def region_of(config: Path | None, region: str) -> str:
    """Return the country of national numbers: the one given, or the one of the configuration. Raises ConfigError."""
    from node.agent import load_agent_config

    return region or load_agent_config({}, {}, config).region


def _is_spool(directory: Path) -> bool:
    try:
        with (directory / "FORMAT").open("rb") as file:
            return file.read(FORMAT_BYTES_MAX).decode("ascii", "replace").startswith(SPOOL_FORMAT)
    except OSError:
        return False


def preview(vault: Vault, party: str, period: str, reason: str, now_ms: int) -> Shredding:
    """Return what shredding a party, or else a month, would say of the vault."""
    from telephony.vault_bodies import Shredding

    if party:
        subject = vault.erasure.subject_of(party)
        kind, what, (records, held) = "subject", subject.hex(), vault.erasure.would_lose("subject", subject)
    else:
        kind, what, (records, held) = "period", period, vault.erasure.would_lose("period", period)
    return Shredding(0, kind, what, reason, now_ms, is_done=False, records=records, held=held)


def tell(done: Shredding, letters: Letters, report: Report, spooled: int, *, is_dry: bool, as_json: bool) -> None:
    """Print what was shredded, or would be."""
    from node.cli.output import print_json, print_line

    if as_json:
        spool = str(letters.spool) if letters.spool is not None else None
        beside = {"spool": spool, "dead_letters": asdict(report), "spooled_documents": spooled}
        print_json({"dry_run": is_dry, **asdict(done), **beside})
        return
    for line in (sentence(done, is_dry=is_dry), *sentences(letters, report, spooled, is_dry=is_dry)):
        print_line(line)


def sentence(done: Shredding, *, is_dry: bool = False) -> str:
    """Return what became of records, for a person."""
    text = f"{_records(done.records)} of {done.kind} {done.what} {'to be forgotten' if is_dry else 'forgotten'}"
    return f"{text}; {_records(done.held)} kept by a hold until it is released" if done.held else text


def sentences(letters: Letters, report: Report, spooled: int, *, is_dry: bool = False) -> list[str]:
    """Return what became of dead letters, for a person."""
    if letters.spool is None:
        return ["dead letters were not looked at: no spool beside this vault, name it with --spool"]
    lines = [f"{_counted(len(report.shredded))} {'to be forgotten' if is_dry else 'forgotten'}"]
    lines += _listed(report.shredded)
    if report.held:
        lines += [f"{_counted(len(report.held))} kept by a hold until it is released", *_listed(report.held)]
    if report.undecided:
        lines.append(
            f"{_counted(len(report.undecided))} left for you: look (ledger-agent dead show ID) and drop, or not"
        )
        lines += _listed(report.undecided)
    if spooled:
        lines.append(
            f"{spooled} in the spool, not records yet: start the agent, let it build them, stop it and shred once more"
        )
    return lines


def _listed(letters: Mapping[str, str]) -> list[str]:
    lines = [f"  {id_}  {why}" for id_, why in list(letters.items())[:LINES_MAX]]
    return lines if len(letters) <= LINES_MAX else [*lines, f"  and {len(letters) - LINES_MAX} more: --json"]


def _counted(letters: int) -> str:
    return "1 dead letter" if letters == 1 else f"{letters} dead letters"


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"
