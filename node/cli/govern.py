"""``ledgerctl key add|rotate|revoke``, ``candidate``, ``delegate``, ``propose``, ``approve``: members change the chain.

Source: docs/operations.md, "Governing the chain".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from node.cli import signed
from node.cli.signed import Order
from node.cli.submit import Token, TokenFile

if TYPE_CHECKING:
    from ledger.entries import ProposalAction
    from ledger.genesis import MemberKey
    from node.desk import Desk

candidate_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Stand for a seat, or withdraw.")
propose_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Propose what concerns all members.")

DAY_MS: Final = 86_400_000
ROLE_NAMES: Final = ("node", "submit", "govern")

NewKey = Annotated[str, typer.Argument(help="The new public key: a .pub or PEM file, or hex.")]
OldKey = Annotated[str, typer.Argument(help="The key that ends: its file, or its id or public key in hex.")]
MemberArgument = Annotated[str, typer.Argument(help="The member's name.")]
Days = Annotated[int, typer.Option("--days", min=1, max=30, help="How long others may approve it.")]


# -- keys ----------------------------------------------------------------------------------------------------------


def key_add(
    new: NewKey,
    role: Annotated[list[str], typer.Option(help="node, submit or govern; may be repeated.")],
) -> Order:
    """Add a key of this member. It signs from the block after on."""
    from ledger.payloads import KeyChange, KeyChanges, KeyOperation
    from ledger.transaction import Kind
    from node.founding import parse_public_key

    roles = parse_roles(role)
    public_key = parse_public_key(new, where="NEW")

    def effect(desk: Desk, _tx_id: str, height: int) -> list[str]:
        return [f"{key_id_hex(public_key)} is a key of {desk.member_id}: it may sign from height {height + 1} on"]

    return Order(Kind.KEY, KeyChanges([KeyChange(KeyOperation.ADD, public_key, roles, None)]), effect)


def key_rotate(old: OldKey, new: NewKey) -> Order:
    """Put a new key in the place of an old one: its roles, and the candidacy that it stands for."""
    from ledger.payloads import KeyChange, KeyChanges, KeyOperation
    from ledger.transaction import Kind
    from node.founding import parse_public_key

    old_id, public_key = parse_key_id(old), parse_public_key(new, where="NEW")

    def effect(desk: Desk, _tx_id: str, height: int) -> list[str]:
        lines = [f"{key_id_hex(public_key)} takes the place of {old_id.hex()}: it may sign from height {height + 1} on"]
        return lines + ended_lines(desk, old_id)

    return Order(Kind.KEY, KeyChanges([KeyChange(KeyOperation.ROTATE, public_key, 0, old_id)]), effect)


def key_revoke(old: OldKey) -> Order:
    """End a key, and the candidacy that it stands for."""
    from ledger.payloads import KeyChange, KeyChanges, KeyOperation
    from ledger.transaction import Kind

    old_id = parse_key_id(old)

    def effect(desk: Desk, _tx_id: str, height: int) -> list[str]:
        return [f"{old_id.hex()} signs nothing after height {height}", *ended_lines(desk, old_id)]

    return Order(Kind.KEY, KeyChanges([KeyChange(KeyOperation.REVOKE, None, 0, old_id)]), effect)


def ended_lines(desk: Desk, key_id: bytes) -> list[str]:
    """Say until when a key that ended still seals and votes, where it does."""
    keys = desk.get(f"/v1/keys?member_id={desk.member_id}")["keys"]
    standing = next((key["standing"] for key in keys if key["key_id"] == key_id.hex()), "")
    if standing != "retiring":
        return []
    return [
        f"The old key is in office: it seals until the next election, {election(desk)},",
        "and votes until the new one has sealed a block and a change of the voting set is final.",
        "Keep both at hand until then: ledgerd --key OLD --next-key NEW; ledgerctl producers shows how far it is",
    ]


# -- candidates and delegations ------------------------------------------------------------------------------------


def stand(
    with_key: Annotated[str, typer.Option(help="The node key: its file, or its id in hex.")],
    endpoint: Annotated[str, typer.Option(help="ws://HOST:PORT or wss://HOST:PORT where peers reach it.")] = "",
    zone: Annotated[str, typer.Option(help="Where its electricity is from, as GB or US-CA.")] = "",
) -> Order:
    """Stand for a seat, or, where it stands already, with another key, endpoint or zone."""
    from ledger.genesis import Candidate
    from ledger.payloads import CandidateChange
    from ledger.transaction import Kind

    candidate = checked(Candidate(parse_key_id(with_key), endpoint, zone))
    return Order(Kind.CANDIDATE, CandidateChange(candidate), _at_election("stands for a seat"))


def withdraw() -> Order:
    """Stand no longer."""
    from ledger.payloads import CandidateChange
    from ledger.transaction import Kind

    return Order(
        Kind.CANDIDATE, CandidateChange(None), _at_election("stands no longer; what it holds it keeps so long")
    )


def delegate(
    parts: Annotated[list[str] | None, typer.Argument(help="CANDIDATE=WEIGHT, as many as there are.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Delegate nothing any more.")] = False,
) -> Order:
    """Split this member's weight over candidates, in the place of how it was split before."""
    from ledger.errors import ConfigError
    from ledger.payloads import DelegationPart, Delegations
    from ledger.transaction import Kind

    if bool(parts) == none:
        raise ConfigError("say to whom, or --none", where="PARTS", expected="CANDIDATE=WEIGHT ...")
    weights: dict[str, int] = {}
    for text in parts or []:
        name, _, weight = text.partition("=")
        if not name or name in weights or not (weight.isascii() and weight.isdigit() and 0 < int(weight) <= 10**9):
            raise ConfigError("not a delegation", where="PARTS", expected="CANDIDATE=WEIGHT, each once", actual=text)
        weights[name] = int(weight)
    payload = checked(Delegations([DelegationPart(name, weights[name]) for name in sorted(weights)]))
    said = ", ".join(f"{name} {weight}" for name, weight in sorted(weights.items())) or "nobody"
    return Order(Kind.DELEGATE, payload, _at_election(f"delegates to {said}"))


def _at_election(what: str) -> Any:
    def effect(desk: Desk, _tx_id: str, height: int) -> list[str]:
        return [f"From height {height} on {desk.member_id} {what}: it counts at the election {election(desk)}"]

    return effect


# -- what members decide together ----------------------------------------------------------------------------------


def admit(
    member: MemberArgument,
    weight: Annotated[int, typer.Option(min=1, max=10**9, help="Voting weight.")],
    with_node_key: Annotated[str, typer.Option(help="Its node key: a .pub or PEM file, or hex.")],
    with_submit_key: Annotated[str, typer.Option(help="Its submit key; else the node key submits.")] = "",
    with_govern_key: Annotated[str, typer.Option(help="Its govern key; else the node key governs.")] = "",
    days: Days = 7,
) -> Order:
    """Propose a new member."""
    from ledger.entries import ProposalAction

    keys = member_keys(with_node_key, with_submit_key, with_govern_key)
    return _propose(ProposalAction.ADMIT, days, member=member, weight=weight, keys=keys)


def reweigh(
    member: MemberArgument,
    weight: Annotated[int, typer.Argument(min=1, max=10**9, help="Its new voting weight.")],
    days: Days = 7,
) -> Order:
    """Propose another weight for a member."""
    from ledger.entries import ProposalAction

    return _propose(ProposalAction.REWEIGH, days, member=member, weight=weight)


def remove(member: MemberArgument, days: Days = 7) -> Order:
    """Propose that a member leaves, with its keys, its candidacy and all delegations by it and to it."""
    from ledger.entries import ProposalAction

    return _propose(ProposalAction.REMOVE, days, member=member)


def readmit(member: MemberArgument, days: Days = 7) -> Order:
    """Propose that a member that was struck may stand again."""
    from ledger.entries import ProposalAction

    return _propose(ProposalAction.READMIT, days, member=member)


def seats(count: Annotated[int, typer.Argument(min=1, max=21, help="Seats at most.")], days: Days = 7) -> Order:
    """Propose another number of seats."""
    from ledger.entries import ProposalAction

    return _propose(ProposalAction.SEATS, days, seats=count)


def approve(proposal: Annotated[str, typer.Argument(help="Its id, or enough of its beginning.")]) -> Order:
    """Approve a proposal; with two-thirds of the weight it is carried out at once."""
    from ledger.payloads import Approval
    from ledger.transaction import Kind

    found: list[bytes] = []

    def payload(desk: Desk) -> Approval:
        found.append(find_proposal(desk, proposal))
        return Approval(found[-1])

    def effect(desk: Desk, _tx_id: str, height: int) -> list[str]:
        return decided(desk, found[-1].hex(), height)

    return Order(Kind.APPROVE, payload, effect)


def _propose(
    action: ProposalAction,
    days: int,
    *,
    member: str | None = None,
    weight: int = 0,
    keys: list[MemberKey] | None = None,
    seats: int = 0,
) -> Order:
    from ledger.entries import Proposal
    from ledger.transaction import Kind

    # Half a minute short of the bound: block time may be behind this clock.
    lifetime_ms = min(days * DAY_MS, 30 * DAY_MS - 30_000)
    expires_ms = time.time_ns() // 1_000_000 + lifetime_ms
    return Order(Kind.PROPOSE, checked(Proposal(action, member, weight, keys or [], seats, expires_ms)), decided)


def decided(desk: Desk, proposal_id: str, height: int) -> list[str]:
    """Say whether a proposal is carried out, or what it lacks."""
    from node.cli.lines import utc

    entry = next((p for p in desk.get("/v1/proposals")["proposals"] if p["proposal_id"] == proposal_id), None)
    if entry is None:
        return [f"Carried out at height {height}; who produces changes at the next election, {election(desk)}"]
    weight = f"weight {entry['weight']} of the {entry['weight_needed']} needed"
    return [
        f"Open until {utc(entry['proposal']['expires_ms'])}: approved by {', '.join(entry['approvals'])}, {weight}",
        f"Others approve it with: ledgerctl approve {proposal_id}",
    ]


def find_proposal(desk: Desk, text: str) -> bytes:
    """Return the id of an open proposal from its beginning. Raises ConfigError."""
    from ledger.errors import ConfigError

    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        return bytes.fromhex(text)
    ids = [p["proposal_id"] for p in desk.get("/v1/proposals")["proposals"]]
    found = [one for one in ids if text and one.startswith(text)]
    if len(found) != 1:
        raise ConfigError(
            "not an open proposal" if not found else "more than one proposal begins so",
            where="PROPOSAL",
            expected=", ".join(found or ids) or "no proposal is open",
            actual=text,
        )
    return bytes.fromhex(found[0])


# -- parts ---------------------------------------------------------------------------------------------------------


def election(desk: Desk) -> str:
    """Return when the next election is, in words."""
    from node.cli.lines import utc

    view = desk.get("/v1/producers")
    seconds = max(0, view["next_epoch_ms"] // 1000 - time.time_ns() // 1_000_000_000)
    return f"in the first block from slot {view['next_epoch_slot']} on ({utc(view['next_epoch_ms'])}, in {seconds} s)"


def parse_roles(names: list[str]) -> int:
    """Return the sum of roles. Raises ConfigError."""
    from ledger.errors import ConfigError
    from ledger.genesis import Role

    for name in names:
        if name not in ROLE_NAMES:
            raise ConfigError("unknown role", where="--role", expected=" | ".join(ROLE_NAMES), actual=name)
    return sum({int(Role[name.upper()]) for name in names})


def parse_key_id(text: str) -> bytes:
    """Return the id of a key given by id, public key or file. Raises ConfigError."""
    from ledger.crypto import key_id_of
    from node.founding import parse_public_key

    if len(text) == 40 and not set(text) - set("0123456789abcdef"):
        return bytes.fromhex(text)
    return key_id_of(parse_public_key(text, where="KEY"))


def member_keys(node: str, submit: str, govern: str) -> list[MemberKey]:
    """Return the keys of a new member; a role without a key of its own goes to the node key."""
    from ledger.genesis import MemberKey, Role
    from node.founding import parse_public_key

    owner = parse_public_key(node, where="--with-node-key")
    roles: dict[bytes, int] = {owner: Role.NODE}
    for text, role, where in ((submit, Role.SUBMIT, "submit"), (govern, Role.GOVERN, "govern")):
        key = parse_public_key(text, where=f"--with-{where}-key") if text else owner
        roles[key] = roles.get(key, 0) | role
    return [MemberKey(key, int(role)) for key, role in roles.items()]


def checked(payload: Any) -> Any:
    """Return a payload or a part of one, its bounds checked as every node does. Raises EncodingError."""
    from ledger.codec import decode, encode

    return decode(encode(payload), type(payload))


def key_id_hex(public_key: bytes) -> str:
    """Return the id of a public key."""
    from ledger.crypto import key_id_of

    return key_id_of(public_key).hex()


def submit_transaction(
    file: Annotated[Path, typer.Argument(help="What --out wrote.")],
    node: signed.Nodes = None,
    token: Token = "",
    token_file: TokenFile = "",
    wait: signed.Wait = "final",
    timeout: signed.Timeout = 120,
    as_json: signed.Json = False,
) -> None:
    """Hand in a transaction that was signed elsewhere, and follow it until it is final."""
    from ledger.codec import decode
    from ledger.crypto import hash_of
    from ledger.errors import ConfigError, EncodingError
    from ledger.transaction import TRANSACTION_BYTES_MAX, Transaction
    from node.cli.lines import utc
    from node.cli.output import print_json, read_file
    from node.desk import follow, not_final, submit_to_any

    raw = read_file(str(file), bytes_max=TRANSACTION_BYTES_MAX)
    try:
        envelope = decode(raw, Transaction).envelope
    except EncodingError as error:
        raise ConfigError(
            f"not a signed transaction: {error.what}",
            where=str(file),
            expected="what ledgerctl wrote with --out; records go in with ledgerctl submit",
        ) from None
    tx_id = hash_of("tx", envelope).hex()
    client = submit_to_any(signed.make_clients(node, token, token_file), raw)
    state, height = "stored", None
    if wait != "stored":
        followed = follow(client, tx_id, timeout_s=timeout)
        if followed.state != "final":
            raise not_final(followed, tx_id, utc(envelope.expires_ms))
        state, height = followed.state, followed.height
    if as_json:
        print_json({"tx_id": tx_id, "state": state, "height": height})
    else:
        where = f"final at height {height}" if height is not None else f"stored by {client.url}"
        typer.echo(f"{envelope.kind.name.lower()} {tx_id} of {envelope.member_id}: {where}")


def register(app: typer.Typer, key_app: typer.Typer) -> None:
    """Add these commands to ``ledgerctl``."""
    commands: list[tuple[typer.Typer, str, Callable[..., Order]]] = [
        (key_app, "add", key_add),
        (key_app, "rotate", key_rotate),
        (key_app, "revoke", key_revoke),
        (candidate_app, "stand", stand),
        (candidate_app, "withdraw", withdraw),
        (propose_app, "admit", admit),
        (propose_app, "reweigh", reweigh),
        (propose_app, "remove", remove),
        (propose_app, "readmit", readmit),
        (propose_app, "seats", seats),
        (app, "delegate", delegate),
        (app, "approve", approve),
    ]
    for group, name, make in commands:
        group.command(name)(signed.signed(make))
    app.add_typer(candidate_app, name="candidate")
    app.add_typer(propose_app, name="propose")
    app.command("submit-transaction")(submit_transaction)
