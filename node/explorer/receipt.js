// A receipt verified, step by step, with nothing but the receipt and the genesis: the same steps in the same order,
// and the same name for what fails, as ledger-verify.
// Source: docs/protocol.md, "Receipt" and "Following the voting sets".

import { foundingSet, readGenesis } from "./genesis.js";
import { leafHash, rootFromPath, statePath, verifyInclusion, verifyPresence } from "./merkle.js";
import { isValidSignature, keyIdOf } from "./p256.js";
import { FinalProof, readReceipt, readRevealed, unpack, unpackBytes, unpackPath } from "./receipt_file.js";
import { encodeAs } from "./schema.js";
import { BodyItem, CallRecord, Envelope, Header, KeyEntry, VotingEntry } from "./structs.js";
import { PRIVATE_FIELDS, PrivateField, ROLE } from "./structs.js";
import { ProofError, encode, hashOf, same, taggedBytes, toHex } from "./wire.js";

/**
 * Verify a receipt.
 *
 * receipt, genesis: the text of both files. trustedChainId: the genesis hash (hex) that the person trusts, empty to
 * take the genesis as it is. onStep: called with each step when it begins (ok null) and when it is done.
 *
 * Returns {ok, steps, where, what, expected, actual, verdict}: each step {name, title, ok, facts: [[label, value]]};
 * `where` names what failed, as ledger-verify does; `verdict` is what a good receipt proves.
 */
export async function verifyReceipt(receipt, genesis, trustedChainId = "", onStep = () => {}) {
  const steps = [];
  async function step(name, title, work) {
    const one = { name, title, ok: null, facts: [] };
    steps.push(one);
    onStep(one);
    try {
      const result = await work((label, value) => one.facts.push([label, value]));
      one.ok = true;
      return result;
    } catch (error) {
      one.ok = false;
      if (error instanceof ProofError) one.facts.push(...factsOf(error));
      throw error;
    } finally {
      onStep(one);
    }
  }
  try {
    const verdict = await verifyAll(receipt, genesis, trustedChainId, step);
    return { ok: true, steps, where: "", what: "", expected: "", actual: "", verdict };
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    const { where, what, expected, actual } = error;
    return { ok: false, steps, where, what, expected, actual, verdict: null };
  }
}

function factsOf({ where, what, expected, actual }) {
  return [["Fails at", where], ["Because", what], ["Expected", expected], ["Found", actual]].filter(([, text]) => text);
}

async function verifyAll(receiptText, genesisText, trustedChainId, step) {
  const title = trustedChainId ? "The genesis is the one you trust" : "The genesis is whole, and this is its hash";
  const chain = await step("genesis", title, (note) => checkGenesis(genesisText, trustedChainId, note));
  const { file, revealed } = await step("file", "The file is a receipt", (note) => {
    note("Size", `${new TextEncoder().encode(receiptText).length} bytes`);
    return readReceipt(receiptText);
  });
  await step("chain_id", "The receipt is of this chain", (note) => {
    checkEqual("chain_id", chain.chainId, file.chain_id);
    note("Chain id", toHex(file.chain_id));
  });
  const context = { ...chain, file };
  await step("transaction", "The record is in the transaction its member signed", (note) =>
    checkTransaction(context, note));
  await step("block", "The transaction is in the block", (note) => {
    context.final = unpack(file.final, FinalProof, "final");
    context.header = file.header === null ? context.final.header : unpack(file.header, Header, "header");
    return checkBlock(context, note);
  });
  const { final, header } = context;
  await step("key", "The key is one of the member's, for records", (note) => checkKey(context, note));
  await step("signature", "The member's signature holds", (note) => checkSignature(context, note));
  const blockId = await hashOf("header", Header.toWire(header));
  await step("history", "The block is in the history of the final one", (note) =>
    checkHistory(context, blockId, note));
  const trusted = await step("voting_sets", "The voting set follows from that of genesis", (note) =>
    followSets(context, note));
  await step("final", "A quorum of that set made the block final", async (note) => {
    await checkVoting(final, trusted, chain.chainId, "final", note);
  });
  if (revealed !== undefined) {
    await step("revealed", "The private fields shown are those committed to", (note) =>
      checkRevealed(revealed, file.record.party_commitment, note));
  }
  return verdictOf(file, trusted, final, blockId, revealed);
}

function verdictOf(file, trusted, final, blockId, revealed) {
  return {
    record: file.record,
    member_id: file.envelope.member_id,
    tx_id: toHex(file.tx_id),
    index: file.index,
    void: file.void === 1,
    height: file.height,
    block_id: toHex(blockId),
    block_ms: file.block_ms,
    final_height: final.header.height,
    set_id: trusted.setId,
    revealed: revealed ?? [],
  };
}

function checkEqual(where, expected, actual) {
  if (!same(expected, actual)) throw new ProofError("does not follow from the rest", { where, expected, actual });
}

async function checkGenesis(genesisText, trustedChainId, note) {
  const chain = await readGenesis(genesisText);
  note("Name", chain.genesis.name);
  note("Hash, computed here", toHex(chain.chainId));
  if (trustedChainId && trustedChainId !== toHex(chain.chainId)) {
    throw new ProofError("this genesis is not the one you trust", {
      where: "genesis", expected: trustedChainId, actual: chain.chainId,
    });
  }
  return chain;
}

async function checkPath(where, leaf, index, size, path, root, note) {
  const hashes = unpackPath(path, where);
  note("Leaf", toHex(leaf));
  note("Place", `${index} of ${size}, ${hashes.length} hashes up`);
  note("Root it leads to", toHex(root));
  try {
    await verifyInclusion(leaf, index, size, hashes, root);
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    const place = error.where === "" || error.where === "path" ? where : `${where}.${error.where}`;
    throw new ProofError(error.what, { ...error, where: place });
  }
}

async function checkTransaction({ file, chainId }, note) {
  const part = file.envelope;
  const leaf = await leafHash(encodeAs(CallRecord, file.record));
  await checkPath("item_path", leaf, file.index, part.item_count, file.item_path, part.items_root, note);
  const envelope = {
    version: 1, chain_id: chainId, kind: "records", ...part, key_id: await keyIdOf(file.key.public_key),
  };
  const txId = await hashOf("tx", Envelope.toWire(envelope));
  note("Id, computed here", toHex(txId));
  checkEqual("tx_id", txId, file.tx_id);
}

/** Tell whether record `index` is void; what lies beyond the bitmap's end is not. */
function isVoid(bitmap, index) {
  const byte = Number(BigInt(index) >> 3n);
  return byte < bitmap.length && ((bitmap[byte] >> Number(BigInt(index) & 7n)) & 1) === 1;
}

async function checkBlock({ file, header, genesis, chainId }, note) {
  const bitmap = unpackBytes(file.void_bitmap, "void_bitmap");
  const leaf = await leafHash(encode(BodyItem.toWire({ tx_id: file.tx_id, void_bitmap: bitmap })));
  await checkPath("tx_path", leaf, file.tx_index, header.tx_count, file.tx_path, header.tx_root, note);
  const bitmapBytes = (file.envelope.item_count + 7) >> 3;
  if (bitmap.length !== 0 && bitmap.length !== bitmapBytes) {
    throw new ProofError("the bitmap does not fit the transaction", { where: "void_bitmap", expected: bitmapBytes });
  }
  checkEqual("void", isVoid(bitmap, file.index) ? 1 : 0, file.void);
  note("Counts", file.void ? "no: its call and leg were recorded before" : "yes");
  checkEqual("header.chain_id", chainId, header.chain_id);
  checkEqual("height", header.height, file.height);
  const blockMs = BigInt(genesis.genesis_time_ms) + BigInt(header.slot) * BigInt(genesis.parameters.slot_ms);
  if (blockMs !== BigInt(file.block_ms)) {
    throw new ProofError("does not follow from the rest", {
      where: "block_ms", expected: blockMs, actual: file.block_ms,
    });
  }
  note("Block", `height ${file.height}, slot ${header.slot}`);
}

async function checkKey({ file, final }, note) {
  const { public_key, roles, standing, path } = file.key;
  if (!(roles & ROLE.submit)) {
    throw new ProofError("the key may not submit", { where: "key.roles", expected: "a submit key", actual: roles });
  }
  const entry = { member_id: file.envelope.member_id, public_key, roles, standing };
  const siblings = unpackPath(path, "key.path", 256);
  const keyId = await keyIdOf(public_key);
  note("Key", `${toHex(keyId)} of ${entry.member_id}, ${standing}`);
  note("Hashes to the root", String(siblings.length));
  try {
    const root = final.header.state_root;
    await verifyPresence(root, await statePath("key", keyId), encodeAs(KeyEntry, entry), siblings);
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    throw new ProofError(error.what, { ...error, where: "key.path" });
  }
}

async function checkSignature({ file, chainId }, note) {
  const envelope = {
    version: 1, chain_id: chainId, kind: "records", ...file.envelope, key_id: await keyIdOf(file.key.public_key),
  };
  const message = taggedBytes("tx", encodeAs(Envelope, envelope));
  note("Signature", toHex(file.signature));
  note("By", toHex(file.key.public_key));
  if (!(await isValidSignature(file.key.public_key, message, file.signature))) {
    throw new ProofError("the submitter's signature does not verify", { where: "signature", actual: file.signature });
  }
}

async function checkHistory({ file, final }, blockId, note) {
  note("Id, computed here", toHex(blockId));
  if (file.header === null) {
    checkEqual("history_path", "", file.history_path);
    note("The final block itself", `height ${file.height}`);
    return;
  }
  const { height, history_root: root } = final.header;
  await checkPath("history_path", await leafHash(blockId), file.height, height, file.history_path, root, note);
}

async function followSets({ file, genesis, chainId }, note) {
  let trusted = await foundingSet(genesis);
  note("Set 0, of genesis", names(trusted));
  for (const [number, value] of file.set_changes.entries()) {
    const where = `set_changes[${number}]`;
    const change = unpack(value, FinalProof, where);
    const pending = await checkVoting(change, trusted, chainId, where, () => {});
    if (pending === null) {
      throw new ProofError("no change of the voting set", {
        where: `${where}.pending`, expected: "the set to come",
      });
    }
    trusted = pending;
    note(`Set ${trusted.setId}, agreed on at height ${change.header.height}`, names(trusted));
  }
  return trusted;
}

function names({ producers }) {
  return producers.map((producer) => producer.member_id).join(", ");
}

/** Check that a block is final by the word of the trusted set; return the set to come, null where there is none. */
async function checkVoting(proof, trusted, chainId, where, note) {
  const { header, siblings, parts } = proof;
  checkEqual(`${where}.header.chain_id`, chainId, header.chain_id);
  const pending = await pendingOf(proof);
  const voting = { set_id: trusted.setId, producers: trusted.producers, pending };
  try {
    await verifyPresence(header.state_root, await statePath("voting"), encodeAs(VotingEntry, voting), siblings);
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    throw new ProofError(error.what, { ...error, where: `${where}.siblings` });
  }
  const next = pending && { setId: trusted.setId + 1, producers: pending.producers };
  const sets = next ? [trusted, next] : [trusted];
  if (parts.length !== sets.length) {
    throw new ProofError("signed by other sets", {
      where: `${where}.certificate.parts`, expected: sets.length, actual: parts.length,
    });
  }
  const id = await hashOf("header", Header.toWire(header));
  const link = [chainId, header.height, id, BigInt(header.height) + 1n, proof.t_id];
  const message = taggedBytes("vote", encode(link));
  note("Final block", `height ${header.height}, ${toHex(id)}`);
  for (const [i, part] of parts.entries()) await checkPart(part, sets[i], message, `${where}.certificate`, note);
  return next;
}

async function pendingOf({ pending }) {
  if (pending === null) return null;
  const producers = await Promise.all(pending.producers.map(async ({ member_id, public_key }) => ({
    member_id, key_id: await keyIdOf(public_key), public_key,
  })));
  return { height: pending.height, producers };
}

async function checkPart(part, { setId, producers }, message, where, note) {
  const size = producers.length;
  const signers = bits(part.signers);
  if (part.signers.length !== (size + 7) >> 3 || (signers.length && signers.at(-1) >= size)) {
    throw new ProofError("the bitmap does not fit the set", {
      where: `${where}.parts.signers`, expected: `${size} producers`,
    });
  }
  const quorum = Math.floor((2 * size) / 3) + 1;
  if (signers.length !== quorum || part.signatures.length !== signers.length) {
    throw new ProofError("not a quorum", {
      where: `${where}.parts.signers`, expected: quorum, actual: signers.length,
    });
  }
  for (const [i, signer] of signers.entries()) {
    if (!(await isValidSignature(producers[signer].public_key, message, part.signatures[i]))) {
      throw new ProofError("the signature does not verify", {
        where: `${where}.parts.signatures`, actual: part.signatures[i],
      });
    }
  }
  note(`Signed, of set ${setId}`, signers.map((signer) => producers[signer].member_id).join(", "));
  note("Quorum", `${quorum} of ${size}`);
}

/** Return the set bits of a bitmap, ascending, lowest bit of the first byte first. */
function bits(bitmap) {
  return Array.from(bitmap).flatMap((byte, i) => [0, 1, 2, 3, 4, 5, 6, 7].filter((b) => (byte >> b) & 1)
    .map((b) => 8 * i + b));
}

async function checkRevealed(document, commitment, note) {
  let before = -1;
  for (const { field, path, where } of readRevealed(document)) {
    const index = PRIVATE_FIELDS.indexOf(field.name);
    const data = await hashOf("private", PrivateField.toWire(field));
    let root = null;
    try {
      root = await rootFromPath(await leafHash(data), index, PRIVATE_FIELDS.length, path);
    } catch (error) {
      if (!(error instanceof ProofError)) throw error;
    }
    if (root === null || !same(root, commitment)) {
      throw new ProofError("name, value, salt and path do not lead to the record's party_commitment", { where });
    }
    if (index <= before) throw new ProofError("not in their order, once each", { where: `${where}.name` });
    before = index;
    note(field.name, new TextDecoder().decode(field.value));
  }
}
