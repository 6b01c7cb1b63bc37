"""``ledgerctl members``, ``candidates``, ``producers``, ``proposals``, ``key list``, ``prove``: who governs the chain.

Source: docs/operations.md, "Governing the chain".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.submit import Url

Json = Annotated[bool, typer.Option("--json", help="For machines.")]
LOCAL = "http://127.0.0.1:8080"


def members(
    member: Annotated[str, typer.Argument(help="Of this one everything.")] = "", url: Url = LOCAL, as_json: Json = False
) -> None:
    """Show the members: weight, seat, candidacy; of one also its keys and delegations."""
    from node.cli.output import print_facts, print_json, print_rows
    from node.client import Client

    answer = Client(url).get(f"/v1/members/{_part(member)}" if member else "/v1/members")
    if as_json:
        print_json(answer)
    elif member:
        keys = answer.pop("keys")
        for name in ("delegates", "delegated_by"):
            answer[name] = ", ".join(f"{to} {weight}" for to, weight in answer[name].items()) or None
        print_facts({"": {name: value for name, value in answer.items() if name != "at"}})
        typer.echo("")
        print_rows([_key_row(key) for key in keys], empty="no keys")
    else:
        total = answer["weight"]
        print_rows([_member_row(one) for one in answer["members"]], empty="no members")
        typer.echo(f"\nWeight {total}; a proposal needs {-(-2 * total // 3)} of it.")


def candidates(url: Url = LOCAL, as_json: Json = False) -> None:
    """Show who stands for a seat, with how much weight, and from whom."""
    from node.cli.output import print_json, print_rows
    from node.client import Client

    answer = Client(url).get("/v1/candidates")
    if as_json:
        print_json(answer)
        return
    rows = [
        {
            "candidate": one["member_id"],
            "weight": one["weight"],
            "from": ", ".join(f"{name} {weight}" for name, weight in one["delegated_by"].items()) or None,
            "endpoint": one["endpoint"] or None,
            "zone": one["grid_zone"] or None,
            "struck": "struck" if one["is_struck"] else None,
        }
        for one in answer["candidates"]
    ]
    print_rows(rows, empty="nobody stands")


def proposals(url: Url = LOCAL, as_json: Json = False) -> None:
    """Show what is open: what it would do, who approved, and the weight it lacks."""
    from node.cli.lines import utc
    from node.cli.output import print_json, print_rows
    from node.client import Client

    answer = Client(url).get("/v1/proposals")
    if as_json:
        print_json(answer)
        return
    rows = [
        {
            "proposal": one["proposal_id"][:16],
            "what": describe_proposal(one["proposal"]),
            "by": one["proposer"],
            "approved by": ", ".join(one["approvals"]),
            "weight": f"{one['weight']} of {one['weight_needed']}",
            "open until": utc(one["proposal"]["expires_ms"]),
        }
        for one in answer["proposals"]
    ]
    print_rows(rows, empty="no proposal is open")


def describe_proposal(proposal: dict[str, Any]) -> str:
    """Return what a proposal would do."""
    action, member = proposal["action"], proposal["member_id"]
    if action == "admit":
        return f"admit {member} with weight {proposal['weight']} by {len(proposal['keys'])} key(s)"
    if action == "reweigh":
        return f"give {member} weight {proposal['weight']}"
    if action == "seats":
        return f"have {proposal['seats']} seats"
    return f"{action} {member}"


def producers(url: Url = LOCAL, as_json: Json = False) -> None:
    """Show who seals and votes: seats and their turns, the voting set, what of it changes, and who was struck."""
    from node.cli.lines import utc
    from node.cli.output import print_json, print_rows
    from node.client import Client

    answer = Client(url).get("/v1/producers")
    if as_json:
        print_json(answer)
        return
    rows = [
        {
            "rank": one["rank"],
            "member": one["member_id"],
            "key": one["key_id"],
            "votes": one["votes"],
            "sealed": one["sealed"],
            "missed": one["missed"],
            "endpoint": one["endpoint"] or None,
            "zone": one["grid_zone"] or None,
        }
        for one in answer["producers"]
    ]
    print_rows(rows, empty="no producers")
    voting = answer["voting"]
    typer.echo(f"\nVoting set {voting['set_id']}: {_names(voting['producers'])}.")
    typer.echo(f"A quorum is {answer['quorum']} of {len(voting['producers'])}, {answer['faults_tolerated']} may fail.")
    pending = answer["pending"]
    if pending is not None:
        typer.echo(f"Changing to set {pending['set_id']}: {_names(pending['producers'])}; both must sign")
        typer.echo(f"until block {pending['height']} is final.")
    typer.echo(
        f"Epoch {answer['epoch']}; the next election is in the first block from slot {answer['next_epoch_slot']}"
    )
    typer.echo(f"on, {utc(answer['next_epoch_ms'])}, for {answer['producer_count']} seats at most.")
    for one in answer["struck"]:
        out = "out" if one["is_out"] else "out from the next election on"
        typer.echo(f"{one['member_id']} was struck at height {one['height']}: {out}, until it is readmitted.")


def list_keys(
    member: Annotated[str, typer.Argument(help="Of this member only.")] = "", url: Url = LOCAL, as_json: Json = False
) -> None:
    """Show the keys of the chain, ended ones included."""
    from ledger.errors import ConfigError
    from node.cli.output import print_json, print_rows
    from node.client import Client

    answer = Client(url).get("/v1/keys" + (f"?member_id={_part(member)}" if member else ""))
    if member and not answer["keys"]:
        # A member has keys, if only ended ones.
        raise ConfigError("no such member", where="MEMBER", actual=member, hint="See ledgerctl members")
    if as_json:
        print_json(answer)
    else:
        print_rows([{"member": key["member_id"], **_key_row(key)} for key in answer["keys"]], empty="no keys")


def prove(
    entry: Annotated[str, typer.Argument(help="member, key, candidate, delegation, proposal, struck, voting, ...")],
    names: Annotated[list[str] | None, typer.Argument(help="Of the entry: a name, an id in hex, or two names.")] = None,
    url: Url = LOCAL,
    genesis: Annotated[Path, typer.Option("--genesis", metavar="FILE", help="The genesis file you trust.")] = Path(
        "genesis.json"
    ),
    as_json: Json = False,
) -> None:
    """Show an entry of the final state, or that there is none, proved against the genesis file: no node is trusted."""
    from ledger.errors import InvalidProof
    from ledger.genesis import GENESIS_BYTES_MAX, genesis_from_json
    from ledger.readable import to_readable
    from node.cli.output import print_facts, print_json, read_file
    from node.client import Client
    from node.proving import check_state_answer

    trusted = genesis_from_json(read_file(str(genesis), bytes_max=GENESIS_BYTES_MAX), where=str(genesis))
    key = "/".join([entry, *(names or [])])
    answer = Client(url, timeout_s=60).get(f"/v1/state?key={_part(key)}")
    try:
        proved = check_state_answer(answer, trusted, key)
    except InvalidProof as error:
        raise InvalidProof(
            f"{url} does not prove it: {error.what}", where=error.where, expected=error.expected, actual=error.actual
        ) from None
    header, value = proved.header, to_readable(proved.value)
    if as_json:
        print_json({"key": key, "value": value, "height": header.height, "state_root": header.state_root.hex()})
        return
    if value is None:
        typer.echo(f"There is no {key}.")
    else:
        print_facts({"": value if isinstance(value, dict) else {key: value}})
    typer.echo(
        f"\nProved under the state root of block {header.height}, which is final. Changes of the voting set since "
        f"genesis, each signed by quorums of both sets: {proved.set_changes}."
    )


def _member_row(one: dict[str, Any]) -> dict[str, Any]:
    struck = one["struck"]
    return {
        "member": one["member_id"],
        "weight": one["weight"],
        "delegated": one["delegated"],
        "stands": one["candidate"] is not None,
        "with weight": one["candidate_weight"] if one["candidate"] else None,
        "seat": one["seat"],
        "votes": one["votes"],
        "struck": f"at height {struck['height']}" if struck else None,
    }


def _key_row(key: dict[str, Any]) -> dict[str, Any]:
    return {"key": key["key_id"], "roles": "+".join(key["roles"]), "standing": key["standing"]}


def _names(producers: list[dict[str, Any]]) -> str:
    return ", ".join(one["member_id"] for one in producers)


def _part(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def register(app: typer.Typer, key_app: typer.Typer) -> None:
    """Add these commands to ``ledgerctl``."""
    for command in (members, candidates, proposals, producers, prove):
        app.command(command.__name__)(command)
    key_app.command("list")(list_keys)
