"""``ledgerctl follow``: what becomes final, by proof and by nobody's word.

Source: docs/audit.md, "Following a chain".
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.checkpoints import read_checkpoint, read_genesis, write_checkpoint
from node.cli.verify_light import blame

if TYPE_CHECKING:
    from audit.follow import Follower, News
    from ledger.errors import InvalidProof

NOT_OK, NO_ANSWER = 1, 3
POLL_S_MIN, POLL_S_MAX = 0.2, 10.0


def follow(
    urls: Annotated[list[str], typer.Argument(help="APIs to follow; of several, none may contradict another.")],
    genesis: Annotated[Path, typer.Option(help="The genesis file you trust.")] = Path("genesis.json"),
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where to resume from, and to note how far it came; made where missing.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Verify up to now, and end.")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="Look at every header, however many there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print each final block once it is proven final: the genesis file is trusted, no node is.

    Ends with status 1 at the first lie, and says what it is. With --once it ends with 3 where a node does not answer
    or has not come as far as the checkpoint.
    """
    import time

    from audit.follow import Follower
    from audit.light import LightClient
    from ledger.errors import ConfigError, InvalidProof
    from node.light import ApiSource

    trusted = read_genesis(genesis)
    resumed = read_checkpoint(checkpoint)
    followers = []
    for url in urls:
        try:
            client = LightClient(trusted, resumed)
        except InvalidProof as error:
            raise ConfigError(
                f"not a checkpoint of this chain: {error}",
                where=str(checkpoint),
                hint="Choose another file; this one is not written over",
            ) from None
        followers.append(Follower(client, ApiSource(url), all_headers=headers))
    watch = Watch(followers, as_json=as_json)
    watch.tell_begin()
    wait_s = min(max(trusted.parameters.slot_ms / 1000, POLL_S_MIN), POLL_S_MAX)
    try:
        while watch.look():
            write_checkpoint(checkpoint, watch.best.client.checkpoint())
            if once:
                raise typer.Exit(watch.tell_end())
            time.sleep(wait_s)
    except KeyboardInterrupt:
        return
    raise typer.Exit(NOT_OK)


class Watch:
    """Several sources side by side, each followed for itself and held against the others."""

    def __init__(self, followers: list[Follower], *, as_json: bool) -> None:
        self._followers = followers
        self._as_json = as_json
        self._shown_height = followers[0].client.point.height
        self._shown_set = followers[0].client.trusted.set_id
        self._compared: dict[tuple[int, int], tuple[object, object]] = {}
        self.silent: dict[str, str] = {}

    @property
    def best(self) -> Follower:
        """Return the one that has come furthest."""
        return max(self._followers, key=lambda each: each.client.point.height)

    def look(self) -> bool:
        """Ask every source once and tell what is new; False where one lied, which is told."""
        from ledger.errors import InvalidProof

        for follower in self._followers:
            try:
                self._follow(follower)
            except InvalidProof as error:
                self._tell_lie(follower.source.name, error)
                return False
        ranked = sorted(self._followers, key=lambda each: each.client.point.height)
        for lower, higher in itertools.pairwise(ranked):
            try:
                self._compare(lower, higher)
            except InvalidProof as error:
                self._tell_lie(f"{lower.source.name} and {higher.source.name}", error)
                return False
        return True

    def _follow(self, follower: Follower) -> None:
        from node.client import ApiFault

        name = follower.source.name
        try:
            for news in follower.poll():
                self._tell_news(follower, news)
        except ApiFault as error:
            if name not in self.silent:
                typer.echo(f"{name}: {error.what}", err=True)
            self.silent[name] = error.what
            return
        self.silent.pop(name, None)

    def _compare(self, lower: Follower, higher: Follower) -> None:
        from node.client import ApiFault

        points = lower.client.point, higher.client.point
        pair = self._followers.index(lower), self._followers.index(higher)
        if self._compared.get(pair) == points:
            return
        try:
            lower.compare(higher)
        except ApiFault as error:
            self.silent[higher.source.name] = error.what
            return
        self._compared[pair] = points

    # -- what is told ----------------------------------------------------------------------------------------------

    def _emit(self, line: str, event: dict[str, Any]) -> None:
        from node.cli.output import print_line

        print_line(json.dumps(event) if self._as_json else line)

    def tell_begin(self) -> None:
        """Say from where on, to the person."""
        client = self._followers[0].client
        begin = "genesis" if client.final is None else f"height {client.point.height}, as the checkpoint says"
        typer.echo(f"chain {client.chain_id.hex()}, from {begin}", err=True)

    def _tell_news(self, follower: Follower, news: News) -> None:
        """Tell what one source proved, unless another did before."""
        from audit.follow import BecameFinal, Crossed
        from audit.light import point_of
        from ledger.readable import to_readable
        from node.cli.lines import describe_event

        if isinstance(news, BecameFinal):
            header = news.header
            if header.height <= self._shown_height:
                return
            self._shown_height = header.height
            event = {
                "event": "final",
                "height": header.height,
                "slot": header.slot,
                "id": point_of(header).block_id.hex(),
                "producer": follower.client.member_of(header.producer_key_id) or header.producer_key_id.hex(),
                "transactions": header.tx_count,
                "totals": to_readable(header.totals),
            }
            self._emit(f"{describe_event(event)}  by {event['producer']}", event)
        elif isinstance(news, Crossed):
            if news.last > self._shown_height:
                text = (
                    f"final  heights {news.first:,} to {news.last:,}, by the history of the next; --headers shows them"
                )
                self._emit(text, {"event": "crossed", "first": news.first, "last": news.last})
        elif news.new.set_id > self._shown_set:
            self._shown_set = news.new.set_id
            old, new = ([p.member_id for p in one.producers] for one in (news.old, news.new))
            changes = [f"+{name}" for name in new if name not in old] + [f"-{name}" for name in old if name not in new]
            what = " ".join(changes) or "other keys"
            text = f"voters set {news.new.set_id} follows at height {news.height}: {what}; {len(new)} vote"
            producers = to_readable(list(news.new.producers))
            event = {"event": "voters", "height": news.height, "set_id": news.new.set_id, "producers": producers}
            self._emit(text, event)

    def _tell_lie(self, name: str, error: InvalidProof) -> None:
        from audit.follow import TwoHistories

        event: dict[str, Any] = {"event": "not-ok", "source": name, "where": error.where, "what": error.what}
        event |= {"expected": error.expected, "actual": error.actual}
        text = f"NOT OK: {name}: {error}"
        if isinstance(error, TwoHistories):
            event["conflict"] = error.conflict.to_json()
            text = f"{text}\n{blame(error)}\n{json.dumps(event['conflict'], indent=2)}"
        self._emit(text, event)

    def tell_end(self) -> int:
        """Tell how far all was verified; return the exit status."""
        client = self.best.client
        behind = [each.source.name for each in self._followers if each.is_behind]
        for name in behind:
            typer.echo(f"{name}: behind height {client.point.height}, so nothing of it was verified", err=True)
        agree = len(self._followers) - len(self.silent) - len(behind)
        if not agree:
            return NO_ANSWER
        voters = ", ".join(p.member_id for p in client.trusted.producers)
        text = (
            f"OK: final at height {client.point.height} id {client.point.block_id.hex()}; "
            f"voting set {client.trusted.set_id}: {voters}"
        )
        asked = len(self._followers)
        text += f"; {agree} of {asked} nodes agree" if asked > 1 else ""
        event = {"event": "ok", "height": client.point.height, "id": client.point.block_id.hex()}
        self._emit(text, event | {"set_id": client.trusted.set_id, "sources": agree})
        return NO_ANSWER if self.silent or behind else 0
