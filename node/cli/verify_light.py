"""What ``ledger-verify`` does without blocks: asks nodes for proofs, and holds notes against keys and quorums.

Source: docs/audit.md, "Since the last time", "Comparing nodes", "Notes and tiles".
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.errors import ConfigError, InvalidProof
from node.cli.checkpoints import read_genesis, read_seen, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.follow import Follower, TwoHistories
    from audit.light import LightClient, LightSource
    from audit.since import Earlier
    from ledger.genesis import Genesis

OK, NOT_OK, NOTHING = 0, 1, 2

Said = tuple[int, str, dict[str, Any]]
"""Exit status, the verdict as a line (or more) for a person, and the report."""


def genesis_of(path: Path | None) -> Genesis:
    """Return the genesis to trust: no node is asked for it. Raises ConfigError."""
    if path is None and not Path("genesis.json").is_file():
        raise ConfigError("no genesis file", where="--genesis", expected="the chain's genesis.json")
    return read_genesis(path or Path("genesis.json"))


# -- since the last time -----------------------------------------------------------------------------------------------


def verify_since(url: str, genesis_file: Path | None, since: Sequence[str], save: Path | None) -> Said:
    """Say whether a node's chain extends what was seen earlier, by proofs alone."""
    from node.light import ApiSource

    genesis = genesis_of(genesis_file)
    return say_since(ApiSource(url), genesis, read_seen(since, genesis), save)


def say_since(source: LightSource, genesis: Genesis, seen: Sequence[Earlier], save: Path | None) -> Said:
    """Hold a source against what was seen earlier, and keep a checkpoint of where it is now."""
    from audit.since import extend
    from ledger.genesis import chain_id_of

    report: dict[str, Any] = {"ok": False, "source": source.name, "chain_id": chain_id_of(genesis).hex()}
    report["since"] = [{"seen": one.name, "height": one.height} for one in seen]
    try:
        client = extend(genesis, source, seen)
    except InvalidProof as error:
        return NOT_OK, _lie(source.name, error), report | _facts(error)
    write_checkpoint(save, client.checkpoint())
    point = client.point
    report |= {"ok": True, "height": point.height, "head_id": point.block_id.hex(), "set_id": client.trusted.set_id}
    heights = ", ".join(f"{one.height:,}" for one in seen)
    line = f"OK: extends what was seen at height {heights}; {_final(client)}"
    return OK, line, report


def _final(client: LightClient) -> str:
    voters = ", ".join(producer.member_id for producer in client.trusted.producers)
    point = client.point
    return (
        f"final at height {point.height} id {point.block_id.hex()} by proofs; blocks were not looked at; "
        f"voting set {client.trusted.set_id}: {voters}"
    )


# -- comparing ---------------------------------------------------------------------------------------------------------


def compare_urls(urls: Sequence[str], genesis_file: Path | None) -> Said:
    """Say whether nodes have one history, and where they do not, where they part and who signed both."""
    from node.light import ApiSource

    if len(urls) < 2:
        raise ConfigError("nothing to compare", where="--compare", expected="the addresses of two nodes or more")
    return compare([ApiSource(url) for url in urls], genesis_of(genesis_file))


def compare(sources: Sequence[LightSource], genesis: Genesis) -> Said:
    """Verify each source from genesis on, then each pair of neighbours in height."""
    from audit.follow import Follower
    from audit.light import LightClient
    from ledger.genesis import chain_id_of
    from node.client import ApiFault

    report: dict[str, Any] = {"ok": False, "chain_id": chain_id_of(genesis).hex(), "nodes": []}
    followers: list[Follower] = []
    silent: list[str] = []
    for source in sources:
        follower = Follower(LightClient(genesis), source)
        node: dict[str, Any] = {"source": source.name}
        report["nodes"].append(node)
        try:
            follower.catch_up()
        except InvalidProof as error:
            return NOT_OK, _lie(source.name, error), report | _facts(error)
        except ApiFault as error:
            node["what"] = error.what
            silent.append(f"{source.name}: {error.what}")
            continue
        point = follower.client.point
        node |= {"height": point.height, "head_id": point.block_id.hex(), "set_id": follower.client.trusted.set_id}
        followers.append(follower)
    followers.sort(key=lambda each: each.client.point.height)
    try:
        found = _compare_neighbours(followers)
    except ApiFault as error:
        silent.append(error.what)
        found = None
    if found is not None:
        return NOT_OK, found[0], report | found[1]
    if silent:
        return NOTHING, "\n".join(silent), report
    heights = ", ".join(f"{one.source.name} {one.client.point.height:,}" for one in followers)
    return OK, f"OK: one history ({heights}); {_final(followers[-1].client)}", report | {"ok": True}


def _compare_neighbours(followers: Sequence[Follower]) -> tuple[str, dict[str, Any]] | None:
    """Return the first contradiction, as a line and as facts."""
    for lower, higher in itertools.pairwise(followers):
        try:
            lower.compare(higher)
        except InvalidProof as error:
            return _lie(f"{lower.source.name} and {higher.source.name}", error), _facts(error)
    return None


# -- what is said of a lie ---------------------------------------------------------------------------------------------


def _lie(name: str, error: InvalidProof) -> str:
    from audit.follow import TwoHistories

    line = f"NOT OK: {name}: {error}"
    if not isinstance(error, TwoHistories):
        return line
    kept = "--json FILE keeps the evidence: headers, proofs, and two contradicting votes of each."
    return "\n".join([line, *_parting(error), blame(error), kept])


def _parting(error: TwoHistories) -> list[str]:
    from audit.light import point_of

    fork = error.conflict.fork
    if fork is None:
        return []
    ids = " and ".join(point_of(side.header).block_id.hex() for side in fork.sides)
    return [f"The histories part at height {fork.height}: {ids}."]


def blame(error: TwoHistories) -> str:
    """Return what two histories prove about producers, in a sentence."""
    conflict = error.conflict
    names = [each.producer.member_id for each in conflict.accused]
    if not names:
        return "No two votes of one producer were found that contradict each other: ask both nodes for their headers."
    who = f"Proven to have voted for both: {', '.join(names)}."
    if len(names) > conflict.tolerated:
        return f"{who} The chain bears {conflict.tolerated} faulty, and these are {len(names)}."
    return f"{who} More than {conflict.tolerated} must have; the votes of the others are not at hand."


def _facts(error: InvalidProof) -> dict[str, Any]:
    from audit.follow import TwoHistories

    facts: dict[str, Any] = {"where": error.where, "what": error.what}
    facts |= {"expected": error.expected, "actual": error.actual}
    if isinstance(error, TwoHistories):
        facts["conflict"] = error.conflict.to_json()
    return facts


# -- notes -------------------------------------------------------------------------------------------------------------


def verify_note(
    data: bytes, genesis: Genesis, *, name: str, keys: Sequence[str] = (), since: Sequence[str] = ()
) -> Said:
    """Say whether a note is signed by keys, and is of a block that a quorum made final.

    keys: verifier keys, each of which must have signed. since: checkpoints from which the voting set is known.
    """
    from audit.lognote import check_note
    from audit.notes import parse_note_key
    from ledger.errors import BadSignature, EncodingError
    from ledger.genesis import chain_id_of

    wanted = [parse_note_key(text, where="--key") for text in keys]
    seen = read_seen(since, genesis)
    checkpoints = [one.checkpoint for one in seen if one.checkpoint is not None]
    report: dict[str, Any] = {"ok": False, "source": name, "chain_id": chain_id_of(genesis).hex()}
    try:
        found = check_note(data, genesis, keys=wanted, checkpoints=checkpoints)
    except (InvalidProof, BadSignature, EncodingError) as error:
        facts = {"where": error.where, "what": error.what, "expected": error.expected, "actual": error.actual}
        return NOT_OK, f"NOT OK: {error.sentence()}", report | facts
    report |= {"height": found.head.size, "history_root": found.head.root.hex(), "set_id": found.set_id}
    report["signed_by"] = [{"key": one.key.to_text(), "time_s": one.time_s} for one in found.signed]
    by = [_by(one.key.name, one.time_s) for one in found.signed]
    if found.set_id is not None:
        by.insert(0, f"final by voting set {found.set_id}")
    if not by:
        raise ConfigError(
            "nothing in the note can be verified" + (f": {found.unproven}" if found.unproven else ""),
            where=name,
            hint="Give --key with the log's verifier key, or --since with a checkpoint of its voting set",
        )
    line = f"OK: block {found.head.size:,}, history root {found.head.root.hex()}; {'; '.join(by)}"
    if found.unproven:
        line += f" ({found.unproven})"
    return OK, line, report | {"ok": True}


def _by(name: str, time_s: int | None) -> str:
    from datetime import UTC, datetime

    if time_s is None:
        return f"signed by {name}"
    try:
        when = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        when = f"{time_s} s"
    return f"witnessed by {name} at {when}"
