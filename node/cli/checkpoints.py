"""What auditors keep from one time to the next: checkpoints, and whatever else says what was seen of a chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledger.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.light import LightCheckpoint
    from audit.since import Earlier
    from ledger.genesis import Genesis

CHECKPOINT_BYTES_MAX: Final = 1 << 20
SEEN_BYTES_MAX: Final = 16 << 20
"""A receipt may have many changes of the voting set in it."""


def read_genesis(path: Path) -> Genesis:
    """Return the genesis in a file. Raises ConfigError."""
    from ledger.genesis import GENESIS_BYTES_MAX, genesis_from_json
    from node.cli.output import read_file

    return genesis_from_json(read_file(str(path), bytes_max=GENESIS_BYTES_MAX), where=str(path))


def read_checkpoint(path: Path | None) -> LightCheckpoint | None:
    """Return the checkpoint in a file, None where there is no file. Raises ConfigError for one that is none."""
    from audit.light import checkpoint_from_json
    from ledger.errors import EncodingError
    from node.cli.output import read_file

    if path is None or not path.exists():
        return None
    try:
        return checkpoint_from_json(read_file(str(path), bytes_max=CHECKPOINT_BYTES_MAX))
    except EncodingError as error:
        raise ConfigError(
            f"not a checkpoint: {error}",
            where=str(path),
            expected="a file that ledgerctl follow or ledger-verify --save-checkpoint wrote",
        ) from None


def write_checkpoint(path: Path | None, checkpoint: LightCheckpoint | None) -> None:
    """Keep a checkpoint; a crash leaves the old file or the new one. Raises ConfigError."""
    from audit.light import checkpoint_to_json

    if path is None or checkpoint is None:
        return
    data = checkpoint_to_json(checkpoint)
    beside = path.with_name(f"{path.name}.new")
    try:
        if not path.exists() or path.read_bytes() != data:
            beside.write_bytes(data)
            beside.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from None


def read_seen(texts: Sequence[str], genesis: Genesis) -> list[Earlier]:
    """Return what each ``--since`` names: a block as HEIGHT:ID, or a file. Raises ConfigError."""
    from audit.since import earlier_from_file, earlier_from_text
    from node.cli.output import read_file

    seen = []
    for text in texts:
        # A file may have any name; what is none is a block, or a mistake.
        if Path(text).is_file():
            data = read_file(text, bytes_max=SEEN_BYTES_MAX)
            seen.append(earlier_from_file(data, genesis, where=text))
        elif ":" in text:
            seen.append(earlier_from_text(text, where="--since"))
        else:
            raise ConfigError(
                "no such file, and not a block", where="--since", expected="HEIGHT:ID or FILE", actual=text
            )
    return seen
