"""The blocks above the final one, as a tree of what each made of the chain.

Source: docs/consensus.md, "Fork choice".
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from consensus.epochs import NextEpoch, Position, begin_block, voting_sets
from consensus.finality import BranchFinality
from consensus.schedule import Schedule
from consensus.votes import Checkpoint, Link, VotingSet
from ledger.block import Block, BlockId
from ledger.record_index import Overlay
from ledger.state import State
from ledger.transition import ChainState


class BlockNode:
    """A validated block in the tree, or the final block at its root.

    Attributes:
        block: None for genesis.
        position: the chain after it, and what the certificates carried up to its header prove; the parts of it that
            are asked for all the time are attributes of their own.
        slot: -1 for genesis.
        checkpoint: it, as source or target of a vote.
        link: the one link on which votes for it count.
        schedule: of its epoch.
        voting: the sets that must sign a certificate on it, read off its parent's chain.
        next_voting: the sets that must sign one on a child of it, read off its own.
        overlay: what it counted.
        certified: a certificate on it is known, from whatever source.
        justified_height: highest height known to be justified on its branch, itself included.
    """

    __slots__ = (
        "_next_epoch",
        "block",
        "block_id",
        "certified",
        "chain",
        "checkpoint",
        "children",
        "finality",
        "height",
        "justified_height",
        "last_records_height",
        "link",
        "next_voting",
        "overlay",
        "parent",
        "position",
        "schedule",
        "slot",
        "voting",
    )

    def __init__(
        self,
        block: Block | None,
        position: Position,
        schedule: Schedule,
        voting: tuple[VotingSet, ...],
        *,
        parent: BlockNode | None,
        overlay: Overlay,
    ) -> None:
        self.block = block
        self.position = position
        self.chain: ChainState = position.chain
        self.finality: BranchFinality = position.finality
        self.last_records_height: int = position.last_records_height
        self.height: int = position.chain.height
        self.slot: int = position.chain.slot
        self.block_id: BlockId = position.chain.block_id
        self.checkpoint = Checkpoint(self.height, self.block_id)
        self.link = Link(self.finality.justified, self.checkpoint)
        self.schedule = schedule
        self.voting = voting
        self.parent = parent
        self.overlay = overlay
        self.children: list[BlockNode] = []
        self.certified = False
        self.justified_height: int = parent.justified_height if parent else position.finality.justified.height
        state = position.chain.state
        is_same = parent is not None and parent.chain.state.voting is state.voting
        self.next_voting: tuple[VotingSet, ...] = (
            parent.next_voting if parent is not None and is_same else voting_sets(state)
        )
        self._next_epoch: NextEpoch | None = None

    def child(
        self, block: Block, chain: ChainState, finality: BranchFinality, schedule: Schedule, overlay: Overlay
    ) -> BlockNode:
        """Return the node of a block on this one; it is not in the tree yet."""
        last = chain.height if block.body else self.last_records_height
        position = Position(chain, finality, last)
        return BlockNode(block, position, schedule, self.next_voting, parent=self, overlay=overlay)

    def voters_met(self, key_ids: AbstractSet[bytes]) -> set[bytes]:
        """Return the keys that vote on a child of this block and are of the members to whom ``key_ids`` belong.

        While a key rotates, the one with which a node meets others may not be the one with which it votes.
        """
        keys = self.chain.state.keys
        members = {keys[key_id].member_id for key_id in key_ids if key_id in keys}
        voters = (producer for voting_set in self.next_voting for producer in voting_set.producers)
        return {producer.key_id for producer in voters if producer.member_id in members}

    def branch(self) -> Iterator[BlockNode]:
        """Return this block and its ancestors down to the root of the tree."""
        node: BlockNode | None = self
        while node is not None:
            yield node
            node = node.parent

    def schedule_at(self, slot: int) -> Schedule:
        """Return the schedule of ``slot``, not before this block's, for a child of this block."""
        epoch = slot // self.schedule.epoch_slots
        return self.schedule if epoch == self.schedule.epoch else self._elected().schedule(epoch)

    def begin_child(self, slot: int, finality: BranchFinality) -> State:
        """Return the state before the transactions of a child in ``slot`` whose certificates prove ``finality``."""
        schedule = self.schedule_at(slot)
        election = None if schedule is self.schedule else self._elected().election
        return begin_block(self.position, schedule, election, slot, finality.final)

    def _elected(self) -> NextEpoch:
        if self._next_epoch is None:
            self._next_epoch = NextEpoch(self.position, self.schedule)
        return self._next_epoch


class Votable(NamedTuple):
    """How votes for a block count: on which link, and of which sets."""

    link: Link
    voting: tuple[VotingSet, ...]


class BlockTree:
    """The final block and everything validated above it."""

    def __init__(self, root: BlockNode, below: dict[bytes, Votable] | None = None) -> None:
        self.root = root
        self.nodes: dict[bytes, BlockNode] = {root.block_id: root}
        self.below: dict[bytes, Votable] = below or {}
        """The root's ancestors above its justified block: a later header may still certify one of them."""

    def add(self, node: BlockNode) -> None:
        """Add a child of a block in the tree."""
        assert node.parent is not None
        node.parent.children.append(node)
        self.nodes[node.block_id] = node

    def get(self, block_id: bytes) -> BlockNode | None:
        """Return the node of a block at or above the final one."""
        return self.nodes.get(block_id)

    def tips(self) -> list[BlockNode]:
        """Return the blocks without children."""
        return [node for node in self.nodes.values() if not node.children]

    def certify(self, node: BlockNode) -> None:
        """Note that a certificate on ``node`` is known: its descendants are on a justified branch."""
        node.certified = True
        stack = [node]
        while stack:
            here = stack.pop()
            if here.justified_height < node.height:
                here.justified_height = node.height
                stack.extend(here.children)

    def overlays(self, node: BlockNode) -> list[Overlay]:
        """Return what the blocks above the final one counted, up to ``node``."""
        return [here.overlay for here in node.branch() if here is not self.root]

    def votable_on_branch(self, tip: BlockNode, target: Checkpoint) -> Votable | None:
        """Return how votes for ``target`` count, if it is ``tip`` or an ancestor."""
        for here in tip.branch():
            if here.height == target.height:
                return Votable(here.link, here.voting) if here.block_id == target.block_id else None
        below = self.below.get(target.block_id)
        return below if below is not None and below.link.target == target else None

    def advance(self, new_root: BlockNode) -> tuple[list[BlockNode], list[BlockNode]]:
        """Make ``new_root`` the root. Return the blocks that became final, ascending, and those abandoned."""
        path = [node for node in new_root.branch() if node is not self.root][::-1]
        keep: dict[bytes, BlockNode] = {}
        stack = [new_root]
        while stack:
            here = stack.pop()
            keep[here.block_id] = here
            stack.extend(here.children)
        final = {node.block_id for node in path}
        abandoned = [n for i, n in self.nodes.items() if i not in keep and i not in final and n is not self.root]
        justified = new_root.finality.justified.height
        passed = [*self.below.values(), *(Votable(node.link, node.voting) for node in (self.root, *path[:-1]))]
        self.below = {v.link.target.block_id: v for v in passed if justified < v.link.target.height}
        self.nodes = keep
        self.root = new_root
        new_root.parent = None
        return path, abandoned
