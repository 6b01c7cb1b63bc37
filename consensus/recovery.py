"""The engine's memory, rebuilt from the store after a stop of any kind.

Source: docs/protocol.md, "Storage".
"""

from __future__ import annotations

from consensus.election import elect
from consensus.finality import BranchFinality
from consensus.rows import FinalPoint, LinkRow, read_block, read_final_point
from consensus.schedule import compute_schedule
from consensus.tree import BlockNode, BlockTree
from consensus.votes import Checkpoint, Link, VotingSet
from ledger.block import BlockId, Height, Slot
from ledger.errors import StoreDamaged
from ledger.genesis import Genesis
from ledger.record_index import Overlay
from ledger.store import Store
from ledger.transition import ChainState, genesis_chain


def genesis_node(genesis: Genesis) -> BlockNode:
    """Return the tree's first root."""
    chain = genesis_chain(genesis)
    producers = elect(chain.state)
    here = Checkpoint(0, chain.block_id)
    return BlockNode(
        None,
        chain,
        BranchFinality(here, here),
        compute_schedule(producers, 0, genesis.parameters.epoch_slots, chain.block_id),
        (VotingSet(0, producers),),
        parent=None,
        overlay=Overlay(),
        last_records_height=0,
    )


def restore_tree(genesis: Genesis, store: Store) -> BlockTree:
    """Return the tree with only its root, the final block. Raises StoreDamaged where the store contradicts itself."""
    first = genesis_node(genesis)
    point = read_final_point(store)
    if point is None:
        return BlockTree(first)
    block = read_block(store, point.block_id)
    if block is None or block.sealed.header.chain_id != first.chain.chain_id:
        raise StoreDamaged(
            "the final block is missing or of another chain",
            where=f"height {point.height}",
            expected=f"chain {first.chain.chain_id.hex()}",
            actual="no block" if block is None else block.sealed.header.chain_id.hex(),
            hint="Start with the genesis file of the chain in this data directory, or with an empty one",
        )
    state = first.chain.state
    producers = elect(state)
    chain = ChainState(
        first.chain.chain_id,
        Height(point.height),
        Slot(point.slot_after - 1),
        BlockId(point.block_id),
        state,
        point.frontier(),
    )
    root = BlockNode(
        block,
        chain,
        BranchFinality(
            Checkpoint(point.justified_height, point.justified_id),
            Checkpoint(point.branch_final_height, point.branch_final_id),
        ),
        compute_schedule(producers, point.epoch_after - 1, genesis.parameters.epoch_slots, point.schedule_seed),
        first.voting,
        parent=None,
        overlay=Overlay(),
        last_records_height=point.last_records_height,
    )
    below = [Link(Checkpoint(r.s_height, r.s_id), Checkpoint(r.t_height, r.t_id)) for r in point.below]
    return BlockTree(root, {link.target.block_id: link for link in below})


def final_point_of(tree: BlockTree) -> FinalPoint:
    """Return what must be stored to rebuild the root of ``tree``."""
    root = tree.root
    return FinalPoint(
        root.height,
        root.block_id,
        root.slot + 1,
        root.chain.history.size,
        list(root.chain.history.subtrees),
        *root.finality.justified,
        *root.finality.final,
        root.schedule.epoch + 1,
        root.schedule.seed,
        root.last_records_height,
        [LinkRow(*link.source, *link.target) for link in tree.below.values()],
    )
