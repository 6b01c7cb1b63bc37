"""The blocks above the final one, as a tree of what each made of the chain.

Source: docs/consensus.md, "Fork choice".
"""

from __future__ import annotations

from collections.abc import Iterator

from consensus.election import elect
from consensus.finality import BranchFinality
from consensus.schedule import Schedule, compute_schedule
from consensus.votes import Checkpoint, Link, VotingSet
from ledger.block import Block, BlockId
from ledger.record_index import Overlay
from ledger.transition import ChainState


class BlockNode:
    """A validated block in the tree, or the final block at its root.

    Attributes:
        block: None for genesis.
        chain: the chain after it.
        finality: what the certificates carried up to its header prove.
        schedule: of its epoch.
        voting: the sets that must sign a certificate on it, read off its parent's chain.
        overlay: what it counted.
        last_records_height: height of the last block with transactions up to here, 0 for none.
        certified: a certificate on it is known, from whatever source.
        justified_height: highest height known to be justified on its branch, itself included.
    """

    __slots__ = (
        "block",
        "certified",
        "chain",
        "children",
        "finality",
        "justified_height",
        "last_records_height",
        "overlay",
        "parent",
        "schedule",
        "voting",
    )

    def __init__(
        self,
        block: Block | None,
        chain: ChainState,
        finality: BranchFinality,
        schedule: Schedule,
        voting: tuple[VotingSet, ...],
        *,
        parent: BlockNode | None,
        overlay: Overlay,
        last_records_height: int,
    ) -> None:
        self.block = block
        self.chain = chain
        self.finality = finality
        self.schedule = schedule
        self.voting = voting
        self.parent = parent
        self.overlay = overlay
        self.last_records_height = last_records_height
        self.children: list[BlockNode] = []
        self.certified = False
        self.justified_height: int = parent.justified_height if parent else finality.justified.height

    @property
    def height(self) -> int:
        """Return its height."""
        return self.chain.height

    @property
    def slot(self) -> int:
        """Return its slot; -1 for genesis."""
        return self.chain.slot

    @property
    def block_id(self) -> BlockId:
        """Return its id."""
        return self.chain.block_id

    @property
    def checkpoint(self) -> Checkpoint:
        """Return it as source or target of a vote."""
        return Checkpoint(self.height, self.block_id)

    @property
    def link(self) -> Link:
        """Return the one link on which votes for this block count."""
        return Link(self.finality.justified, self.checkpoint)

    def child(
        self, block: Block, chain: ChainState, finality: BranchFinality, schedule: Schedule, overlay: Overlay
    ) -> BlockNode:
        """Return the node of a block on this one; it is not in the tree yet."""
        last = chain.height if block.body else self.last_records_height
        return BlockNode(
            block, chain, finality, schedule, self.voting, parent=self, overlay=overlay, last_records_height=last
        )

    def branch(self) -> Iterator[BlockNode]:
        """Return this block and its ancestors down to the root of the tree."""
        node: BlockNode | None = self
        while node is not None:
            yield node
            node = node.parent

    def schedule_at(self, slot: int) -> Schedule:
        """Return the schedule of ``slot`` for a child of this block: empty epochs pass in O(1)."""
        epoch = slot // self.schedule.epoch_slots
        if epoch == self.schedule.epoch:
            return self.schedule
        return compute_schedule(elect(self.chain.state), epoch, self.schedule.epoch_slots, self.finality.final.block_id)


class BlockTree:
    """The final block and everything validated above it."""

    def __init__(self, root: BlockNode, below: dict[bytes, Link] | None = None) -> None:
        self.root = root
        self.nodes: dict[bytes, BlockNode] = {root.block_id: root}
        self.below: dict[bytes, Link] = below or {}
        """Links of the root's ancestors above its justified block: a later header may still certify one of them."""

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

    def link_on_branch(self, tip: BlockNode, target: Checkpoint) -> tuple[Link, BlockNode | None] | None:
        """Return the link on which votes for ``target`` count, if it is ``tip`` or an ancestor, with its node.

        The node is None where the target lies below the root.
        """
        for here in tip.branch():
            if here.height == target.height:
                return (here.link, here) if here.block_id == target.block_id else None
        link = self.below.get(target.block_id)
        return (link, None) if link is not None and link.target == target else None

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
        passed = [self.root.link, *self.below.values(), *(node.link for node in path[:-1])]
        self.below = {link.target.block_id: link for link in passed if justified < link.target.height}
        self.nodes = keep
        self.root = new_root
        new_root.parent = None
        return path, abandoned
