"""The tree of unfinal blocks, and the choice between its tips."""

from __future__ import annotations

from dataclasses import replace

from consensus.forkchoice import choose_head
from consensus.recovery import genesis_node
from consensus.tree import BlockNode, BlockTree
from consensus.votes import Checkpoint, Link
from ledger.block import Block, BlockId, Height, SealedHeader, Slot
from ledger.record_index import Overlay
from ledger.transition import ChainState
from node.sim.world import make_genesis
from tests.consensus.bench_kit import Bench


def shape() -> tuple[BlockTree, dict[str, BlockNode]]:
    """Return genesis with a - b - c and, from a, d - e, all sealed one slot after the other."""
    template = Bench()
    template.submit([1])
    block = template.seal(1)
    root = genesis_node(make_genesis(4))
    tree = BlockTree(root)
    nodes = {"root": root}
    for slot, (name, parent) in enumerate([("a", "root"), ("b", "a"), ("c", "b"), ("d", "a"), ("e", "d")]):
        up = nodes[parent]
        chain = ChainState(
            root.chain.chain_id,
            Height(up.height + 1),
            Slot(slot),
            BlockId(name.encode() * 32),
            root.chain.state,
            root.chain.history,
        )
        nodes[name] = up.child(_empty(block), chain, up.finality, root.schedule, Overlay())
        tree.add(nodes[name])
    return tree, nodes


def _empty(block: Block) -> Block:
    return Block(SealedHeader(block.sealed.header, block.sealed.signature, None), [])


def test_branch_goes_down_to_the_root() -> None:
    tree, nodes = shape()
    assert [n.block_id[:1] for n in nodes["c"].branch()][:3] == [b"c", b"b", b"a"]
    assert list(nodes["c"].branch())[-1] is tree.root
    assert sorted(n.block_id[:1] for n in tree.tips()) == [b"c", b"e"]


def test_longest_then_earliest_slot_wins() -> None:
    tree, nodes = shape()
    assert choose_head(tree.tips()) is nodes["c"]
    assert choose_head([nodes["d"], nodes["b"]]) is nodes["b"]
    assert choose_head([nodes["d"], nodes["c"]]) is nodes["c"]
    assert choose_head([nodes["b"], nodes["e"]]) is nodes["e"]


def test_lowest_id_breaks_the_last_tie() -> None:
    _, nodes = shape()
    chain = replace(nodes["d"].chain, height=nodes["b"].chain.height, slot=nodes["b"].chain.slot)
    nodes["d"].position = replace(nodes["d"].position, chain=chain)
    assert choose_head([nodes["d"], nodes["b"]]) is nodes["b"]


def test_a_justified_branch_beats_a_longer_one() -> None:
    tree, nodes = shape()
    tree.certify(nodes["d"])
    assert (nodes["d"].justified_height, nodes["e"].justified_height, nodes["c"].justified_height) == (2, 2, 0)
    assert choose_head(tree.tips()) is nodes["e"]


def test_a_child_inherits_what_is_justified_below_it() -> None:
    tree, nodes = shape()
    tree.certify(nodes["a"])
    assert [nodes[name].justified_height for name in "abcde"] == [1, 1, 1, 1, 1]


def test_advance_tells_what_is_final_and_what_is_abandoned() -> None:
    tree, nodes = shape()
    path, abandoned = tree.advance(nodes["b"])
    assert path == [nodes["a"], nodes["b"]]
    assert sorted(n.block_id[:1] for n in abandoned) == [b"d", b"e"]
    assert tree.root is nodes["b"]
    assert set(tree.nodes.values()) == {nodes["b"], nodes["c"]}
    assert list(nodes["c"].branch()) == [nodes["c"], nodes["b"]]


def test_a_link_below_the_root_stays_known_until_it_is_justified() -> None:
    tree, nodes = shape()
    genesis = nodes["root"].checkpoint
    tree.advance(nodes["b"])
    target = nodes["a"].checkpoint
    sets = nodes["root"].next_voting
    assert tree.votable_on_branch(nodes["c"], target) == (Link(genesis, target), sets)
    assert tree.votable_on_branch(nodes["c"], nodes["b"].checkpoint) == (nodes["b"].link, sets)
    assert tree.votable_on_branch(nodes["c"], Checkpoint(2, b"x" * 32)) is None
    assert tree.votable_on_branch(nodes["c"], Checkpoint(1, b"d" * 32)) is None


def test_empty_epochs_pass_at_once() -> None:
    _, nodes = shape()
    far = nodes["a"].schedule_at(10**12)
    assert far.epoch == 10**11
    assert nodes["a"].schedule_at(3) is nodes["a"].schedule
