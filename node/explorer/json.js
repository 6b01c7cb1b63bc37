// JSON read strictly: no field twice, and integers exact however large.
// JSON.parse takes the last of two fields of one name, and rounds integers beyond 2^53: another program could read
// something else in the same file.
// Source: docs/protocol.md, "For people and other programs".

import { ProofError, integer } from "./wire.js";

const DEPTH_MAX = 64;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const SPACE = /[ \t\n\r]*/y;
const LITERALS = { true: true, false: false, null: null };

/** A number with a fraction or exponent: no field of the protocol takes one. */
export class Fraction {
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }
}

/** Return the value of a JSON text. Throws ProofError for what is no JSON, and for a field given twice. */
export function parseJson(text) {
  const reader = { text, at: 0 };
  const value = readValue(reader, 0);
  skip(reader);
  if (reader.at !== text.length) throw invalid(reader);
  return value;
}

function invalid(reader) {
  return new ProofError("not valid JSON", { actual: `at character ${reader.at}` });
}

function match(reader, pattern) {
  pattern.lastIndex = reader.at;
  const found = pattern.exec(reader.text);
  if (found === null) throw invalid(reader);
  reader.at = pattern.lastIndex;
  return found[0];
}

function skip(reader) {
  match(reader, SPACE);
}

function has(reader, character) {
  skip(reader);
  if (reader.text[reader.at] !== character) return false;
  reader.at += 1;
  return true;
}

function need(reader, character) {
  if (!has(reader, character)) throw invalid(reader);
}

function readValue(reader, depth) {
  if (depth > DEPTH_MAX) throw invalid(reader);
  if (has(reader, "{")) return readObject(reader, depth);
  if (has(reader, "[")) return readArray(reader, depth);
  const next = reader.text[reader.at];
  if (next === '"') return readString(reader);
  for (const [name, value] of Object.entries(LITERALS)) {
    if (reader.text.startsWith(name, reader.at)) {
      reader.at += name.length;
      return value;
    }
  }
  const number = match(reader, NUMBER);
  return /[.eE]/.test(number) ? new Fraction(number) : integer(BigInt(number));
}

function readString(reader) {
  const start = reader.at;
  if (reader.text[start] !== '"') throw invalid(reader);
  let end = start + 1;
  while (end < reader.text.length && reader.text[end] !== '"') end += reader.text[end] === "\\" ? 2 : 1;
  try {
    const value = JSON.parse(reader.text.slice(start, end + 1));
    reader.at = end + 1;
    return value;
  } catch {
    throw invalid(reader);
  }
}

function readObject(reader, depth) {
  // Without a prototype: a field may be called "__proto__".
  const fields = Object.create(null);
  if (has(reader, "}")) return fields;
  do {
    skip(reader);
    const name = readString(reader);
    need(reader, ":");
    const value = readValue(reader, depth + 1);
    if (name in fields) throw new ProofError("given twice", { where: name });
    fields[name] = value;
  } while (has(reader, ","));
  need(reader, "}");
  return fields;
}

function readArray(reader, depth) {
  const items = [];
  if (has(reader, "]")) return items;
  do items.push(readValue(reader, depth + 1));
  while (has(reader, ","));
  need(reader, "]");
  return items;
}
