// A receipt that shows some of a record's private fields, made where the private part is kept: in this browser.
// Source: docs/protocol.md, "Receipt" and "Private part".

import { inclusionPath } from "./merkle.js";
import { verifyReceipt } from "./receipt.js";
import { PRIVATE_FIELDS, PrivateField } from "./structs.js";
import { ProofError, fromHex, hashOf } from "./wire.js";

/**
 * Return the text of `receipt` with the fields `names` shown; it is verified before it is given out.
 *
 * kept: the private part as {name: {salt, value}}. Throws ProofError where the receipt is of another record.
 */
export async function revealFields(receipt, kept, names, genesis) {
  const leaves = [];
  for (const name of PRIVATE_FIELDS) {
    const field = { name, salt: fromHex(kept[name].salt), value: new TextEncoder().encode(kept[name].value) };
    leaves.push(await hashOf("private", PrivateField.toWire(field)));
  }
  const revealed = [];
  for (const [index, name] of PRIVATE_FIELDS.entries()) {
    if (!names.includes(name)) continue;
    const path = await inclusionPath(leaves, index);
    const packed = btoa(path.map((hash) => String.fromCharCode(...hash)).join(""));
    revealed.push({ name, value: kept[name].value, salt: kept[name].salt, path: packed });
  }
  const document = { ...JSON.parse(receipt), personal_data: 1, revealed };
  const lines = Object.entries(document).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const made = `{${lines.join(",\n")}}\n`;
  const { ok, where, what } = await verifyReceipt(made, genesis);
  if (!ok) throw new ProofError(what, { where });
  return made;
}
