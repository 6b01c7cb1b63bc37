"""Merkle trees against the definitions of RFC 6962, written out naively, and its best-known vectors."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle
from ledger.errors import InvalidProof

# The tree in the tests of Certificate Transparency's reference implementation: leaves, and root at each size.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(items: list[bytes]) -> bytes:
    """MTH(D[n]) of RFC 6962, section 2.1."""
    if not items:
        return sha256(b"").digest()
    if len(items) == 1:
        return sha256(b"\x00" + items[0]).digest()
    k = 1
    while k * 2 < len(items):
        k *= 2
    return sha256(b"\x01" + naive_root(items[:k]) + naive_root(items[k:])).digest()


def naive_path(index: int, items: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of RFC 6962, section 2.1.1."""
    if len(items) == 1:
        return []
    k = 1
    while k * 2 < len(items):
        k *= 2
    if index < k:
        return [*naive_path(index, items[:k]), naive_root(items[k:])]
    return [*naive_path(index - k, items[k:]), naive_root(items[:k])]


def naive_subproof(old: int, items: list[bytes], known: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b) of RFC 6962, section 2.1.2."""
    if old == len(items):
        return [] if known else [naive_root(items)]
    k = 1
    while k * 2 < len(items):
        k *= 2
    if old <= k:
        return [*naive_subproof(old, items[:k], known), naive_root(items[k:])]
    return [*naive_subproof(old - k, items[k:], False), naive_root(items[:k])]


def leaves_of(size: int) -> list[bytes]:
    return [merkle.leaf_hash(b"%d" % i) for i in range(size)]


@pytest.mark.parametrize("size", range(9))
def test_the_known_roots_of_certificate_transparency(size: int) -> None:
    assert merkle.root_of(CT_LEAVES[:size]).hex() == CT_ROOTS[size]


def test_the_known_proofs_of_certificate_transparency() -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in CT_LEAVES]
    path = merkle.inclusion_proof(hashes, 5)
    assert [node.hex() for node in path] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [node.hex() for node in merkle.consistency_proof(hashes, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_root_is_the_rfcs(items: list[bytes]) -> None:
    assert merkle.root_of(items) == naive_root(items)


def test_every_inclusion_proof_up_to_33_leaves() -> None:
    for size in range(1, 34):
        items = [b"%d" % i for i in range(size)]
        hashes = leaves_of(size)
        for index in range(size):
            path = merkle.inclusion_proof(hashes, index)
            assert path == naive_path(index, items)
            merkle.verify_inclusion(hashes[index], index, size, path, naive_root(items))


def test_every_consistency_proof_up_to_33_leaves() -> None:
    for size in range(34):
        items = [b"%d" % i for i in range(size)]
        hashes = leaves_of(size)
        for old in range(size + 1):
            path = merkle.consistency_proof(hashes, old)
            assert path == ([] if old == 0 else naive_subproof(old, items, True))
            merkle.verify_consistency(old, size, naive_root(items[:old]), naive_root(items), path)


@given(st.integers(1, 40), st.data())
def test_an_inclusion_proof_proves_nothing_else(size: int, data: st.DataObject) -> None:
    hashes = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(hashes, index)
    root = merkle.root(hashes)
    other = data.draw(st.integers(-1, size).filter(lambda i: i != index))
    wrong = [
        (hashes[index], other, size, path, root),
        (merkle.leaf_hash(b"x"), index, size, path, root),
        (hashes[index], index, size, [*path, root], root),
        (hashes[index], index, size, path, merkle.EMPTY_ROOT),
        (hashes[index][:-1], index, size, path, root),
        (hashes[index], index, size, path, b""),
        *((hashes[index], index, size, path[:i] + path[i + 1 :], root) for i in range(len(path))),
        *((hashes[index], index, size, [*path[:i], bytes(32), *path[i + 1 :]], root) for i in range(len(path))),
        *((hashes[index], index, size, [*path[:i], b"", *path[i + 1 :]], root) for i in range(len(path))),
    ]
    for case in wrong:
        with pytest.raises(InvalidProof):
            merkle.verify_inclusion(*case)


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_consistency_proof_proves_nothing_else(a: int, b: int) -> None:
    old, new = sorted((a, b))
    hashes = leaves_of(new)
    path = merkle.consistency_proof(hashes, old)
    old_root, new_root = merkle.root(hashes[:old]), merkle.root(hashes)
    wrong = [
        (new + 1, new, old_root, new_root, path),
        (-1, new, old_root, new_root, path),
        (old, new, bytes(32), new_root, path),
        (old, new, old_root[:-1], new_root, path),
        (old, new, old_root, new_root, [*path, bytes(32)]),
        *((old, new, old_root, new_root, path[:i] + path[i + 1 :]) for i in range(len(path))),
        *((old, new, old_root, new_root, [*path[:i], bytes(32), *path[i + 1 :]]) for i in range(len(path))),
    ]
    if old:
        wrong.append((old, new, old_root, bytes(32), path))
    for case in wrong:
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(*case)


def test_a_changed_leaf_is_not_consistent() -> None:
    """The new tree replaced leaf 3 of the old one: no proof made from it can lead to the old root."""
    old_root = merkle.root(leaves_of(6))
    forged = leaves_of(11)
    forged[3] = merkle.leaf_hash(b"forged")
    with pytest.raises(InvalidProof) as caught:
        merkle.verify_consistency(6, 11, old_root, merkle.root(forged), merkle.consistency_proof(forged, 6))
    assert caught.value.where == "old_root"


def test_a_proof_that_does_not_exist_is_refused() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            merkle.inclusion_proof(leaves_of(3), index)
    for old_size in (-1, 4):
        with pytest.raises(IndexError):
            merkle.consistency_proof(leaves_of(3), old_size)


@given(st.integers(-1, 2**64), st.integers(-1, 2**64), st.lists(st.binary(min_size=32, max_size=32), max_size=70))
def test_arbitrary_proofs_are_refused_without_fault(a: int, b: int, path: list[bytes]) -> None:
    with pytest.raises(InvalidProof):
        merkle.verify_inclusion(bytes(32), a, b, path, merkle.EMPTY_ROOT)
    with pytest.raises(InvalidProof):
        merkle.verify_consistency(a, b, bytes(32), merkle.leaf_hash(b"other"), path)


def test_a_frontier_grows_like_the_tree() -> None:
    frontier = merkle.Frontier()
    hashes = leaves_of(130)
    for size, leaf in enumerate(hashes):
        assert (frontier.size, frontier.root()) == (size, merkle.root(hashes[:size]))
        frontier = frontier.append(leaf)
    assert frontier.root() == merkle.root(hashes)


def test_a_frontier_goes_on_where_its_bytes_were_read_back() -> None:
    frontier = merkle.Frontier()
    for leaf in leaves_of(13):
        frontier = frontier.append(leaf)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(frontier), type=merkle.Frontier)
    assert again == frontier
    assert again.append(merkle.leaf_hash(b"13")).root() == merkle.root(leaves_of(14))


@pytest.mark.parametrize("wrong", [(3, [bytes(32)]), (0, [bytes(32)]), (1, []), (1, [b"short"]), (-1, [])])
def test_a_frontier_that_cannot_be_is_refused(wrong: tuple[int, list[bytes]]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, type=merkle.Frontier)
