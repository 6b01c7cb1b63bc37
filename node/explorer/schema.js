// Types of the protocol, with their bounds: from readable JSON, to and from the arrays that are encoded.
// A kind is {build, check, toWire}: `build` makes a value of JSON, `check` holds its bounds, `toWire` gives what is
// encoded, `fromWire` takes what was decoded.
// Source: docs/protocol.md, "Encoding" and "For people and other programs".

import { INT_MAX, ProofError, decode, encode, fromHex, isInteger } from "./wire.js";

function wrong(what, where, expected, actual = "") {
  return new ProofError(what, { where, expected, actual });
}

/** Tell whether a value is an object of JSON: such have no prototype, and fields of any name. */
export function isObject(value) {
  return value !== null && typeof value === "object" && Object.getPrototypeOf(value) === null;
}

function described(value) {
  if (Array.isArray(value)) return "an array";
  return isObject(value) ? "an object" : String(value);
}

const atOnce = { build: (value) => value, toWire: (value) => value, fromWire: (value) => value };

/** An integer from `least` to `greatest`. */
export function int(least, greatest) {
  return {
    ...atOnce,
    check(value, where) {
      if (!isInteger(value)) throw wrong("wrong type", where, "an integer", described(value));
      if (value < least || value > greatest) throw wrong("out of bounds", where, `${least} to ${greatest}`, value);
    },
  };
}

/** A byte string of `least` to `greatest` bytes. */
export function bytes(least, greatest = least) {
  return {
    ...atOnce,
    build(value, where) {
      const found = fromHex(value);
      if (found === null) throw wrong("not bytes", where, "lower-case hex", described(value));
      return found;
    },
    check(value, where) {
      if (!(value instanceof Uint8Array)) throw wrong("wrong type", where, "bytes");
      if (value.length < least || value.length > greatest) {
        throw wrong("wrong length", where, least === greatest ? `${least} bytes` : `${least} to ${greatest} bytes`);
      }
    },
  };
}

/** A string of a form. */
export function text(pattern) {
  return {
    ...atOnce,
    check(value, where) {
      if (typeof value !== "string") throw wrong("wrong type", where, "a string", described(value));
      if (!pattern.test(value)) throw wrong("not of the form that this field has", where, pattern.source, value);
    },
  };
}

/** One value and no other. */
export function exactly(expected) {
  return {
    ...atOnce,
    check(value, where) {
      if (value !== expected) throw wrong("not the one value that is known", where, expected, described(value));
    },
  };
}

/** An enumeration: names in JSON, numbers where it is encoded. */
export function named(names) {
  const kind = {
    names,
    build(value, where) {
      if (typeof value !== "string" || !Object.hasOwn(names, value)) {
        throw wrong("not a known name", where, Object.keys(names), described(value));
      }
      return value;
    },
    check(value, where) {
      if (!Object.hasOwn(names, value)) throw wrong("not a known value", where, Object.values(names), described(value));
    },
    toWire: (value) => names[value],
    fromWire: (value) => Object.keys(names).find((name) => names[name] === value) ?? value,
  };
  return kind;
}

/** Null, or a value of a kind. */
export function optional(kind) {
  return {
    build: (value, where) => (value === null ? null : kind.build(value, where)),
    check(value, where) {
      if (value !== null) kind.check(value, where);
    },
    toWire: (value) => (value === null ? null : kind.toWire(value)),
    fromWire: (value, where) => (value === null ? null : kind.fromWire(value, where)),
  };
}

/** An array of `least` to `greatest` values of a kind. */
export function list(kind, least, greatest) {
  function each(value, where, call) {
    if (!Array.isArray(value)) throw wrong("wrong type", where, "an array", described(value));
    return value.map((item, i) => call(item, `${where}[${i}]`));
  }
  return {
    build: (value, where) => each(value, where, kind.build),
    check(value, where) {
      if (value.length < least || value.length > greatest) {
        throw wrong("wrong number of elements", where, `${least} to ${greatest}`, value.length);
      }
      each(value, where, kind.check);
    },
    toWire: (value) => value.map(kind.toWire),
    fromWire: (value, where) => each(value, where, kind.fromWire),
  };
}

/** A struct: an object with exactly these fields in JSON, an array in this order where it is encoded. */
export function struct(name, fields) {
  const entries = Object.entries(fields);
  const at = (where, field) => (where ? `${where}.${field}` : field);
  return {
    fields,
    build(value, where) {
      if (!isObject(value)) {
        throw wrong("wrong type", where || name, "an object", described(value));
      }
      for (const field of Object.keys(value)) {
        if (!Object.hasOwn(fields, field)) throw wrong("unknown field", at(where, field), Object.keys(fields));
      }
      for (const [field] of entries) {
        if (!(field in value)) throw wrong("missing field", at(where, field));
      }
      return Object.fromEntries(entries.map(([field, kind]) => [field, kind.build(value[field], at(where, field))]));
    },
    check(value, where) {
      for (const [field, kind] of entries) kind.check(value[field], at(where, field));
    },
    toWire: (value) => entries.map(([field, kind]) => kind.toWire(value[field])),
    fromWire(value, where) {
      if (!Array.isArray(value) || value.length !== entries.length) {
        throw wrong("wrong type", where || name, `an array of ${entries.length}`, described(value));
      }
      return Object.fromEntries(
        entries.map(([field, kind], i) => [field, kind.fromWire(value[i], at(where, field))]),
      );
    },
  };
}

/** Return the value of `kind` that parsed JSON names. Throws ProofError whose `where` is the first field at fault. */
export function fromReadable(kind, value, where = "") {
  const built = kind.build(value, where);
  kind.check(built, where);
  return built;
}

/** Return the canonical encoding of a value of `kind`. */
export function encodeAs(kind, value) {
  return encode(kind.toWire(value));
}

/** Return the value of `kind` that `data` spells canonically, its bounds held. Throws ProofError. */
export function decodeAs(kind, data, where = "") {
  const value = kind.fromWire(decode(data), where);
  kind.check(value, where);
  return value;
}

export const count = int(0, INT_MAX);
export const u8 = int(0, 0xff);
export const u16 = int(0, 0xffff);
export const u32 = int(0, 0xffffffff);
export const timeMs = int(0, 4102444800000);
