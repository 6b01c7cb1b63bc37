"""Where a chain to audit comes from: a data directory, an export file, a running node. One face for all three."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import ssl
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast
from urllib.parse import urlsplit

from audit.export import ExportReader
from audit.raw import Head, RawBlock, RawFinality, read_finality, read_head, read_raw_block
from ledger.data_directory import copy_for_audit
from ledger.errors import LedgerError, StoreDamaged, StoreError, StoreLocked
from ledger.leveldb import LevelStore, damaged_files
from ledger.store import Store

TIMEOUT_S: Final = 30
"""A node that sends nothing for this long is given up."""
RECONNECTS_MAX: Final = 3
"""A connection lost on the way is made anew this often without a block in between."""
EXPORT_PATH: Final = "/v1/export"


class ChainSource(ABC):
    """A chain to audit, read once from front to back.

    Attributes:
        name: what a person calls it: a path or an address.
        head: what the source says it holds; there once ``open`` was called, and only final once ``blocks`` is through:
            a running node may go on meanwhile.
        has_rows: whether it has derived rows, which can be audited too.
        store: where they are, once ``open`` was called: those of a data directory; None for other sources.
    """

    name: str
    head: Head
    has_rows = False
    store: Store | None = None

    @abstractmethod
    def genesis(self) -> bytes | None:
        """Return the encoded genesis that the source carries, None where it carries none."""

    @abstractmethod
    def open(self, chain_id: bytes) -> None:
        """Find out what the source says it holds. Raises StoreError."""

    @abstractmethod
    def blocks(self, first_height: int = 1) -> Iterator[RawBlock]:
        """Yield the blocks from ``first_height`` on in order of height. Raises StoreDamaged."""

    @abstractmethod
    def finality(self) -> RawFinality:
        """Return what makes the last block final; after ``blocks``."""

    def explain(self, error: LedgerError) -> LedgerError:
        """Return an error of ``blocks`` as a person is told: asked once, when nothing is read any more."""
        return error

    @abstractmethod
    def close(self) -> None:
        """Release everything held."""


class DirectorySource(ChainSource):
    """A node's data directory. What opening would rewrite is copied first: evidence stays as it is.

    Use as a context manager or call ``close``: it removes the copy.
    """

    def __init__(self, path: Path) -> None:
        """Copy of the data directory at ``path`` all but the bodies, which are read where they are.

        Raises StoreLocked where a node has it open, StoreDamaged where it cannot be opened, StoreError where it
        holds no store.
        """
        self.name = str(path)
        self.has_rows = True
        self._path = find_store(path)
        self._temporary = Path(tempfile.mkdtemp(prefix="ledger-verify-"))
        self._copy = self._temporary / "copy"
        try:
            copy_for_audit(self._path, self._copy)
        except StoreLocked as error:
            self.close()
            raise StoreLocked(
                error.what,
                where=error.where,
                hint="Stop the node, or audit it as it runs: ledger-verify http://HOST:PORT (its --api address)",
            ) from None
        except BaseException:
            self.close()
            raise

    def genesis(self) -> bytes | None:
        """See ``ChainSource.genesis``; a data directory has none."""
        return None

    def open(self, chain_id: bytes) -> None:
        """Open the copy and read every row of it once: damage shows here, before anything is believed."""
        with self._naming_damage():
            if not (self._copy / "FORMAT").exists():
                raise StoreDamaged("the file is missing", where=str(self._copy / "FORMAT"))
            self.store = LevelStore(self._copy, create=False, reserve_bytes=0, evidence=self._path)
            for _ in self.store.scan(b"", b"\xff"):
                pass
            self.head = read_head(self.store, chain_id)

    def blocks(self, first_height: int = 1) -> Iterator[RawBlock]:
        """See ``ChainSource.blocks``."""
        assert self.store is not None
        for height in range(first_height, self.head.final_height + 1):
            block = read_raw_block(self.store, height)
            if block is None:
                return
            yield block

    def finality(self) -> RawFinality:
        """See ``ChainSource.finality``."""
        assert self.store is not None
        with self._naming_damage():
            return read_finality(self.store, self.head)

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise self.explain(error) from None

    def explain(self, error: LedgerError) -> LedgerError:
        """Speak of the directory, not of its copy, and of the damaged file where LevelDB keeps its name to itself.

        Finding that file takes the store apart: nothing can be read from it afterwards.
        """
        if not isinstance(error, StoreError):
            return error
        where = error.where
        if where == str(self._copy / "db"):
            self.close_store()
            where = ", ".join(damaged_files(self._copy / "db")) or where
        where, actual = (text.replace(str(self._copy), str(self._path)) for text in (where, error.actual))
        return type(error)(error.what, where=where, expected=error.expected, actual=actual)

    def close_store(self) -> None:
        """Close the copy."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def close(self) -> None:
        """Close and remove the copy."""
        self.close_store()
        shutil.rmtree(self._temporary, ignore_errors=True)


def find_store(path: Path) -> Path:
    """Return the directory of the store in ``path``: itself, or the one folder below it that holds one."""
    try:
        found = [here for here in (path, *sorted(path.iterdir())) if (here / "db").is_dir()]
    except OSError as error:
        raise StoreError("the directory cannot be read", where=str(path), actual=error.strerror or "") from None
    if not found:
        raise StoreError(
            "there is no store here", where=str(path), hint="Name the data directory of a node, the one with db/ in it"
        )
    if found[0] != path and len(found) > 1:
        names = ", ".join(here.name for here in found)
        raise StoreError("several stores are here", where=str(path), actual=names, hint="Name one of them")
    return found[0]


class ExportSource(ChainSource):
    """An export, from a file or any stream."""

    def __init__(self, file: BinaryIO, *, name: str) -> None:
        """Read the beginning of the export. Raises StoreDamaged."""
        self.name = name
        self._file = file
        try:
            self._reader = ExportReader(file, name=name)
        except BaseException:
            file.close()
            raise
        self.head = self._reader.head

    def genesis(self) -> bytes | None:
        """See ``ChainSource.genesis``."""
        return self._reader.genesis

    def open(self, chain_id: bytes) -> None:
        """See ``ChainSource.open``; the export was opened already."""

    def blocks(self, first_height: int = 1) -> Iterator[RawBlock]:
        """See ``ChainSource.blocks``; what lies before is read past."""
        return (block for block in self._reader.blocks() if block.height >= first_height)

    def finality(self) -> RawFinality:
        """See ``ChainSource.finality``."""
        return self._reader.finality

    def close(self) -> None:
        """Close the stream."""
        self._file.close()


class NodeSource(ChainSource):
    """A running node, over its HTTP API. A lost connection is made anew where it broke off."""

    def __init__(self, url: str) -> None:
        """Ask the node at ``url`` for its chain. Raises StoreError where it does not answer with one."""
        self.name = url
        self._url = url
        self._connection: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._reader = self._ask(1)
        self.head = self._reader.head

    def genesis(self) -> bytes | None:
        """See ``ChainSource.genesis``."""
        return self._reader.genesis

    def open(self, chain_id: bytes) -> None:
        """See ``ChainSource.open``; the node was asked already."""

    def blocks(self, first_height: int = 1) -> Iterator[RawBlock]:
        """See ``ChainSource.blocks``. After a lost connection the node may be ahead, and gives more."""
        height, lost = first_height, 0
        if first_height > 1:
            self._ask_again(first_height)
        while True:
            try:
                for block in self._reader.blocks():
                    yield block
                    height, lost = height + 1, 0
            except (OSError, http.client.HTTPException, StoreDamaged) as error:
                lost += 1
                if lost > RECONNECTS_MAX or not _is_cut(error):
                    raise _unreachable(self._url, error) from None
                self._ask_again(height)
                continue
            return

    def _ask_again(self, height: int) -> None:
        genesis = self._reader.genesis
        self._reader = self._ask(height)
        if self._reader.genesis != genesis:
            raise StoreError("the node changed its genesis on the way", where=self._url)
        self.head = self._reader.head

    def finality(self) -> RawFinality:
        """See ``ChainSource.finality``."""
        return self._reader.finality

    def close(self) -> None:
        """Close the connection."""
        if self._answer is not None:
            self._answer.close()
        if self._connection is not None:
            self._connection.close()

    def _ask(self, height: int) -> ExportReader:
        """Request the chain from ``height`` on."""
        self.close()
        try:
            parts = urlsplit(self._url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise StoreError("not an address", where=self._url, expected="http://HOST:PORT", actual=error) from None
        if parts.scheme not in {"http", "https"} or not host:
            raise StoreError("not an address", where=self._url, expected="http://HOST:PORT or https://HOST:PORT")
        try:
            if parts.scheme == "https":
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
            self._connection.request("GET", f"{parts.path.rstrip('/')}{EXPORT_PATH}?from={height}")
            self._answer = self._connection.getresponse()
            if self._answer.status != http.HTTPStatus.OK:
                text = f"{self._answer.status} {self._answer.read(300).decode('utf-8', 'replace')}"
                raise StoreError("the node does not give its chain", where=self._url, actual=text)
            return ExportReader(cast("BinaryIO", self._answer), name=self._url)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _unreachable(self._url, error) from None
        except LedgerError:
            self.close()
            raise


def _is_cut(error: Exception) -> bool:
    """Tell whether a stream ended before its time, rather than held wrong bytes."""
    return not isinstance(error, StoreDamaged) or error.what == "the export ends too early"


def _unreachable(url: str, error: Exception) -> LedgerError:
    if isinstance(error, LedgerError):
        return error
    return StoreError("the node cannot be reached", where=url, actual=str(error) or type(error).__name__)
