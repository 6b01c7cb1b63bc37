"""A producer that equivocates on command: the real node, whose engine signs more than it may when it is told to.

For tests and demonstrations of evidence. Start it as ``python scripts/equivocator_main.py --config NODE.toml`` in the
place of ``ledgerd --config NODE.toml`` (``LocalNode(place, program=EQUIVOCATOR)``), and tell it by signals:

* ``SIGUSR1``: beside its next vote it signs another for the same height (E1); with ``--surround`` one around it (E2).
* ``SIGUSR2``: beside its next block it seals another in the same slot.

It refuses to start on a chain of which any founder's endpoint, or any of its own addresses, is not on this machine:
what it does gets its member struck.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import node.node as node_module  # noqa: E402
from consensus.engine import Engine  # noqa: E402
from consensus.ready import Ready  # noqa: E402
from consensus.sealing import seal_block  # noqa: E402
from consensus.votes import Checkpoint, Link, digest_of, link_of  # noqa: E402
from ledger.block import Block, Vote, block_id_of  # noqa: E402
from ledger.errors import ConfigError, LedgerError  # noqa: E402
from ledger.record_index import SeenRecords  # noqa: E402
from ledger.transition import BodyBuilder, block_time_ms  # noqa: E402
from node.config import NodeConfig, load_config  # noqa: E402
from node.logs import get_log, set_up_logs  # noqa: E402
from node.runtime import read_genesis, run_node  # noqa: E402

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Orders:
    """What was asked for and is not done yet."""

    votes = 0
    blocks = 0
    is_surrounding = False


class Equivocator(Engine):
    """An engine that keeps its promises until it is told not to."""

    def take_ready(self) -> Ready:
        """Return what the engine says, and what it must not say beside it."""
        ready = super().take_ready()
        for message in list(ready.messages):
            if isinstance(message, Vote) and Orders.votes:
                self._say(ready, self._other_vote(message), "a second vote", height=message.t_height)
                Orders.votes -= 1
            elif isinstance(message, Block) and Orders.blocks:
                other = self._other_block(message)
                if other is not None:
                    self._say(ready, other, "a second block", slot=message.sealed.header.slot)
                    Orders.blocks -= 1
        return ready

    def _say(self, ready: Ready, message: Block | Vote, what: str, **facts: int) -> None:
        ready.messages.append(message)
        get_log("equivocator").warning("equivocates", what=what, **facts)

    def _other_vote(self, vote: Vote) -> Vote:
        """Return a vote for a block that nobody has: at the same height, or from below the source to far above."""
        link = link_of(vote)
        if Orders.is_surrounding and link.source.height:
            source, target = Checkpoint(0, self.chain_id), Checkpoint(link.target.height + 1, b"\xee" * 32)
        else:
            source, target = link.source, Checkpoint(link.target.height, b"\xee" * 32)
        signature = self._keys[vote.key_id].sign(digest_of(self.chain_id, Link(source, target)))
        return Vote(*source, *target, vote.key_id, signature)

    def _other_block(self, block: Block) -> Block | None:
        """Return another block of the slot, right in itself: without the last transaction, or the certificate."""
        header, certificate = block.sealed.header, block.sealed.certificate
        parent = self.tree.get(header.parent_id)
        if parent is None or not (block.body or certificate):
            return None
        body, carried = (block.body[:-1], certificate) if block.body else (block.body, None)
        finality = parent.finality.after(link_of(carried)) if carried else parent.finality
        seen = SeenRecords(self.index, self.tree.overlays(parent))
        time_ms = block_time_ms(self.genesis, header.slot)
        begin = parent.begin_child(header.slot, finality)
        builder = BodyBuilder(begin, parent.height + 1, time_ms, seen, self.pending.read_records)
        for item in body:
            builder.add(self.pending.transaction(item.tx_id))
        other = seal_block(parent, header.slot, self._keys[header.producer_key_id], builder, carried).block
        assert other is not None
        assert block_id_of(other.sealed.header) != block_id_of(header)
        return other


def check_chain_is_local(config: NodeConfig) -> None:
    """Raise ConfigError unless everybody on this chain is on this machine."""
    genesis = read_genesis(config)
    endpoints = {f"endpoint of {m.member_id}": m.candidate.endpoint for m in genesis.members if m.candidate}
    addresses = {"--listen": f"ws://{config.listen}", "--endpoint": config.endpoint, **endpoints}
    addresses |= {f"--peers {peer}": peer for peer in config.peers}
    for where, address in addresses.items():
        if address and urlsplit(address).hostname not in LOOPBACK:
            raise ConfigError("not on this machine: this program commits faults", where=where, actual=address)


def order(number: int, _frame: Any) -> None:
    """Take an order."""
    if number == signal.SIGUSR1:
        Orders.votes += 1
    else:
        Orders.blocks += 1


def main(arguments: list[str] | None = None) -> int:
    """Run the node of a configuration file until it is stopped; return the exit status."""
    parser = argparse.ArgumentParser(prog="equivocator", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the node, as for ledgerd")
    parser.add_argument("--surround", action="store_true", help="SIGUSR1 casts a surrounding vote instead")
    parser.add_argument("--log-format", default=None, help="auto | text | json")
    options = parser.parse_args(arguments)
    Orders.is_surrounding = options.surround
    try:
        config = load_config({"log_format": options.log_format}, os.environ, options.config)
        check_chain_is_local(config)
        set_up_logs(config.log_level, config.log_format)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, order)
        node_module.Engine = Equivocator  # type: ignore[misc]
        return run_node(config)
    except LedgerError as error:
        sys.stderr.write(f"equivocator: {error.sentence()}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
