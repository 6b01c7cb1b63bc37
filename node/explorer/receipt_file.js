// The file of a receipt, format 3: readable JSON, with base64 for what only a program follows.
// Source: docs/protocol.md, "Receipt".

import { parseJson } from "./json.js";
import {
  bytes, count, decodeAs, exactly, fromReadable, int, isObject, list, optional, struct, text, timeMs,
} from "./schema.js";
import { CallRecord, Header, KeyEntry, PRODUCERS_MAX, PrivateField, Producer } from "./structs.js";
import { ProofError, toHex } from "./wire.js";

const RECEIPT_BYTES_MAX = 16 << 20;
const PATH_HASHES_MAX = 63;
const REVEALED_HASHES_MAX = 3; // a field is one of seven leaves

const packed = text(/^[^]{0,65536}$/);
const { fields: keyFields } = KeyEntry;
const { fields: producerFields } = Producer;

const SignedPart = struct("SignedPart", {
  signers: bytes(1, 3),
  signatures: list(bytes(64), 1, PRODUCERS_MAX),
});

const NamedKey = struct("NamedKey", {
  member_id: producerFields.member_id,
  public_key: producerFields.public_key,
});

const PendingPart = struct("PendingPart", { height: count, producers: list(NamedKey, 0, PRODUCERS_MAX) });

export const FinalProof = struct("FinalProof", {
  header: Header,
  pending: optional(PendingPart),
  siblings: list(bytes(32), 0, 256),
  t_id: bytes(32),
  parts: list(SignedPart, 1, 2),
});

const EnvelopePart = struct("EnvelopePart", {
  member_id: keyFields.member_id,
  created_ms: timeMs,
  expires_ms: timeMs,
  item_count: int(1, 1_000),
  items_root: bytes(32),
});

const KeyPart = struct("KeyPart", {
  public_key: keyFields.public_key,
  roles: keyFields.roles,
  standing: keyFields.standing,
  path: packed,
});

const ReceiptFile = struct("ReceiptFile", {
  version: exactly(3),
  personal_data: int(0, 1),
  chain_id: bytes(32),
  tx_id: bytes(32),
  index: count,
  void: int(0, 1),
  height: count,
  block_ms: timeMs,
  record: CallRecord,
  envelope: EnvelopePart,
  signature: bytes(64),
  key: KeyPart,
  item_path: packed,
  tx_index: count,
  tx_path: packed,
  void_bitmap: packed,
  header: optional(packed),
  history_path: packed,
  set_changes: list(packed, 0, Infinity),
  final: packed,
});

function fail(what, where, expected = "", actual = "") {
  throw new ProofError(what, { where, expected, actual });
}

/** Return {file, revealed} of a receipt's text; revealed is as JSON has it, undefined where there is none.
 * Throws ProofError naming the field that is missing, unknown, of the wrong type or out of bounds. */
export function readReceipt(receipt) {
  if (new TextEncoder().encode(receipt).length > RECEIPT_BYTES_MAX) fail("too large for a receipt", "receipt");
  let file;
  let revealed;
  try {
    const document = parseJson(receipt);
    if (document !== null && typeof document === "object" && "revealed" in document) {
      revealed = document.revealed;
      delete document.revealed;
      if (revealed === null) fail("wrong type", "revealed", "an array");
    }
    file = fromReadable(ReceiptFile, document);
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    const where = error.where === "" || error.where === "ReceiptFile" ? "receipt" : error.where;
    throw new ProofError(error.what, { ...error, where });
  }
  const expected = revealed === undefined ? 0 : 1;
  if (file.personal_data !== expected) {
    fail("1 where there are revealed fields, else 0", "personal_data", expected, file.personal_data);
  }
  return { file, revealed };
}

/** Return the bytes that base64 spells, in the one spelling they have. Throws ProofError. */
export function unpackBytes(value, where) {
  let found = null;
  try {
    found = atob(value);
  } catch {
    // Said below, as for another spelling.
  }
  if (found === null || btoa(found) !== value) fail("not bytes", where, "base64 with its padding");
  return Uint8Array.from(found, (character) => character.charCodeAt(0));
}

/** Return the hashes that a path holds. Throws ProofError. */
export function unpackPath(value, where, hashesMax = PATH_HASHES_MAX) {
  const data = unpackBytes(value, where);
  if (data.length % 32 || data.length > 32 * hashesMax) {
    fail("not a path", where, `at most ${hashesMax} hashes of 32 bytes`, `${data.length} bytes`);
  }
  return Array.from({ length: data.length / 32 }, (_, i) => data.subarray(32 * i, 32 * i + 32));
}

/** Return the struct that is packed in `value`. Throws ProofError. */
export function unpack(value, kind, where) {
  const data = unpackBytes(value, where);
  try {
    return decodeAs(kind, data);
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    throw new ProofError(error.what, { ...error, where: error.where ? `${where}.${error.where}` : where });
  }
}

/** Return [{field, path}] of what a receipt reveals. Throws ProofError where that is not as it should be. */
export function readRevealed(document) {
  if (!Array.isArray(document) || !document.length) fail("wrong type", "revealed", "an array of one field or more");
  return document.map((one, i) => readOne(one, `revealed[${i}]`));
}

function readOne(document, where) {
  if (!isObject(document)) fail("wrong type", where, "an object");
  const valueName = "value_hex" in document ? "value_hex" : "value";
  const wanted = ["name", valueName, "salt", "path"];
  for (const name of Object.keys(document)) if (!wanted.includes(name)) fail("unknown field", `${where}.${name}`);
  for (const name of wanted) if (!(name in document)) fail("missing field", `${where}.${name}`);
  const value = valueName === "value" ? utf8Hex(document.value, `${where}.value`) : document.value_hex;
  let field;
  try {
    field = fromReadable(PrivateField, Object.assign(Object.create(null), {
      name: document.name, salt: document.salt, value,
    }));
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    const name = error.where === "value" ? valueName : error.where;
    throw new ProofError(error.what, { ...error, where: `${where}.${name}` });
  }
  if (valueName === "value_hex" && isUtf8(field.value)) fail("these bytes are text", `${where}.value_hex`);
  if (typeof document.path !== "string") fail("wrong type", `${where}.path`, "base64");
  return { field, path: unpackPath(document.path, `${where}.path`, REVEALED_HASHES_MAX), where };
}

function utf8Hex(value, where) {
  if (typeof value !== "string" || !value.isWellFormed()) fail("not text", where, "Unicode without lone surrogates");
  return toHex(new TextEncoder().encode(value));
}

function isUtf8(data) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(data);
    return true;
  } catch {
    return false;
  }
}
