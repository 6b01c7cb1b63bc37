"""The engine's memory, rebuilt from the store after a stop of any kind.

Source: docs/protocol.md, "Storage".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from consensus.epochs import Position, genesis_position, schedule_of, voting_sets
from consensus.finality import BranchFinality
from consensus.rows import FinalPoint, SetRow, VotableRow, read_block, read_final_point
from consensus.tree import BlockNode, BlockTree, Votable
from consensus.votes import Checkpoint, Link, VotingSet
from ledger.block import BlockId, Height, Slot
from ledger.errors import StoreDamaged
from ledger.genesis import Genesis, chain_id_of
from ledger.record_index import Overlay
from ledger.state import State, state_from_rows
from ledger.store import Space, Store, space_range
from ledger.transition import ChainState


def genesis_node(genesis: Genesis) -> BlockNode:
    """Return the tree's first root."""
    position = genesis_position(genesis)
    state = position.chain.state
    return BlockNode(None, position, schedule_of(state), voting_sets(state), parent=None, overlay=Overlay())


def restore_tree(genesis: Genesis, store: Store) -> BlockTree:
    """Return the tree with only its root, the final block. Raises StoreDamaged where the store contradicts itself."""
    point = read_final_point(store)
    if point is None:
        return BlockTree(genesis_node(genesis))
    chain_id = chain_id_of(genesis)
    block = read_block(store, point.block_id)
    if block is None or block.sealed.header.chain_id != chain_id:
        raise StoreDamaged(
            "the final block is missing or of another chain",
            where=f"height {point.height}",
            expected=f"chain {chain_id.hex()}",
            actual="no block" if block is None else block.sealed.header.chain_id.hex(),
            hint="Start with the genesis file of the chain in this data directory, or with an empty one",
        )
    state = state_from_rows(store.scan(*space_range(Space.STATE)), block.sealed.header.state_root)
    position, voting, votables = restore_position(point, chain_id, state)
    root = BlockNode(block, position, schedule_of(state), voting, parent=None, overlay=Overlay())
    return BlockTree(root, {votable.link.target.block_id: votable for votable in votables})


def restore_position(
    point: FinalPoint, chain_id: bytes, state: State
) -> tuple[Position, tuple[VotingSet, ...], list[Votable]]:
    """Return what ``make_final_point`` was given: the position, the sets that had to sign its block, those below it.

    state: after that block.
    """
    chain = ChainState(
        chain_id,
        Height(point.height),
        Slot(point.slot_after - 1),
        BlockId(point.block_id),
        state,
        point.frontier(),
    )
    finality = BranchFinality(
        Checkpoint(point.justified_height, point.justified_id),
        Checkpoint(point.branch_final_height, point.branch_final_id),
    )
    sets = {row.set_id: VotingSet(row.set_id, tuple(row.producers)) for row in point.sets}
    below = [
        Votable(
            Link(Checkpoint(row.s_height, row.s_id), Checkpoint(row.t_height, row.t_id)),
            tuple(sets[i] for i in row.set_ids),
        )
        for row in point.below
    ]
    return Position(chain, finality, point.last_records_height), tuple(sets[i] for i in point.set_ids), below


def final_point_of(tree: BlockTree) -> FinalPoint:
    """Return what must be stored to rebuild the root of ``tree``."""
    root = tree.root
    return make_final_point(root.position, root.voting, tree.below.values())


def make_final_point(position: Position, voting: Sequence[VotingSet], below: Iterable[Votable]) -> FinalPoint:
    """Return the row of a final block: ``voting`` had to sign it, ``below`` are ancestors that may yet be certified."""
    chain = position.chain
    votables = list(below)
    sets = {s.set_id: s for group in (voting, *(v.voting for v in votables)) for s in group}
    return FinalPoint(
        chain.height,
        chain.block_id,
        chain.slot + 1,
        chain.history.size,
        list(chain.history.subtrees),
        *position.finality.justified,
        *position.finality.final,
        position.last_records_height,
        [s.set_id for s in voting],
        [VotableRow(*v.link.source, *v.link.target, [s.set_id for s in v.voting]) for v in votables],
        [SetRow(set_id, list(s.producers)) for set_id, s in sorted(sets.items())],
    )
