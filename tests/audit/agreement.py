"""Both verifiers on one export: what each says, in a form that can be compared."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import ecdsa

from audit.reference import rules_of, verify_export
from audit.reference_state import read_genesis
from audit.reference_transactions import CheckRecord
from audit.reference_wire import Unusable
from audit.report import AuditReport, Difference
from audit.source import ExportSource
from audit.verify import verify_chain
from ledger.codec import encode
from ledger.errors import ConfigError, StoreDamaged, StoreError
from ledger.genesis import Genesis, chain_id_of, genesis_to_json
from ledger.validation import Rules

NAME = "chain.export"
Place = tuple[str, int, str]
"""``ok``, ``not ok``, ``damaged`` or ``unusable``; the height; the field, or file and offset of damage."""


def audited(data: bytes, genesis: Genesis, rules: Rules | None = None) -> tuple[Place, str]:
    """Return place and sentence of the audit, as ``ledger-verify`` comes to them."""
    try:
        source = ExportSource(io.BytesIO(data), name=NAME)
    except StoreDamaged as error:
        return ("damaged", 0, error.where), str(error)
    except StoreError as error:
        return ("unusable", 0, ""), str(error)
    if source.genesis() != encode(genesis):
        report = AuditReport(source.name, chain_id_of(genesis))
        report.first_difference = Difference(0, "genesis", "another")
    else:
        try:
            report = verify_chain(source, genesis, rules=rules)
        except ConfigError as error:
            return ("unusable", 0, ""), str(error)
    found = report.first_difference
    if found is None:
        return ("ok", report.height, ""), report.sentence()
    return ("damaged" if found.is_damage else "not ok", found.height, found.where or found.field), report.sentence()


@cache
def proven_rules(genesis_json: bytes) -> CheckRecord:
    """Return the reference's rules of a chain, whose vectors are run once."""
    return rules_of(read_genesis(genesis_json))


def referred(data: bytes, genesis: Genesis) -> tuple[Place, str]:
    """Return place and sentence of the reference."""
    try:
        trusted = genesis_to_json(genesis)
        verdict = verify_export(io.BytesIO(data), trusted, name=NAME, rules=proven_rules(trusted))
    except Unusable as error:
        return ("unusable", 0, ""), str(error)
    kind = "ok" if verdict.ok else "damaged" if verdict.is_damage else "not ok"
    return (kind, verdict.height, verdict.where), verdict.sentence


@contextmanager
def signatures_remembered() -> Iterator[None]:
    """Verify each signature once: the variants of one chain share most of them, and each takes some milliseconds."""
    verify = ecdsa.VerifyingKey.verify_digest
    known: dict[tuple[bytes, bytes, bytes], bool] = {}

    def look_up(key: ecdsa.VerifyingKey, signature: bytes, digest: bytes) -> bool:
        asked = (key.to_string(), signature, digest)
        if asked not in known:
            try:
                known[asked] = verify(key, signature, digest)
            except ecdsa.BadSignatureError:
                known[asked] = False
        if not known[asked]:
            raise ecdsa.BadSignatureError
        return True

    with patch.object(ecdsa.VerifyingKey, "verify_digest", look_up):
        yield
