"""The published vectors are those the code makes, and they hold when read back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ledger import merkle
from ledger.statetree import EMPTY_HASH, StateProof, verify_state_proof

ROOT = Path(__file__).parents[2]


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / name).read_text())
    return loaded


def test_every_file_is_what_make_vectors_writes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "make-vectors"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_merkle() -> None:
    vectors = load("merkle.json")
    hashes = [bytes.fromhex(text) for text in vectors["leaf_hashes"]]
    assert [merkle.leaf_hash(bytes.fromhex(text)) for text in vectors["leaves"]] == hashes
    roots = {case["size"]: bytes.fromhex(case["root"]) for case in vectors["roots"]}
    assert roots[8].hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    for case in vectors["inclusion"]:
        path = [bytes.fromhex(text) for text in case["path"]]
        index, size = case["index"], case["size"]
        merkle.verify_inclusion(hashes[index], index, size, path, roots[size])
    for case in vectors["consistency"]:
        path = [bytes.fromhex(text) for text in case["path"]]
        old, new = case["old_size"], case["new_size"]
        merkle.verify_consistency(old, new, roots[old], roots[new], path)


def test_state_tree() -> None:
    steps = load("state_tree.json")["steps"]
    for step in steps:
        for proof in step["proofs"]:
            verify_state_proof(
                bytes.fromhex(step["root"]),
                bytes.fromhex(proof["path"]),
                None if proof["value"] is None else bytes.fromhex(proof["value"]),
                StateProof(
                    tuple(bytes.fromhex(text) for text in proof["siblings"]),
                    bytes.fromhex(proof["other_path"]),
                    bytes.fromhex(proof["other_value"]),
                ),
            )
    assert bytes.fromhex(steps[-1]["root"]) == EMPTY_HASH
