"""The OpenAPI document and docs/api.md against the code, both ways; and the small things around a request."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from ledger import errors
from ledger.cdr import CallRecord
from ledger.errors import LedgerError
from ledger.rules.flags import FLAGS, Flag
from node.api import problems
from node.api.access import Tokens, host_name
from node.api.app import ROUTES
from node.api.problems import ApiError, Forbidden, Unauthorized, problem_of, status_of
from node.api.read import openapi_document
from node.api.submit import split_transactions
from node.keyfile import Token, new_token

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = msgspec.json.decode(openapi_document())
API_MD = (ROOT / "docs" / "api.md").read_text()


def subclasses(kind: type[LedgerError]) -> set[type[LedgerError]]:
    """Return all classes below ``kind`` that ship."""
    found = set(kind.__subclasses__())
    found |= {below for child in found for below in subclasses(child)}
    return {each for each in found if each.__module__ in {errors.__name__, problems.__name__}}


def test_the_document_has_every_route_and_no_other():
    # The document has no way to say that a part of a path may have slashes.
    routes = {(route.method.lower(), route.path.replace(":.+}", "}")) for route in ROUTES}
    documented = {(method, path) for path, operations in DOCUMENT["paths"].items() for method in operations}
    assert documented == routes


def test_every_operation_has_a_name_of_its_own():
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere_and_every_schema_is_used():
    text = openapi_document().decode()
    used = set(re.findall(r'"\$ref": "#/components/(\w+/\w+)"', text))
    defined = {f"{kind}/{name}" for kind in ("schemas", "responses") for name in DOCUMENT["components"][kind]}
    assert used == defined


def test_the_record_in_the_document_is_the_record():
    schema = DOCUMENT["components"]["schemas"]["CallRecord"]
    assert tuple(schema["properties"]) == CallRecord.__struct_fields__
    assert tuple(schema["required"]) == CallRecord.__struct_fields__


def test_the_flags_in_the_document_are_the_flags():
    schema = DOCUMENT["components"]["schemas"]["Flag"]
    assert tuple(schema["properties"]) == Flag._fields
    assert schema["required"] == list(Flag._fields)
    assert schema["properties"]["name"]["enum"] == list(FLAGS)


def test_whatever_writes_needs_a_token():
    for path, operations in DOCUMENT["paths"].items():
        assert ("post" in operations) == (
            [{"token": ["submit"]}] in [op.get("security") for op in operations.values()]
        ), path


def test_every_route_is_in_the_guide():
    missing = [path for path in DOCUMENT["paths"] if f"`{path}`" not in API_MD and f" {path}`" not in API_MD]
    assert missing == []


def test_every_error_is_in_the_document_and_the_guide():
    codes = {kind.code for kind in problems.TITLES}
    listed = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert sorted(problems.URN + code for code in codes) == listed
    assert [code for code in sorted(codes) if f"| `{code}` |" not in API_MD] == []
    assert subclasses(ApiError) | {ApiError} <= set(problems.TITLES)


def test_a_fault_nobody_foresaw_is_ours():
    assert status_of(errors.InvalidProof("x")) == 500
    assert status_of(LedgerError("x")) == 500


def test_a_problem_has_all_facts_of_its_error():
    error = errors.RuleViolation(
        "ends first", rule="call-shape/x", where="end_ms", expected="> 5", actual=4, hint="Look"
    )
    assert problem_of(error) == {
        "type": "urn:ledgerd:problem:rule-violation",
        "title": "The record contradicts itself",
        "status": 422,
        "detail": "end_ms: ends first (expected > 5, found 4). Look",
        "rule": "call-shape/x",
        "field": "end_ms",
        "expected": "> 5",
        "actual": "4",
        "hint": "Look",
    }


def test_tokens_are_found_by_their_hash_alone():
    text, kept = new_token("a", ["submit"])
    assert kept.sha256 == sha256(text.encode()).hexdigest()
    tokens = Tokens([kept, Token("b", "00" * 32, ["private"])])

    def ask(header: str | None) -> frozenset[str] | None:
        return tokens.roles_of(make_mocked_request("GET", "/", {"Authorization": header} if header is not None else {}))

    assert ask(None) is None
    assert ask(f"Bearer {text}") == {"submit"}
    assert ask(f"bearer {text}") == {"submit"}
    for header in ("", "Bearer", "Bearer ", f"Basic {text}", f"Bearer {kept.sha256}", "Bearer " + "x" * 600, text):
        with pytest.raises(Unauthorized):
            ask(header)


def test_a_role_is_needed():
    text, kept = new_token("a", ["private"])
    request = make_mocked_request("GET", "/", {"Authorization": f"Bearer {text}"})
    Tokens([kept]).require(request, "private")
    with pytest.raises(Forbidden, match="role submit"):
        Tokens([kept]).require(request, "submit")
    with pytest.raises(Unauthorized):
        Tokens([]).require(make_mocked_request("GET", "/"), "submit")


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.test", "a.test"), ("A.test:80", "a.test"), ("[::1]:80", "::1"), ("", ""), (":80", ""), ("[", ""), ("a:b", ""),
     ("u@a.test", ""), ("a.test/x", ""), ("a.test?x", ""), ("a.test:99999", "")],
)  # fmt: skip
def test_the_name_in_a_host_header(header, name):
    assert host_name(header) == name


def test_a_body_of_transactions_is_told_from_one_transaction():
    assert split_transactions(msgspec.msgpack.encode([b"a", b"b"])) == ([b"a", b"b"], True)
    for one in (msgspec.msgpack.encode([[1], b"s", [b"i"]]), b"", b"\xc1", msgspec.msgpack.encode("x")):
        assert split_transactions(one) == ([one], False)
    for wrong in ([], [b"x"] * 33):
        with pytest.raises(errors.EncodingError, match="1 to 32"):
            split_transactions(msgspec.msgpack.encode(wrong))
