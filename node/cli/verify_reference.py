"""``ledger-verify --reference``: the second implementation, on whatever the first can read.

What reads data directories and asks nodes is the first's; what it read goes to the second as an export, byte for byte.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ledger.errors import ConfigError
from node.cli.verify_audit import showing_progress

if TYPE_CHECKING:
    from audit.reference import Verdict
    from audit.source import ChainSource
    from ledger.genesis import Genesis


class Joined:
    """A stream of two, one behind the other; only to be read."""

    def __init__(self, first: BinaryIO, second: BinaryIO) -> None:
        self._first, self._second = first, second

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        return self._first.read(size) or self._second.read(size)


@contextmanager
def exported(source: ChainSource, genesis: Genesis) -> Iterator[BinaryIO]:
    """Give the export of a chain in a temporary file, which takes as much room as the chain.

    Raises StoreError where the source cannot be read, StoreDamaged where its bytes are not those that were written.
    """
    from audit.export import FrameType, export_block, export_finality, make_frame, make_preamble
    from audit.raw import Head
    from ledger.codec import encode
    from ledger.genesis import chain_id_of

    source.open(chain_id_of(genesis))
    first_height = source.head.first_height
    with tempfile.TemporaryFile(prefix="ledger-verify-") as file:
        for block in source.blocks():
            file.writelines(export_block(block))
        file.writelines(export_finality(source.finality()))
        file.seek(0)
        # A node may have gone on meanwhile, and was perhaps asked again from where a connection was lost.
        head = Head(first_height, source.head.final_height, source.head.final_id)
        carried = source.genesis() or encode(genesis)
        front = [make_frame(FrameType.GENESIS, carried), make_frame(FrameType.HEAD, encode(head))]
        yield cast("BinaryIO", Joined(io.BytesIO(make_preamble() + b"".join(front)), cast("BinaryIO", file)))


def refer(
    target: str, genesis_file: Path | None, seen: list[str], save: Path | None
) -> tuple[int, str, dict[str, Any]]:
    """Return status, sentence and report of the second implementation on whatever the first can read.

    genesis_file: the one that is trusted. seen, save: options that it does not have. Raises LedgerError where nothing
    can be said.
    """
    from node.cli.verify import NOT_OK, OK, is_note, is_receipt

    if seen or save:
        raise ConfigError("the second implementation takes and leaves no checkpoint", where="--reference")
    if is_note(target):
        raise ConfigError("the second implementation reads chains and receipts, no notes", where=target)
    verdict = refer_receipt(Path(target), genesis_file) if is_receipt(target) else refer_chain(target, genesis_file)
    report = {"ok": verdict.ok, "implementation": "reference", "height": verdict.height, "where": verdict.where}
    return OK if verdict.ok else NOT_OK, verdict.sentence, report | verdict.counts


def refer_chain(target: str, genesis_file: Path | None) -> Verdict:
    """Return the second implementation's verdict on a data directory, an export or a node.

    genesis_file: the one that is trusted. Raises LedgerError where nothing can be said.
    """
    from audit.reference import verify_export
    from audit.reference_wire import Unusable
    from audit.report import Progress
    from audit.source import ExportSource
    from ledger.genesis import GENESIS_BYTES_MAX, genesis_to_json
    from node.cli.verify import load_genesis, open_source, read_file

    with closing(open_source(target)) as source, showing_progress() as show:
        genesis = load_genesis(source, target, genesis_file)
        trusted = read_file(genesis_file, GENESIS_BYTES_MAX) if genesis_file else genesis_to_json(genesis)

        def tell(height: int, last: int, records: int) -> None:
            show(Progress(height, last, records))

        try:
            if isinstance(source, ExportSource):
                return verify_export(target, trusted, on_block=tell)
            with exported(source, genesis) as file:
                return verify_export(file, trusted, name=target, on_block=tell)
        except Unusable as error:
            raise ConfigError(f"the second implementation cannot say anything: {error}", where=target) from None


def refer_receipt(path: Path, genesis_file: Path | None) -> Verdict:
    """Return the second implementation's verdict on a receipt. Raises LedgerError where nothing can be said."""
    from audit.reference import verify_receipt
    from audit.reference_receipts import RECEIPT_BYTES_MAX
    from ledger.genesis import genesis_to_json
    from node.cli.verify import load_genesis, read_file

    data = read_file(path, RECEIPT_BYTES_MAX)
    return verify_receipt(data, genesis_to_json(load_genesis(None, str(path), genesis_file)))
