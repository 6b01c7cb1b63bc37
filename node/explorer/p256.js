// Signatures on P-256 with WebCrypto, as the protocol has them: compressed keys, r || s, low s only.
// Source: docs/protocol.md, "Hashes, keys, signatures".

import { bigEndian, concat, hashOf, toBigInt, toHex } from "./wire.js";

export const FIELD = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
export const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const B = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256" };
const SIGNING = { name: "ECDSA", hash: "SHA-256" };

function modPow(base, exponent, modulus) {
  let result = 1n;
  let power = base % modulus;
  for (let left = exponent; left; left >>= 1n) {
    if (left & 1n) result = (result * power) % modulus;
    power = (power * power) % modulus;
  }
  return result;
}

/** Return the uncompressed point (04 || x || y) of a compressed one, null where it is no point of the curve. */
export function decompress(publicKey) {
  if (publicKey.length !== 33 || (publicKey[0] !== 2 && publicKey[0] !== 3)) return null;
  const x = toBigInt(publicKey.subarray(1));
  if (x >= FIELD) return null;
  const square = (((x * x + FIELD - 3n) % FIELD) * x + B) % FIELD;
  let y = modPow(square, (FIELD + 1n) / 4n, FIELD);
  if ((y * y) % FIELD !== square) return null;
  if ((y & 1n) !== BigInt(publicKey[0] & 1)) y = FIELD - y;
  return concat([4], publicKey.subarray(1), bigEndian(y, 32));
}

/** Return the compressed form of an uncompressed point. */
export function compress(point) {
  return concat([2 + (point[64] & 1)], point.subarray(1, 33));
}

/** Return the 20-byte id of a compressed public key. */
export async function keyIdOf(publicKey) {
  return (await hashOf("key", publicKey)).slice(0, 20);
}

const imported = new Map();

/** Return a WebCrypto key; a square root for each is paid once. */
function importKey(publicKey) {
  const name = toHex(publicKey);
  if (!imported.has(name)) {
    const point = decompress(publicKey);
    imported.set(name, point && crypto.subtle.importKey("raw", point, ALGORITHM, false, ["verify"]));
  }
  return imported.get(name);
}

/** Tell whether `signature` (r || s, low s) is by a compressed public key over SHA-256 of `message`. */
export async function isValidSignature(publicKey, message, signature) {
  if (signature.length !== 64) return false;
  const r = toBigInt(signature.subarray(0, 32));
  const s = toBigInt(signature.subarray(32));
  if (r === 0n || r >= ORDER || s === 0n || s > ORDER / 2n) return false;
  const key = await importKey(publicKey);
  return key !== null && crypto.subtle.verify(SIGNING, key, signature, message);
}

/** Return a fresh key pair whose private half can never leave the browser. */
export function generateKey() {
  return crypto.subtle.generateKey(ALGORITHM, false, ["sign", "verify"]);
}

/** Return the compressed public key (33 bytes) of a key pair. */
export async function publicKeyOf(pair) {
  return compress(new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)));
}

/** Return r || s with low s over SHA-256 of `message`. */
export async function sign(pair, message) {
  const signature = new Uint8Array(await crypto.subtle.sign(SIGNING, pair.privateKey, message));
  const s = toBigInt(signature.subarray(32));
  return s > ORDER / 2n ? concat(signature.subarray(0, 32), bigEndian(ORDER - s, 32)) : signature;
}
