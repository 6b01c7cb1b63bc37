"""The state tree against a full rebuild from its definition, with paths that collide in long prefixes."""

import random
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ledger.errors import InvalidProof
from ledger.statetree import EMPTY_HASH, StateProof, StateTree, verify_state_proof

# Few distinct paths that share prefixes of every length: leaves meet, collapse and move up all the time.
PATHS = st.builds(
    lambda depth, low: ((1 << depth) - 1 << (256 - depth) | low).to_bytes(32, "big"),
    st.sampled_from([0, 1, 2, 3, 7, 8, 9, 100, 250, 254]),
    st.integers(0, 3),
) | st.integers(0, 40).map(lambda i: sha256(b"%d" % i).digest())
VALUES = st.binary(max_size=3)


def naive_root(entries: dict[bytes, bytes], depth: int = 0) -> bytes:
    """The root by the definition, from nothing but the entries."""
    if not entries:
        return bytes(32)
    if len(entries) == 1:
        [(path, value)] = entries.items()
        return sha256(b"\x00" + path + value).digest()
    halves: list[dict[bytes, bytes]] = [{}, {}]
    for path, value in entries.items():
        halves[int.from_bytes(path, "big") >> (255 - depth) & 1][path] = value
    return sha256(b"\x01" + naive_root(halves[0], depth + 1) + naive_root(halves[1], depth + 1)).digest()


def tree_of(entries: dict[bytes, bytes]) -> StateTree:
    tree = StateTree.empty()
    for path, value in entries.items():
        tree = tree.set(path, value)
    return tree


class TreeMachine(RuleBasedStateMachine):
    """Any sequence of changes leaves the tree as a rebuild would, and older trees as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = StateTree.empty()
        self.entries: dict[bytes, bytes] = {}
        self.earlier: list[tuple[StateTree, bytes]] = []

    @rule(path=PATHS, value=VALUES)
    def set(self, path: bytes, value: bytes) -> None:
        self.tree = self.tree.set(path, value)
        self.entries[path] = value

    @rule(path=PATHS)
    def delete(self, path: bytes) -> None:
        self.tree = self.tree.delete(path)
        self.entries.pop(path, None)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def delete_present(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.entries)))
        self.tree = self.tree.delete(path)
        del self.entries[path]

    @rule()
    def check_root(self) -> None:
        self.earlier.append((self.tree, naive_root(self.entries)))

    @rule(path=PATHS)
    def check_proof(self, path: bytes) -> None:
        assert self.tree.get(path) == self.entries.get(path)
        proof = self.tree.prove(path)
        verify_state_proof(naive_root(self.entries), path, self.entries.get(path), proof)

    @invariant()
    def nothing_older_changed(self) -> None:
        for tree, root in self.earlier[-3:]:
            assert tree.root == root

    def teardown(self) -> None:
        assert self.tree.root == naive_root(self.entries)


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.dictionaries(PATHS, VALUES, max_size=20), st.randoms(use_true_random=False))
def test_root_is_independent_of_order(entries: dict[bytes, bytes], rng: random.Random) -> None:
    shuffled = list(entries.items())
    rng.shuffle(shuffled)
    assert tree_of(dict(shuffled)).root == tree_of(entries).root == naive_root(entries)


def test_small_trees_by_hand() -> None:
    low, high = bytes(32), b"\x80" + bytes(31)
    low_leaf = sha256(b"\x00" + low + b"a").digest()
    high_leaf = sha256(b"\x00" + high + b"b").digest()
    one = StateTree.empty().set(low, b"a")
    two = one.set(high, b"b")
    assert StateTree.empty().root == EMPTY_HASH == bytes(32)
    assert one.root == low_leaf
    assert two.root == sha256(b"\x01" + low_leaf + high_leaf).digest()
    assert two.delete(low).root == high_leaf


def test_paths_that_differ_in_the_last_bit_only() -> None:
    """The deepest tree there can be: 255 levels of one-sided nodes."""
    a, b = b"\xff" * 32, b"\xff" * 31 + b"\xfe"
    tree = tree_of({a: b"a", b: b"b"})
    assert tree.root == naive_root({a: b"a", b: b"b"})
    proof = tree.prove(a)
    assert len(proof.siblings) == 256
    verify_state_proof(tree.root, a, b"a", proof)
    assert tree.delete(a).root == sha256(b"\x00" + b + b"b").digest()


def test_a_change_that_changes_nothing_returns_the_same_tree() -> None:
    path, other = sha256(b"1").digest(), sha256(b"2").digest()
    tree = StateTree.empty().set(path, b"v")
    assert tree.set(path, b"v") is tree
    assert tree.delete(other) is tree


def test_an_empty_value_is_not_no_value() -> None:
    path = sha256(b"1").digest()
    tree = StateTree.empty().set(path, b"")
    assert tree.get(path) == b""
    verify_state_proof(tree.root, path, b"", tree.prove(path))
    with pytest.raises(InvalidProof):
        verify_state_proof(tree.root, path, None, tree.prove(path))


def test_a_change_costs_only_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One change in 4,096 entries hashes about log2(4,096) nodes again, not the tree."""
    tree = tree_of({sha256(b"%d" % i).digest(): b"v" for i in range(4096)})
    assert len(tree.root) == 32
    hashed = []
    real = sha256

    def counting(data: bytes) -> object:
        hashed.append(data)
        return real(data)

    monkeypatch.setattr("ledger.statetree.sha256", counting)
    changed = tree.set(real(b"7").digest(), b"w")
    assert changed.root != tree.root
    assert 12 <= len(hashed) <= 30


@given(st.dictionaries(PATHS, VALUES, max_size=12), PATHS, VALUES)
def test_a_proof_proves_nothing_else(entries: dict[bytes, bytes], path: bytes, value: bytes) -> None:
    tree = tree_of(entries)
    proof = tree.prove(path)
    actual = entries.get(path)
    verify_state_proof(tree.root, path, actual, proof)
    siblings = proof.siblings
    wrong: list[tuple[bytes, bytes, bytes | None, StateProof]] = [
        (sha256(tree.root).digest(), path, actual, proof),
        (tree.root, path[:-1], actual, proof),
        (tree.root, path, actual, msgspec.structs.replace(proof, siblings=(*siblings, bytes(32)))),
        (tree.root, path, actual, msgspec.structs.replace(proof, siblings=(*siblings, bytes(31)))),
        (tree.root, path, actual, msgspec.structs.replace(proof, siblings=(bytes(32),) * 257)),
        *(
            (
                tree.root,
                path,
                actual,
                msgspec.structs.replace(proof, siblings=siblings[:i] + siblings[i + 1 :]),
            )
            for i in range(len(siblings))
        ),
    ]
    if value != actual:
        wrong.append((tree.root, path, value, proof))
    if actual is not None:
        wrong += [
            (tree.root, path, None, proof),
            (tree.root, path, None, StateProof(siblings, path, actual)),
            (tree.root, path, actual, StateProof(siblings, path, actual)),
        ]
    else:
        wrong += [
            (tree.root, path, None, StateProof(siblings, proof.other_path[:-1], b"x")),
            (tree.root, path, None, StateProof(siblings, proof.other_path, proof.other_value + b"x")),
        ]
    for case in wrong:
        with pytest.raises(InvalidProof):
            verify_state_proof(*case)


def test_another_entry_off_the_way_proves_no_absence() -> None:
    """An entry that is in the tree, but elsewhere, must not stand in for an empty place."""
    a, b, c = (bytes([first]) + bytes(31) for first in (0x00, 0x40, 0x80))
    tree = tree_of({a: b"a", b: b"b", c: b"c"})
    with pytest.raises(InvalidProof) as caught:
        verify_state_proof(tree.root, c, None, StateProof(tree.prove(a).siblings, a, b"a"))
    assert caught.value.where == "other_path"


@given(
    st.binary(min_size=32, max_size=32),
    st.none() | st.binary(max_size=40),
    st.lists(st.binary(max_size=33), max_size=300),
    st.binary(max_size=33),
)
def test_arbitrary_proofs_are_refused_without_fault(
    path: bytes, value: bytes | None, siblings: list[bytes], other: bytes
) -> None:
    with pytest.raises(InvalidProof):
        verify_state_proof(sha256(b"root").digest(), path, value, StateProof(tuple(siblings), other, b""))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_path_of_another_length_is_refused(length: int) -> None:
    for use in (StateTree.empty().get, StateTree.empty().prove, StateTree.empty().delete):
        with pytest.raises(ValueError, match="32 bytes"):
            use(bytes(length))
