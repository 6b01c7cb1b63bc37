"""``ledgerctl genesis`` and ``network``: founding a chain, and a whole one to try things out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ledger.genesis import Genesis
    from node.founding import Founder

genesis_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Found a chain, or look at one.")
network_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="A whole network on this machine.")


@genesis_app.callback()
def _genesis() -> None:
    """Found a chain, or look at one."""


@network_app.callback()
def _network() -> None:
    """Make a whole network on this machine."""


@genesis_app.command("new")
def new(
    name: Annotated[str, typer.Option(help="Name of the chain, as gsma-settlement-1.")],
    member: Annotated[
        list[str],
        typer.Option(
            help="ID:WEIGHT:NODE[:SUBMIT[:GOVERN]], each key a .pub or PEM file, or hex. A role without a key of its"
            " own goes to the node key. Once for each member."
        ),
    ],
    out: Annotated[str, typer.Option(help="Where to write it.")] = "genesis.json",
    endpoint: Annotated[list[str] | None, typer.Option(help="ID=ws://HOST:PORT where peers reach it.")] = None,
    zone: Annotated[
        list[str] | None, typer.Option(help="ID=ZONE where its electricity is from, as GB or US-CA.")
    ] = None,
    no_seat: Annotated[list[str] | None, typer.Option(help="ID of a member that does not stand for a seat.")] = None,
    start: Annotated[str, typer.Option(help="Start of slot 0: UTC, as 2027-01-01T00:00:00, or now.")] = "now",
    slot_ms: Annotated[int, typer.Option(help="Length of a slot.")] = 1_000,
    epoch_slots: Annotated[int, typer.Option(help="Slots between elections.")] = 3_600,
    producers: Annotated[int, typer.Option(help="Seats, at most 21; 4 or more bear a fault.")] = 21,
    max_unfinal: Annotated[int, typer.Option(help="Blocks without finality after which empty ones wait.")] = 100,
    heartbeat_slots: Annotated[int, typer.Option(help="An idle chain seals an empty block this often.")] = 60,
    record_window_days: Annotated[int, typer.Option(help="Records that ended longer ago are refused.")] = 35,
    block_records: Annotated[int, typer.Option(help="Records of a block at most.")] = 200_000,
    block_mib: Annotated[int, typer.Option(help="Transaction bodies of a block at most, MiB.")] = 64,
    member_share: Annotated[int, typer.Option(help="Thousandths of a block for one member at most.")] = 1_000,
    carbon_basis: Annotated[str, typer.Option(help="lifecycle | direct: what CO2 figures count.")] = "lifecycle",
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Write the genesis file of a new chain from the public keys of its founding members."""
    from ledger.genesis import Parameters, genesis_to_json
    from node.cli.output import write_new
    from node.founding import DAY_MS, make_genesis, parse_carbon_basis

    parameters = Parameters(
        slot_ms=slot_ms,
        epoch_slots=epoch_slots,
        producer_count=producers,
        max_unfinal=max_unfinal,
        heartbeat_slots=heartbeat_slots,
        record_window_ms=record_window_days * DAY_MS,
        block_records_max=block_records,
        block_bytes_max=block_mib * 1024 * 1024,
        member_share_milli=member_share,
        carbon_basis=parse_carbon_basis(carbon_basis),
    )
    founders = parse_founders(member, endpoint or [], zone or [], no_seat or [])
    genesis = make_genesis(name, founders, genesis_time_ms=parse_start(start), parameters=parameters)
    write_new(out, genesis_to_json(genesis), force=force)
    print_genesis(genesis, out)


@genesis_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A genesis file.")] = Path("genesis.json"),
    as_json: Annotated[bool, typer.Option("--json", help="The file itself, checked.")] = False,
) -> None:
    """Check a genesis file and show its chain: id, members, seats, rules, and how many faults it bears."""
    from ledger.genesis import GENESIS_BYTES_MAX, genesis_from_json, genesis_to_json
    from node.cli.output import print_line, read_file

    genesis = genesis_from_json(read_file(str(file), bytes_max=GENESIS_BYTES_MAX), where=str(file))
    if as_json:
        print_line(genesis_to_json(genesis).decode().rstrip())
    else:
        print_genesis(genesis, str(file))


@network_app.command("new")
def new_network(
    directory: Annotated[Path, typer.Argument(help="A new directory.")],
    members: Annotated[str, typer.Option(help="Names, separated by commas.")] = "alpha,beta,gamma,delta",
    slot_ms: Annotated[int, typer.Option(help="Length of a slot.")] = 500,
    epoch_slots: Annotated[int, typer.Option(help="Slots between elections; 40 let one see them happen.")] = 3_600,
    producers: Annotated[int, typer.Option(help="Seats, at most 21; 4 or more bear a fault.")] = 21,
    base: Annotated[int | None, typer.Option(help="First port; two for each node. [default: free ones]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write keys, secrets, tokens, genesis and a configuration for each node of a network on this machine."""
    import msgspec

    from node.cli.output import print_json, print_line
    from node.cluster import make_cluster
    from node.founding import DEFAULT_PARAMETERS

    cluster = make_cluster(
        directory,
        [name.strip() for name in members.split(",") if name.strip()],
        genesis_time_ms=time.time_ns() // 1_000_000,
        parameters=msgspec.structs.replace(
            DEFAULT_PARAMETERS, slot_ms=slot_ms, epoch_slots=epoch_slots, producer_count=producers
        ),
        base_port=base,
    )
    if as_json:
        nodes = [
            {"member_id": n.member_id, "config": str(n.config), "api": n.url, "token_file": str(n.home / "token")}
            for n in cluster.nodes
        ]
        print_json({"genesis": str(cluster.genesis_file), "nodes": nodes})
        return
    print_genesis(cluster.genesis, str(cluster.genesis_file))
    print_line("\nStart each node with:")
    for node in cluster.nodes:
        print_line(f"  ledgerd --config {node.config}    # API {node.url}, token in {node.home / 'token'}")


def parse_founders(members: list[str], endpoints: list[str], zones: list[str], no_seat: list[str]) -> list[Founder]:
    """Return the founders that the options name. Raises ConfigError."""
    from ledger.errors import ConfigError
    from node.founding import Founder, parse_public_key

    endpoint_of, zone_of = _pairs(endpoints, "--endpoint"), _pairs(zones, "--zone")
    founders = []
    for text in members:
        member_id, *rest = text.split(":")
        if not 2 <= len(rest) <= 4 or not rest[0].isascii() or not rest[0].isdigit():
            raise ConfigError(
                "not a member", where="--member", expected="ID:WEIGHT:NODE[:SUBMIT[:GOVERN]]", actual=text
            )
        where = f"--member {member_id}"
        keys = [parse_public_key(key, where=where) if key else None for key in (*rest[1:], "", "")]
        if keys[0] is None:
            raise ConfigError("a member needs a node key", where=where)
        founders.append(
            Founder(
                member_id,
                int(rest[0]),
                node=keys[0],
                submit=keys[1],
                govern=keys[2],
                endpoint=endpoint_of.pop(member_id, ""),
                grid_zone=zone_of.pop(member_id, ""),
                stands=member_id not in no_seat,
            )
        )
    known = {founder.member_id for founder in founders}
    for name in (*endpoint_of, *zone_of, *no_seat):
        if name not in known:
            raise ConfigError("no such member", where="--endpoint, --zone or --no-seat", actual=name)
    return founders


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    from ledger.errors import ConfigError

    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator or not value:
            raise ConfigError("not a pair", where=option, expected="ID=VALUE", actual=text)
        pairs[name] = value
    return pairs


def parse_start(text: str) -> int:
    """Return a start in UTC milliseconds. Raises ConfigError."""
    from datetime import UTC, datetime

    from ledger.errors import ConfigError

    if text == "now":
        return time.time_ns() // 1_000_000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "not a time", where="--start", expected="now, or as 2027-01-01T00:00:00", actual=text
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp()) * 1000


def print_genesis(genesis: Genesis, where: str) -> None:
    """Print what a founder wants to compare with the others, the chain id first."""
    from consensus.election import founding_state
    from consensus.params import faults_tolerated, quorum_of
    from ledger.genesis import Role, chain_id_of, rule_set_id_of
    from node.cli.lines import utc
    from node.cli.output import print_facts, print_line, print_rows

    producers = founding_state(genesis).voting.producers
    seats = {producer.member_id: rank for rank, producer in enumerate(producers)}
    parameters = genesis.parameters
    facts: dict[str, Any] = {
        "file": where,
        "chain_id": chain_id_of(genesis).hex(),
        "name": genesis.name,
        "start": utc(genesis.genesis_time_ms),
        "producers": len(producers),
        "quorum": quorum_of(len(producers)),
        "faults tolerated": faults_tolerated(len(producers)),
        "seats": parameters.producer_count,
        "slot_ms": parameters.slot_ms,
        "epoch_slots": f"{parameters.epoch_slots}, {parameters.epoch_slots * parameters.slot_ms / 1000:g} s",
        "record window": f"{parameters.record_window_ms / 86_400_000:g} days",
        "carbon basis": parameters.carbon_basis,
        "rule set": rule_set_id_of(genesis.rules).hex(),
        "rules": ", ".join(f"{rule.module} {rule.version}" for rule in genesis.rules.modules),
        "tables": ", ".join(table.table_id for table in genesis.rules.tables),
    }
    print_facts({"": facts})
    rows = []
    for member in genesis.members:
        roles = [str(Role(key.roles).name).lower().replace("|", "+") for key in member.keys]
        rows.append(
            {
                "member": member.member_id,
                "weight": member.weight,
                "seat": seats.get(member.member_id),
                "keys": ", ".join(roles),
                "endpoint": (member.candidate.endpoint if member.candidate else "") or None,
                "zone": (member.candidate.grid_zone if member.candidate else "") or None,
            }
        )
    print_line("")
    print_rows(rows, empty="no members")
