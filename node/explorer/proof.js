// A record's proof, verified in this page: the receipt and the genesis come from the node, or from files, and every
// step is computed here.

import { get, Problem } from "./api.js";
import { facts, h, put } from "./dom.js";
import { verifyReceipt } from "./receipt.js";
import { toHex } from "./wire.js";

const GENESIS_PATH = "v1/genesis";
const HASH = /^[0-9a-f]{64}$/;
const OFFLINE = "ledger-verify receipt.json --genesis genesis.json";

/** Add the look of what is mounted here to the page, once. */
export function addStyle() {
  const href = new URL("./proof.css", import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return;
  if (document.querySelector("link[data-proof]")) return;
  document.head.append(h("link", { rel: "stylesheet", href, "data-proof": true }));
}

/** Return why this page may not use WebCrypto, null where it may. */
export function whyNotSecure() {
  if (globalThis.isSecureContext && globalThis.crypto?.subtle) return null;
  return h("div", { class: "banner warn", role: "alert" },
    h("p", null, "Browsers keep their cryptography from pages that come over plain HTTP from another machine, and this is one."),
    h("p", null, "Open it over HTTPS (a reverse proxy with a certificate in front of the node), or through a tunnel as ",
      h("code", null, "ssh -L 8080:127.0.0.1:8080 HOST"), " at ", h("code", null, "http://127.0.0.1:8080"),
      ". Or verify offline: ", h("code", null, OFFLINE)));
}

/** Return the text at `path` of the node. Throws Problem. */
export async function fetchText(path) {
  const response = await fetch(path, { cache: "no-store", credentials: "omit" });
  if (response.ok) return response.text();
  throw new Problem(response.status, await response.json().catch(() => null));
}

/**
 * Show the proof of a record in `container` and verify it at once; without `tx_id`, ask for a receipt's file.
 *
 * shown: {record, member_id} as the page shows them, from the node's JSON: a true receipt of anything else is none.
 */
export async function mountProof(container, { tx_id: txId = "", index = 0, shown = null } = {}) {
  addStyle();
  const insecure = whyNotSecure();
  if (insecure) {
    put(container, insecure);
    return;
  }
  const meant = txId ? { tx_id: txId, index, ...shown } : null;
  const proof = new Proof(container, txId ? `v1/records/${txId}/${index}/receipt` : "", meant);
  await proof.fetch();
}

/** Tell whether a value, as the node's JSON has it, is the one that was proven, with nothing left out. */
function isProven(value, proven) {
  if (proven instanceof Uint8Array) return value === toHex(proven);
  if (typeof proven === "bigint") return value === Number(proven);
  if (proven === null || typeof proven !== "object") return value === proven;
  return value !== null && typeof value === "object" && Object.keys(value).length === Object.keys(proven).length
    && Object.entries(proven).every(([name, part]) => isProven(value[name], part));
}

class Proof {
  constructor(container, receiptPath, meant) {
    this.receiptPath = receiptPath;
    this.meant = meant;
    this.receipt = "";
    this.receiptName = "";
    this.nodeGenesis = "";
    this.ownGenesis = "";
    this.run = 0;
    this.hash = h("input", {
      type: "text", name: "chain_id", maxlength: 80, autocomplete: "off", autocapitalize: "off", spellcheck: "false",
      placeholder: "64 hexadecimal digits", oninput: () => this.verify(),
    });
    this.genesisFile = h("input", { type: "file", name: "genesis", accept: ".json", onchange: () => this.takeGenesis() });
    this.receiptFile = h("input", { type: "file", name: "receipt", accept: ".json", onchange: () => this.takeReceipt() });
    this.verdict = h("div", { class: "verdict", role: "status" });
    this.steps = h("ol", { class: "steps" });
    this.record = h("div");
    put(container, this.form(), this.verdict, this.steps, this.record, this.more());
    this.acceptDrops(container);
  }

  form() {
    return h("div", { class: "proof-form" },
      h("label", null, h("span", null, "Genesis hash that you trust"), this.hash,
        h("span", { class: "note" }, "From the founders, or a member that you trust; not from this page.")),
      h("label", null, h("span", null, "or its genesis file"), this.genesisFile),
      h("label", null, h("span", null, this.receiptPath ? "Another receipt" : "Receipt"), this.receiptFile,
        h("span", { class: "note" }, "Or drop it here. It does not leave this page.")));
  }

  more() {
    if (!this.receiptPath) return h("p", { class: "note" }, "The same offline: ", h("code", null, OFFLINE));
    return h("p", { class: "note" }, "Keep it: ", h("a", { href: this.receiptPath, download: "receipt.json" }, "receipt.json"),
      ", ", h("a", { href: GENESIS_PATH, download: "genesis.json" }, "genesis.json"), ". The same offline: ",
      h("code", null, OFFLINE));
  }

  acceptDrops(container) {
    container.addEventListener("dragover", (event) => event.preventDefault());
    container.addEventListener("drop", (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer?.files ?? [];
      if (file) this.readReceipt(file);
    });
  }

  /** Get what the node has: its genesis, and the receipt where a record is asked for. */
  async fetch() {
    try {
      this.nodeGenesis = await fetchText(GENESIS_PATH);
      if (this.receiptPath) this.receipt = await fetchText(this.receiptPath);
    } catch (error) {
      this.say("warn", "The node gave no proof.", error.message, error instanceof Problem ? error.document.hint : "");
    }
    await this.verify();
  }

  async takeGenesis() {
    const [file] = this.genesisFile.files;
    this.ownGenesis = file ? await file.text() : "";
    await this.verify();
  }

  async takeReceipt() {
    const [file] = this.receiptFile.files;
    if (file) await this.readReceipt(file);
  }

  async readReceipt(file) {
    this.receipt = await file.text();
    this.receiptName = file.name;
    await this.verify();
  }

  say(kind, headline, ...sentences) {
    put(this.verdict, h("div", { class: `said ${kind}` }, h("strong", null, headline),
      sentences.filter(Boolean).map((sentence) => h("p", null, sentence))));
  }

  /** Verify anew what is there; what an earlier run still computes is not shown any more. */
  async verify() {
    const genesis = this.ownGenesis || this.nodeGenesis;
    if (!this.receipt || !genesis) return;
    const mine = ++this.run;
    put(this.record);
    const hash = this.hash.value.trim().toLowerCase();
    if (hash && !HASH.test(hash)) {
      put(this.steps);
      this.say("warn", "That is no genesis hash.", "It has 64 hexadecimal digits: 0 to 9 and a to f.");
      return;
    }
    const items = new Map();
    const result = await verifyReceipt(this.receipt, genesis, hash, (step) => {
      if (mine !== this.run) return;
      items.set(step.name, stepView(step));
      put(this.steps, ...items.values());
    });
    if (mine !== this.run) return;
    this.conclude(result, Boolean(hash || this.ownGenesis));
    if (result.ok && this.receiptName) await this.showRecord(JSON.parse(this.receipt).record, mine);
  }

  /** Show what was proven, where it came from a file: the page shows no other record then. */
  async showRecord(record, mine) {
    const { recordPanels } = await import("./record.js");
    // Only the name of the codec is the node's word.
    const { codecs } = await get("v1/explore/codecs").catch(() => ({ codecs: [] }));
    if (mine === this.run) put(this.record, h("h2", null, "The record that was proven"), ...recordPanels(record, codecs));
  }

  conclude(result, isTrusted) {
    const of = this.receiptName ? `${this.receiptName}: ` : "";
    if (!result.ok) {
      const found = [["Expected", result.expected], ["Found", result.actual]].filter(([, text]) => text);
      this.say("bad", `${of}Not proven.`, `${result.where}: ${result.what}.`,
        ...found.map(([label, text]) => `${label}: ${text}`));
      return;
    }
    const { verdict } = result;
    // Of the node's own receipt; what a file proves is said under the file's name.
    const isMeant = Object.entries(this.meant ?? {}).every(([name, value]) => isProven(value, verdict[name]));
    if (!this.receiptName && !isMeant) {
      this.say("bad", "Proven, and not what is shown here.", `The receipt is a true one of record ${verdict.index} of `
        + `${verdict.tx_id} by ${verdict.member_id}. What this page shows is something else: the node does not tell the truth.`);
      return;
    }
    const counts = verdict.void
      ? "It is void: its call and leg were recorded before, and it does not count."
      : "It counts: no record of the same call and leg came before.";
    const proven = verdict.void ? "Proven, and void" : "Proven";
    this.say(isTrusted ? "good" : "warn",
      `${of}${proven}${isTrusted ? "." : ", if this is the genesis that you trust."}`,
      `Record ${verdict.index} of ${verdict.tx_id} was signed by ${verdict.member_id}, is in block ${verdict.height} of `
        + `${utc(verdict.block_ms)}, and final: a quorum of voting set ${verdict.set_id} `
        + `made block ${verdict.final_height} final, which has it in its history.`,
      counts,
      isTrusted ? "" : "Which chain this is, only the node says so far. Paste the genesis hash that you trust.");
  }
}

function utc(ms) {
  const form = { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" };
  return `${new Date(Number(ms)).toLocaleString("en-GB", form)} UTC`;
}

const WORDS = new Map([[null, ["…", ""]], [true, ["holds", "good"]], [false, ["fails", "bad"]]]);

function stepView({ name, title, ok, facts: found }) {
  const [word, kind] = WORDS.get(ok);
  return h("li", { class: kind, "data-step": name },
    h("details", { open: ok === false },
      h("summary", null, h("span", { class: `tag ${kind}` }, word), " ", title),
      facts(...found.map(([label, value]) => [label, h("code", null, value)]))));
}
