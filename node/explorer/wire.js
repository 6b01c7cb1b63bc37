// Bytes as the protocol has them: hex, canonical MessagePack, SHA-256 and tagged hashes.
// Source: docs/protocol.md, "Encoding" and "Hashes, keys, signatures".
//
// Values: integers are numbers where a number holds them exactly and BigInt beyond 2^53; byte strings are Uint8Array.

/** Bytes, JSON or a proof that are not what they should be; `where` names the field or the step. */
export class ProofError extends Error {
  constructor(what, { where = "", expected = "", actual = "" } = {}) {
    super(where ? `${where}: ${what}` : what);
    this.name = "ProofError";
    this.what = what;
    this.where = where;
    this.expected = shown(expected);
    this.actual = shown(actual);
  }
}

/** Return a value as a person reads it: bytes as hex, lists with commas. */
export function shown(value) {
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(shown).join(", ");
  // An object of JSON has no prototype, and so no words for itself.
  return value !== null && typeof value === "object" && Object.getPrototypeOf(value) === null ? "an object" : String(value);
}

export const INT_MAX = 2n ** 63n - 1n;
const DEPTH_MAX = 32; // arrays in arrays; the deepest of the protocol has about ten

const utf8 = new TextEncoder();

/** Return a BigInt as a number where that is exact. */
export function integer(value) {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : BigInt(value);
}

export function isInteger(value) {
  return typeof value === "bigint" || Number.isSafeInteger(value);
}

export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return the bytes that lower-case hex spells, null where it is no such hex. */
export function fromHex(text) {
  if (typeof text !== "string" || !/^(?:[0-9a-f]{2})*$/.test(text)) return null;
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

export function concat(...parts) {
  const joined = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Tell whether two byte strings are the same. */
export function sameBytes(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Tell whether two protocol values are the same, whatever they are made of. */
export function same(a, b) {
  if (a instanceof Uint8Array) return b instanceof Uint8Array && sameBytes(a, b);
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, i) => same(item, b[i]));
  if (a !== null && typeof a === "object") {
    if (b === null || typeof b !== "object" || b instanceof Uint8Array || Array.isArray(b)) return false;
    return same(Object.entries(a), Object.entries(b));
  }
  return a === b;
}

/** Return the big-endian bytes of a non-negative integer. */
export function bigEndian(value, size) {
  const bytes = new Uint8Array(size);
  let left = BigInt(value);
  for (let i = size - 1; i >= 0; i--) {
    bytes[i] = Number(left & 0xffn);
    left >>= 8n;
  }
  return bytes;
}

export function toBigInt(bytes) {
  return bytes.length ? BigInt(`0x${toHex(bytes)}`) : 0n;
}

// -- MessagePack ----------------------------------------------------------------------------------------------------

/** Return the canonical MessagePack of integers, byte strings, strings, nulls and arrays of those. */
export function encode(value) {
  const parts = [];
  put(value, parts);
  return concat(...parts);
}

function put(value, parts) {
  if (value === null) parts.push(Uint8Array.of(0xc0));
  else if (value instanceof Uint8Array) parts.push(head(value.length, [0xc4, 0xc5, 0xc6]), value);
  else if (typeof value === "string") putText(value, parts);
  else if (Array.isArray(value)) {
    parts.push(value.length < 16 ? Uint8Array.of(0x90 | value.length) : head(value.length, [null, 0xdc, 0xdd]));
    for (const item of value) put(item, parts);
  } else if (isInteger(value)) parts.push(integerBytes(BigInt(value)));
  else throw new ProofError("cannot be encoded", { actual: typeof value });
}

function putText(text, parts) {
  const bytes = utf8.encode(text);
  parts.push(bytes.length < 32 ? Uint8Array.of(0xa0 | bytes.length) : head(bytes.length, [0xd9, 0xda, 0xdb]), bytes);
}

/** Return the type byte and length of a string or array; types are those for 1, 2 and 4 bytes of length. */
function head(length, [short, middle, long]) {
  if (length < 0x100 && short !== null) return Uint8Array.of(short, length);
  return length < 0x10000 ? concat([middle], bigEndian(length, 2)) : concat([long], bigEndian(length, 4));
}

function integerBytes(value) {
  if (value >= -32n && value < 128n) return Uint8Array.of(Number(value & 0xffn));
  for (const [size, type] of [[1, 0xcc], [2, 0xcd], [4, 0xce], [8, 0xcf]]) {
    const bits = BigInt(8 * size);
    if (value >= 0n && value < 1n << bits) return concat([type], bigEndian(value, size));
    if (value < 0n && value >= -(1n << (bits - 1n))) {
      return concat([type + 4], bigEndian(BigInt.asUintN(8 * size, value), size));
    }
  }
  throw new ProofError("an integer is too large", { actual: value });
}

/** Return the value that `bytes` spell canonically. Throws ProofError for anything else. */
export function decode(bytes) {
  const reader = { bytes, at: 0 };
  const value = take(reader, 0);
  if (reader.at !== bytes.length || !sameBytes(encode(value), bytes)) {
    throw new ProofError("this is not the canonical encoding of its value");
  }
  return value;
}

function take(reader, depth) {
  if (depth > DEPTH_MAX) throw new ProofError("nested too deep");
  const [type] = takeBytes(reader, 1);
  if (type < 0x80) return type;
  if (type >= 0xe0) return type - 0x100;
  if (type < 0x90) throw new ProofError("a map has no place here");
  if (type < 0xa0) return takeArray(reader, type & 0x0f, depth);
  if (type < 0xc0) return takeText(reader, type & 0x1f);
  if (type === 0xc0) return null;
  if (type >= 0xc4 && type <= 0xc6) return takeBytes(reader, takeNumber(reader, 1 << (type - 0xc4))).slice();
  if (type >= 0xcc && type <= 0xcf) return integer(toBigInt(takeBytes(reader, 1 << (type - 0xcc))));
  if (type >= 0xd0 && type <= 0xd3) {
    const size = 1 << (type - 0xd0);
    return integer(BigInt.asIntN(8 * size, toBigInt(takeBytes(reader, size))));
  }
  if (type >= 0xd9 && type <= 0xdb) return takeText(reader, takeNumber(reader, 1 << (type - 0xd9)));
  if (type >= 0xdc && type <= 0xdd) return takeArray(reader, takeNumber(reader, 2 << (type - 0xdc)), depth);
  throw new ProofError("a type that has no place here", { actual: type });
}

function takeBytes(reader, size) {
  if (reader.at + size > reader.bytes.length) throw new ProofError("the bytes end too early");
  reader.at += size;
  return reader.bytes.subarray(reader.at - size, reader.at);
}

function takeNumber(reader, size) {
  return Number(toBigInt(takeBytes(reader, size)));
}

function takeArray(reader, length, depth) {
  // Each element takes a byte at least: no room is made for what cannot follow.
  if (length > reader.bytes.length - reader.at) throw new ProofError("the bytes end too early");
  return Array.from({ length }, () => take(reader, depth + 1));
}

function takeText(reader, length) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(takeBytes(reader, length));
  } catch (error) {
    if (error instanceof ProofError) throw error;
    throw new ProofError("a string is not UTF-8");
  }
}

// -- hashes ---------------------------------------------------------------------------------------------------------

/** Return SHA-256 of the parts, one after another. */
export async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", concat(...parts)));
}

/** Return the bytes whose SHA-256 is `H(tag, data)`; `data` is encoded already. This is what WebCrypto signs. */
export function taggedBytes(tag, data) {
  return concat(utf8.encode(`ledgerd/${tag}/1\0`), data);
}

/** Return `H(tag, value)`. */
export function hashOf(tag, value) {
  return sha256(taggedBytes(tag, encode(value)));
}
