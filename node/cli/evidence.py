"""``ledgerctl evidence``: who was struck and why, the two signed messages side by side, checked here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.show import Json
from node.cli.submit import Url

if TYPE_CHECKING:
    from ledger.payloads import Evidence

STATES = {
    "final": "final in block {block_height}",
    "included": "in block {block_height}, not final yet",
    "pending": "handed in, in no block yet",
    "kept": "found by this node, not handed in yet",
}


def evidence(
    member: Annotated[str | None, typer.Argument(help="Show the evidence against this member only.")] = None,
    url: Url = "http://127.0.0.1:8080",
    as_json: Json = False,
) -> None:
    """Show who was struck, or is about to be, and the two signed messages that prove why.

    Both signatures are checked here. The status is 1 where one does not hold.
    """
    from urllib.parse import quote

    from node.cli.output import print_json, print_line
    from node.client import Client

    answer = Client(url).get("/v1/evidence" + (f"?member={quote(member, safe='')}" if member else ""))
    if as_json:
        print_json(answer)
    elif not answer["evidence"]:
        print_line(f"no evidence against {member}" if member else "no evidence: nobody is struck")
    failed = 0
    for number, case in enumerate(answer["evidence"]):
        if number and not as_json:
            print_line("")
        failed += not _show(case, bytes.fromhex(answer["chain_id"]), is_silent=as_json)
    if failed:
        raise typer.Exit(1)


def _show(case: dict[str, Any], chain_id: bytes, *, is_silent: bool) -> bool:
    """Print one case unless told not to; tell whether it proves what it says."""
    from ledger.codec import encode
    from ledger.errors import LedgerError
    from ledger.payloads import Evidence, read_payload
    from ledger.readable import from_readable
    from ledger.transaction import Kind
    from node.cli.output import print_error, print_facts, print_line

    try:
        found = from_readable(case["evidence"], Evidence)
        read_payload(Kind.EVIDENCE, [encode(found)], chain_id)
    except LedgerError as error:
        print_error(error)
        return False
    if is_silent:
        return True
    print_line(f"{case['member_id']}: {found.fault}, {STATES[case['state']].format(**case)}{_by(case)}")
    print_facts({"": {"key_id": case["key_id"], "public_key": found.public_key.hex()}})
    print_line("")
    print_facts(_messages(found))
    print_line(f"\nBoth signatures are good, by this key. {explain(found, case['member_id'])}")
    return True


def _by(case: dict[str, Any]) -> str:
    standing = ", out of the schedule" if case["is_out"] else ""
    return (f", handed in by {case['accuser']} in transaction {case['tx_id']}" if case["tx_id"] else "") + standing


def _messages(found: Evidence) -> dict[str, dict[str, Any]]:
    """Return the two messages as columns."""
    from ledger.block import block_id_of

    columns: dict[str, dict[str, Any]] = {}
    for title, vote in zip(("one vote", "other vote"), found.votes, strict=False):
        columns[title] = {
            "from height": vote.s_height,
            "from block": vote.s_id.hex(),
            "to height": vote.t_height,
            "to block": vote.t_id.hex(),
            "signature": _halves(vote.signature),
        }
    for title, signed in zip(("one block", "other block"), found.headers, strict=False):
        header = signed.header
        columns[title] = {
            "slot": header.slot,
            "height": header.height,
            "id": block_id_of(header).hex(),
            "parent": header.parent_id.hex(),
            "transactions": header.tx_count,
            "tx_root": header.tx_root.hex(),
            "signature": _halves(signed.signature),
        }
    return columns


def _halves(signature: bytes) -> str:
    """Return a signature short enough to stand beside another."""
    return f"{signature[:8].hex()}...{signature[-8:].hex()}"


def explain(found: Evidence, member_id: str) -> str:
    """Return in a sentence what the two messages prove."""
    if found.headers:
        return f"{member_id} sealed two blocks in slot {found.headers[0].header.slot}; an honest producer seals one."
    low, high = sorted(found.votes, key=lambda vote: vote.t_height)
    if low.t_height == high.t_height:
        return (
            f"{member_id} voted twice for height {low.t_height}; an honest producer votes for one block there, and the "
            "safety of what is final rests on it."
        )
    return (
        f"{member_id} voted from {high.s_height} to {high.t_height}, around its own vote from {low.s_height} to "
        f"{low.t_height}; an honest producer never goes back to a lower source, and the safety of what is final rests "
        "on it."
    )
