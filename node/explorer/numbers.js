// What a search must not send: a telephone number or an address of a person would stand in the log of every proxy on the
// way, and finds nothing, since the chain holds none.

import { get } from "./api.js";

const SCHEME = /^(?:sips?|tel|callto|h323|xmpp|im|pres|mailto):/i;
const EXTENSION = /\s*(?:;|ext|x)[^\d]*\d*$/i;
const SEPARATORS = /[\s().\-‐-―/,_#*]/gu;
const SHORTEST = 5;
/** E.164 allows 15 digits; prefixes dialled before them add a few. Ids in full are longer. */
const LONGEST = 20;
const HEIGHT = /^#?[1-9][0-9,_]*$/;

export const WHY = "Not sent: this looks like a telephone number or an address. The chain holds neither, and what is searched "
  + "for may stand in a log on the way to the node.";
export const INSTEAD = "The beginning of an id that has digits only: write 0x before it.";

/** Return what a text may be: "person" for a number or address, "height" where only the chain's length tells, "" for neither. */
export function kindOf(text) {
  const word = text.normalize("NFKC").trim();
  if (SCHEME.test(word) || word.includes("@")) return "person";
  if (/^0x/i.test(word)) return "";
  const digits = word.replace(EXTENSION, "").replace(SEPARATORS, "");
  if (/^\+\p{Nd}/u.test(digits)) return "person";
  if (!/^\p{Nd}+$/u.test(digits)) return "";
  const length = [...digits].length;
  if (length < SHORTEST || length > LONGEST) return "";
  return HEIGHT.test(word) ? "height" : "person";
}

/** Tell whether a text must stay in the page. Asks the node for its height, and for nothing else, where that decides. */
export async function isPerson(text, signal) {
  const kind = kindOf(text);
  if (kind !== "height") return kind === "person";
  const { head } = await get("v1/head", { signal });
  return Number(text.normalize("NFKC").replace(SEPARATORS, "")) > head.height;
}
