"""Every error the project raises on purpose, in one tree.

::

    LedgerError                       what happened, where, what was expected, what to do
    +-- EncodingError                 bytes or JSON that are not what they should be
    |   +-- NonCanonicalEncoding      a second spelling of a value that has a canonical one
    |   +-- FieldError                a field is missing, unknown, of the wrong type or out of bounds
    +-- InvalidTransaction            fails context-free: nobody may pass it on          [REJECT]
    |   +-- BadSignature
    |   +-- RuleViolation             a record contradicts itself
    +-- UnusableTransaction           fails in context: sign anew, no fault of the sender [IGNORE]
    +-- InvalidBlock                  a lie about the chain                               [REJECT]
    |   +-- WrongProducer
    +-- UnknownParent                 not yet connected: starts a sync                    [IGNORE]
    +-- InvalidVote                   a lie about a vote                                  [REJECT]
    +-- InvalidProof                  an inclusion, consistency or state proof that does not hold
    +-- PeerError                     a peer broke the peering protocol
    +-- StoreError                    the disk: full, damaged, locked, of another version
    |   +-- StoreLocked
    |   +-- StoreDamaged
    |   +-- StoreFull
    |   +-- StoreVersion
    +-- Unfinished                    work that ended before its time: interrupted, or a process of it was lost
    +-- ConfigError                   what the operator gave: flags, files, genesis, keys
"""

from __future__ import annotations

from typing import ClassVar


class LedgerError(Exception):
    """Something a person or a program can act on.

    Attributes:
        what: one sentence, no trailing full stop.
        where: the field, file, block or address concerned; may be empty.
        expected: what would have been right; may be empty.
        actual: what was found, already printable; may be empty.
        hint: what to do about it; may be empty.
    """

    code: ClassVar[str] = "error"
    """Stable machine-readable name, used as the RFC 9457 problem type."""

    def __init__(
        self, what: str, *, where: str = "", expected: object = "", actual: object = "", hint: str = ""
    ) -> None:
        self.what = what
        self.where = where
        self.expected = _printable(expected)
        self.actual = _printable(actual)
        self.hint = hint
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Return the facts as one line for a person."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected and self.actual:
            text += f" (expected {self.expected}, found {self.actual})"
        elif self.expected:
            text += f" (expected {self.expected})"
        elif self.actual:
            text += f" (found {self.actual})"
        return f"{text}. {self.hint}" if self.hint else text


def _printable(value: object) -> str:
    """Return ``value`` as short printable text; bytes as hex."""
    text = value.hex() if isinstance(value, bytes | bytearray) else str(value)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= 200 else text[:197] + "..."


class EncodingError(LedgerError):
    """Bytes or JSON that are not what they should be."""

    code = "encoding"


class NonCanonicalEncoding(EncodingError):
    """A second spelling of a value that has a canonical one."""

    code = "non-canonical-encoding"


class FieldError(EncodingError):
    """A field is missing, unknown, of the wrong type or out of bounds; ``where`` is its path."""

    code = "field"


class InvalidTransaction(LedgerError):
    """A transaction that nobody may pass on: whoever sent it is at fault."""

    code = "invalid-transaction"


class BadSignature(InvalidTransaction):
    """A signature that is not by the key named, over the id claimed, or not low-s."""

    code = "bad-signature"


class RuleViolation(InvalidTransaction):
    """A record contradicts itself; ``rule`` names the rule, ``where`` the field, ``expected`` the bound."""

    code = "rule-violation"

    def __init__(
        self,
        what: str,
        *,
        rule: str,
        where: str = "",
        expected: object = "",
        actual: object = "",
        hint: str = "",
    ) -> None:
        self.rule = rule
        super().__init__(what, where=where, expected=expected, actual=actual, hint=hint)


class UnusableTransaction(LedgerError):
    """A transaction that does not fit this chain now; the submitter must sign anew."""

    code = "unusable-transaction"


class InvalidBlock(LedgerError):
    """A block that lies about the chain, its contents or its producer's right."""

    code = "invalid-block"


class WrongProducer(InvalidBlock):
    """A block sealed by somebody whose slot it is not."""

    code = "wrong-producer"


class UnknownParent(LedgerError):
    """A block whose parent is not known here (yet)."""

    code = "unknown-parent"


class InvalidVote(LedgerError):
    """A vote or certificate that does not hold."""

    code = "invalid-vote"


class InvalidProof(LedgerError):
    """A proof that does not lead to the root it claims."""

    code = "invalid-proof"


class PeerError(LedgerError):
    """A peer broke the peering protocol."""

    code = "peer"


class StoreError(LedgerError):
    """The store cannot do what was asked."""

    code = "store"


class StoreLocked(StoreError):
    """Another process has the data directory."""

    code = "store-locked"


class StoreDamaged(StoreError):
    """Bytes on disk are not those that were written."""

    code = "store-damaged"


class StoreFull(StoreError):
    """The disk has no room; nothing of the write was kept."""

    code = "store-full"


class StoreVersion(StoreError):
    """The files are of a format version that this program does not read."""

    code = "store-version"


class Unfinished(LedgerError):
    """Work that ended before its time, by no fault of what it was about: nothing is said of that."""

    code = "unfinished"


class ConfigError(LedgerError):
    """A flag, file, key or genesis that the operator must mend."""

    code = "config"
