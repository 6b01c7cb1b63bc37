"""Asking a witness to cosign a node's note: it signs only what extends all that it saw of the chain before.

Source: C2SP tlog-witness, "add-checkpoint"; docs/audit.md, "Notes and tiles".
"""

from __future__ import annotations

import base64
import http.client
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from audit.light import LightSource
from audit.lognote import origin_of
from audit.notes import NOTE_BYTES_MAX, Note, NoteKey, Verified, parse_note, parse_signature, parse_tree_head
from ledger.errors import BadSignature, ConfigError, EncodingError, LedgerError
from node.client import Client

TIMEOUT_S: Final = 30.0
PROOF_HASHES_MAX: Final = 63
SIGNATURE_BYTES: Final = 64
"""Of a log's own line; a quorum's certificate is longer, and of no use to a witness."""
SIZE_TYPE: Final = "text/x.tlog.size"


class WitnessRefused(LedgerError):
    """A witness did not cosign; ``status`` is the HTTP status, 0 without an answer."""

    code = "witness-refused"

    def __init__(self, what: str, *, status: int, **facts: object) -> None:
        self.status = status
        super().__init__(what, **facts)  # type: ignore[arg-type]


class Witness:
    """A witness behind its submission prefix.

    Attributes:
        url: the prefix.
        key: what its cosignatures are verified with.
        known_size: of the note that it cosigned last, as far as is known here.
    """

    def __init__(self, url: str, key: NoteKey, *, timeout_s: float = TIMEOUT_S) -> None:
        """Check the address. Raises ConfigError."""
        self.url = url.rstrip("/")
        self.key = key
        self.known_size = 0
        self._timeout_s = timeout_s
        try:
            parts = urlsplit(self.url)
            self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
            is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query
        except ValueError:
            is_good = False
        if not is_good:
            raise ConfigError(
                "not the address of a witness", where="WITNESS", expected="http://HOST/PREFIX", actual=url
            )
        self._is_tls = parts.scheme == "https"

    def cosign(self, note: Note, source: LightSource) -> list[Verified]:
        """Have a note cosigned, and return the cosignatures, verified.

        source: proves that the note's history extends the one that the witness saw. Raises WitnessRefused, or what the
        source raises.
        """
        size = parse_tree_head(note.text).size
        for _ in range(2):
            if self.known_size > size:
                break
            proof = source.consistency(self.known_size, size) if self.known_size else []
            status, kind, body = self._post(request_body(note, self.known_size, proof))
            if status == http.client.OK:
                found = self._verified(note, body)
                self.known_size = size
                return found
            # It says how far it came; the first time that is how one learns of it.
            if status != http.client.CONFLICT or kind != SIZE_TYPE:
                raise self._refusal(status)
            self.known_size = _size(body)
        raise WitnessRefused(
            "it has cosigned a larger history already",
            status=http.client.CONFLICT,
            where=self.url,
            expected=f"at least height {self.known_size}",
            actual=f"height {size}",
            hint="Another node may be ahead; ask again later",
        )

    def _verified(self, note: Note, body: bytes) -> list[Verified]:
        try:
            lines = body.decode("utf-8").splitlines()
            found = Note(note.text, tuple(parse_signature(line) for line in lines)).verify([self.key])
        except (EncodingError, BadSignature, UnicodeDecodeError) as error:
            raise WitnessRefused(f"its answer does not hold: {error}", status=http.client.OK, where=self.url) from None
        if not found:
            raise WitnessRefused(
                "its answer is not signed by it", status=http.client.OK, where=self.url, expected=self.key.to_text()
            )
        return found

    def _refusal(self, status: int) -> WitnessRefused:
        what = {
            400: "it cannot read what was sent",
            403: "it does not know the node's log key",
            404: "it does not know this chain",
            422: "it finds that the history does not extend the one it saw",
        }.get(status, "it refused")
        hint = {
            403: "Give the witness the verifier key that the node's log names at its start",
            404: "Give the witness the origin and the verifier key that the node's log names at its start",
            422: "Compare the nodes: ledger-verify --compare",
        }.get(status, "")
        return WitnessRefused(what, status=status, where=self.url, actual=f"status {status}", hint=hint)

    def _post(self, body: bytes) -> tuple[int, str, bytes]:
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request("POST", f"{self._path}/add-checkpoint", body, {"Content-Type": "text/plain"})
            response = connection.getresponse()
            content_type = response.headers.get_content_type()
            return response.status, content_type, response.read(NOTE_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise WitnessRefused(f"it does not answer: {reason}", status=0, where=self.url) from None
        finally:
            connection.close()


def request_body(note: Note, old_size: int, proof: Sequence[bytes]) -> bytes:
    """Return what a witness is sent: the size it saw last, the proof, and the note with the log's own lines."""
    if len(proof) > PROOF_HASHES_MAX:
        raise EncodingError("the proof is too long", where="path", expected=f"at most {PROOF_HASHES_MAX}")
    origin = parse_tree_head(note.text).origin
    own = tuple(one for one in note.signatures if one.name == origin and len(one.body) == SIGNATURE_BYTES)
    lines = [f"old {old_size}", *(base64.b64encode(one).decode() for one in proof), "", ""]
    return "\n".join(lines).encode() + Note(note.text, own).to_bytes()


def push(node: Client, source: LightSource, witness: Witness, chain_id: bytes) -> tuple[Note, list[Verified]]:
    """Have the newest note of a node cosigned, and hand the cosignatures to the node; return both.

    Raises ApiFault or WitnessRefused where one of them does not do its part.
    """
    note = parse_note(node.get_bytes("/checkpoint?newest=1", bytes_max=NOTE_BYTES_MAX))
    head = parse_tree_head(note.text)
    # [REJECT] It is the note of the chain that is meant
    if head.origin != origin_of(chain_id):
        raise EncodingError("of another log", where="origin", expected=origin_of(chain_id), actual=head.origin)
    found = witness.cosign(note, source)
    both = note.signed(*(one.signature for one in found))
    node.post("/v1/light/cosignatures", both.to_bytes(), content_type="text/plain")
    return both, found


def _size(body: bytes) -> int:
    text = body.decode("ascii", "replace").strip()
    return int(text) if text.isdigit() and text.isascii() and len(text) < 20 else 0
