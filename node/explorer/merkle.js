// Merkle trees of RFC 6962, and the sparse tree behind state_root.
// Source: docs/protocol.md, "Hashes, keys, signatures" and "State".

import { ProofError, hashOf, sameBytes, sha256 } from "./wire.js";

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

export function leafHash(data) {
  return sha256(LEAF, data);
}

export function nodeHash(left, right) {
  return sha256(NODE, left, right);
}

/** Return the root over items, each the data of one leaf. */
export async function rootOf(items) {
  if (!items.length) return sha256();
  let level = await Promise.all(items.map(leafHash));
  while (level.length > 1) {
    const above = [];
    for (let i = 0; i < level.length; i += 2) {
      above.push(i + 1 < level.length ? await nodeHash(level[i], level[i + 1]) : level[i]);
    }
    level = above;
  }
  return level[0];
}

/** Return the path of leaf `index` from the leaf upwards, over items as `rootOf` takes them. */
export async function inclusionPath(items, index) {
  const path = [];
  let level = await Promise.all(items.map(leafHash));
  for (let at = index; level.length > 1; at >>= 1) {
    if ((at ^ 1) < level.length) path.push(level[at ^ 1]);
    const above = [];
    for (let i = 0; i < level.length; i += 2) {
      above.push(i + 1 < level.length ? await nodeHash(level[i], level[i + 1]) : level[i]);
    }
    level = above;
  }
  return path;
}

/** Return the root that a path leads to from leaf `index` (a leaf hash) of `size`. Throws ProofError where there is
 * no such leaf, or the path is not of the length that this leaf has. */
export async function rootFromPath(leaf, index, size, path) {
  let position = BigInt(index);
  let last = BigInt(size) - 1n;
  if (position < 0n || position > last) {
    throw new ProofError("there is no such leaf", { where: "index", expected: `0 to ${last}`, actual: index });
  }
  let node = leaf;
  for (const sibling of path) {
    if (last === 0n) throw new ProofError("the path is too long", { where: "path", actual: `${path.length} hashes` });
    if (position & 1n || position === last) {
      node = await nodeHash(sibling, node);
      // The last node of a level without a sibling was carried up: skip the levels where that happened.
      while (!(position & 1n) && position) {
        position >>= 1n;
        last >>= 1n;
      }
    } else {
      node = await nodeHash(node, sibling);
    }
    position >>= 1n;
    last >>= 1n;
  }
  if (last) throw new ProofError("the path is too short", { where: "path", actual: `${path.length} hashes` });
  return node;
}

/** Throw ProofError unless `leaf` is leaf `index` of the tree of `size` leaves with this root. */
export async function verifyInclusion(leaf, index, size, path, root) {
  const actual = await rootFromPath(leaf, index, size, path);
  if (!sameBytes(actual, root)) {
    throw new ProofError("the proof leads to another root", { where: "root", expected: root, actual });
  }
}

/** Return the path of a state entry, whose key is an array of strings and byte strings. */
export function statePath(...key) {
  return hashOf("state", key);
}

/** Throw ProofError unless the state with this root has `value` (encoded) at `path`.
 * siblings: from the root downwards. */
export async function verifyPresence(root, path, value, siblings) {
  if (siblings.length > 256) {
    throw new ProofError("the way is too long", { where: "siblings", expected: "<= 256", actual: siblings.length });
  }
  let node = await sha256(LEAF, path, value);
  for (let depth = siblings.length - 1; depth >= 0; depth--) {
    const isRight = (path[depth >> 3] >> (7 - (depth & 7))) & 1;
    node = isRight ? await nodeHash(siblings[depth], node) : await nodeHash(node, siblings[depth]);
  }
  if (!sameBytes(node, root)) {
    throw new ProofError("the proof leads to another root", { where: "root", expected: root, actual: node });
  }
}
