"""``ledgerctl submit``: hand in records, and see what became of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from node.client import Client, Handed

SUBMIT_BYTES_MAX: Final = 1024 * 1024 * 1024
REQUEST_BYTES_MAX: Final = 12 * 1024 * 1024
"""Well below what a node takes in one body."""
WAIT_STATES: Final = ("stored", "accepted", "included", "final")

Url = Annotated[str, typer.Option("--url", envvar="LEDGERCTL_URL", help="The node's API.")]
Token = Annotated[str, typer.Option("--token", envvar="LEDGERCTL_TOKEN", help="Bearer token.", show_default=False)]
TokenFile = Annotated[str, typer.Option("--token-file", help="File with the token: others see command lines.")]


def submit(
    file: Annotated[str, typer.Argument(help="JSON: a record, an array, or one a line; - for standard input.")],
    url: Url = "http://127.0.0.1:8080",
    token: Token = "",
    token_file: TokenFile = "",
    kamailio: Annotated[bool, typer.Option("--kamailio", help="The file holds CDRs of Kamailio's acc_json.")] = False,
    wait: Annotated[str, typer.Option(help="accepted | included | final: until all records are.")] = "stored",
    timeout: Annotated[int, typer.Option(help="Seconds to wait.", min=1)] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Hand in call records; each is on the node's disk when its line says stored.

    A record is a bare CallRecord, or {"record": ..., "private": ...}. Handing in one again does no harm.
    The status is 1 where one was refused, or was not as far as --wait asks in time.
    """
    from ledger.errors import ConfigError
    from node.cli.output import print_json, read_file
    from node.client import Client

    if wait not in WAIT_STATES:
        raise ConfigError("not a promise", where="--wait", expected=" | ".join(WAIT_STATES), actual=wait)
    data = read_file(file, bytes_max=SUBMIT_BYTES_MAX)
    documents = parse_documents(data, where=file)
    if not kamailio:
        documents = [as_submission(document) for document in documents]
    client = Client(url, read_token(token, token_file))
    path = "/v1/ingest/kamailio" if kamailio else "/v1/records"
    handed: list[Handed] = []
    for group in grouped(documents):
        results = client.submit(group, path=path)
        if not as_json:
            print_handed(results, first=len(handed))
        handed += results
    states = wait_for_all(client, handed, wait, timeout) if wait != "stored" else {}
    if as_json:
        print_json([_result(one, states) for one in handed])
    if not summarise(handed, states, wait):
        raise typer.Exit(1)


def read_token(token: str, token_file: str) -> str:
    """Return the token given, or the one in a file. Raises ConfigError."""
    from node.cli.output import read_file

    return token or (read_file(token_file, bytes_max=4096).decode("utf-8", "replace").strip() if token_file else "")


def parse_documents(data: bytes, *, where: str) -> list[Any]:
    """Return the JSON documents of a file: one, those of an array, or one a line. Raises EncodingError."""
    import json

    from ledger.errors import EncodingError

    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if value is not None:
        documents = value if isinstance(value, list) else [value]
    else:
        documents = []
        for number, line in enumerate(data.splitlines(), 1):
            if not line.strip():
                continue
            try:
                documents.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise EncodingError(
                    f"not JSON: {error}", where=f"{where}, line {number}", expected="an object, an array, or one a line"
                ) from None
    if not documents:
        raise EncodingError("no records", where=where, expected="at least one")
    return documents


def as_submission(document: Any) -> Any:
    """Return a record in the form the API takes it; what is something else is left for the node to name."""
    if isinstance(document, dict) and "record" not in document and "setup_ms" in document:
        return {"record": document}
    return document


def grouped(documents: list[Any]) -> list[list[Any]]:
    """Return documents in requests that a node takes, in order."""
    import json

    from node.client import RECORDS_PER_REQUEST

    groups: list[list[Any]] = [[]]
    size = 0
    for document in documents:
        length = len(json.dumps(document)) + 2
        if groups[-1] and (len(groups[-1]) == RECORDS_PER_REQUEST or size + length > REQUEST_BYTES_MAX):
            groups.append([])
            size = 0
        groups[-1].append(document)
        size += length
    return groups


def print_handed(results: list[Handed], *, first: int) -> None:
    """Print one line for each record: its place on the ledger, or why it was refused."""
    from node.cli.output import print_line
    from node.client import what_of

    lines = []
    for number, one in enumerate(results, first + 1):
        if one.problem is None:
            text = f"{number} {one.outcome} {one.tx_id}/{one.index}"
        else:
            names = {"rule": "rule", "expected": "expected", "actual": "found"}
            facts = [f"{names[name]} {one.problem[name]}" for name in names if name in one.problem]
            text = f"{number} refused {one.problem.get('field', '')}: {what_of(one.problem)}"
            text += f" ({', '.join(facts)})" if facts else ""
            text += f". {one.problem['hint']}" if one.problem.get("hint") else ""
        lines.append(text + "".join(f"; {warning}" for warning in one.warnings))
    print_line("\n".join(lines))


def wait_for_all(client: Client, handed: list[Handed], state: str, timeout_s: int) -> dict[str, str]:
    """Return the promise of each transaction once all are as far as ``state``, or the time is over."""
    import time

    deadline = time.monotonic() + timeout_s
    first: dict[str, Handed] = {}
    for one in handed:
        if one.problem is None:
            first.setdefault(one.tx_id, one)
    return {
        tx_id: client.wait_for(one, state, timeout_s=max(0.0, deadline - time.monotonic()))
        for tx_id, one in first.items()
    }


def _result(one: Handed, states: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {"outcome": one.outcome}
    if one.problem is not None:
        return {**result, "problem": one.problem}
    result |= {"tx_id": one.tx_id, "index": one.index, "warnings": list(one.warnings)}
    return {**result, "state": states[one.tx_id]} if one.tx_id in states else result


def summarise(handed: list[Handed], states: dict[str, str], wanted: str) -> bool:
    """Say on standard error how it went; return whether all is as asked for."""
    outcomes = {name: sum(one.outcome == name for one in handed) for name in ("stored", "already stored", "refused")}
    text = ", ".join(f"{count} {name}" for name, count in outcomes.items() if count)
    late = [state for state in states.values() if WAIT_STATES.index(wanted) > _rank(state)]
    if states:
        counts = {state: list(states.values()).count(state) for state in dict.fromkeys(states.values())}
        text += "; transactions: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    typer.echo(text, err=True)
    return not outcomes["refused"] and not late


def _rank(state: str) -> int:
    """Return how far a promise is; a void record is on the chain, it just does not count a second time."""
    return 3 if state == "void" else WAIT_STATES.index(state) if state in WAIT_STATES else -1
