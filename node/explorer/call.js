// A record of one's own WebRTC call: a key that never leaves the browser, admitted by a carrier; a call; its record,
// signed here, handed in, and followed until it is final.
// Source: docs/explorer.md, "A record of my own call".

import { get } from "./api.js";
import * as records from "./callrecord.js";
import { facts, h, link, put } from "./dom.js";
import { readGenesis } from "./genesis.js";
import { dropKeys, loadCalls, loadKeys, saveCall, saveKeys } from "./keeping.js";
import { LoopbackCall } from "./loopback.js";
import { generateKey, keyIdOf, publicKeyOf } from "./p256.js";
import { addStyle, fetchText, mountProof, whyNotSecure } from "./proof.js";
import { revealFields } from "./reveal.js";
import { PRIVATE_FIELDS } from "./structs.js";
import { toHex } from "./wire.js";

export { recordFromStats } from "./callrecord.js";

const TOKEN = "ledgerd-token";
const POLL_MS = 1_500;
const STATES = ["stored", "accepted", "included", "final"];
const ENDED = ["final", "void", "expired"];

/** Show, in `container`, the way from a key to a final record. */
export async function mountCall(container) {
  addStyle();
  const insecure = whyNotSecure();
  if (insecure) {
    put(container, insecure);
    return;
  }
  const { chainId } = await readGenesis(await (await fetch("v1/genesis", { cache: "no-store" })).text());
  const page = new CallPage(container, chainId);
  await page.show();
}

function wait(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

class CallPage {
  constructor(container, chainId) {
    this.container = container;
    this.chainId = chainId;
    this.chain = toHex(chainId);
    // Focused when what was pressed is gone: a keyboard then goes on from there, and a screen reader reads it.
    this.keyBox = h("div", { tabindex: "-1" });
    this.callBox = h("div");
    this.recordBox = h("div", { tabindex: "-1" });
    this.keptBox = h("div");
    this.memberId = "";
  }

  async show() {
    const part = (heading, box) => h("li", null, h("h2", null, heading), box);
    put(this.container,
      h("p", null, "A call between two ends in this page, recorded and signed by you: the way that an application of "
        + "your own takes as well."),
      h("ol", { class: "call-steps" },
        part("1. My key", this.keyBox), part("2. My call", this.callBox), part("3. My record", this.recordBox),
        part("My records so far", this.keptBox)));
    put(this.recordBox, h("p", { class: "note" }, "Once the call is over."));
    await this.showKey(await loadKeys(this.chain));
    await this.showKept();
  }

  // -- key

  async showKey(keys) {
    this.keys = keys;
    if (!keys) {
      put(this.keyBox,
        h("p", null, "It signs your records. It is made in this browser and cannot be taken out of it, not even by you."),
        h("button", { type: "button", class: "primary", onclick: () => this.makeKey() }, "Make a key"));
      put(this.callBox, h("p", { class: "note" }, "Make a key first."));
      return;
    }
    this.publicKey = await publicKeyOf(keys.pair);
    this.keyId = toHex(await keyIdOf(this.publicKey));
    this.showCallForm();
    await this.showStanding(await this.askStanding());
  }

  async makeKey() {
    const keys = { pair: await generateKey(), recordKey: await records.generateRecordKey() };
    await this.showKey(await saveKeys(this.chain, keys));
    this.keyBox.focus();
  }

  async forgetKey() {
    if (!confirm("Forget this key for good? What it signed stays; your carrier should revoke it.")) return;
    await dropKeys(this.chain);
    await this.showKey(undefined);
    this.keyBox.focus();
  }

  /** Return what the chain says of this key, null where it does not have it; the same where the node does not answer. */
  async askStanding() {
    try {
      const { keys } = await get("v1/keys");
      return keys.find((key) => key.key_id === this.keyId) ?? null;
    } catch {
      return null;
    }
  }

  async showStanding(entry) {
    const isGood = entry !== null && entry.standing === "active" && entry.roles.includes("submit");
    this.memberId = isGood ? entry.member_id : "";
    const standing = entry === null ? "not admitted yet" : `${entry.standing}, of ${entry.member_id}`;
    put(this.keyBox,
      facts(
        ["Public key", h("code", { "data-public-key": true }, toHex(this.publicKey))],
        ["Key id", h("code", null, this.keyId)],
        ["Standing", h("span", { class: `tag ${isGood ? "good" : ""}`, "data-standing": true }, standing)]),
      isGood ? null : [
        h("p", null, "Your carrier admits it with its govern key:"),
        h("div", { class: "command" }, h("code", { "data-command": true }, this.command()),
          h("button", { type: "button", onclick: (event) => copy(this.command(), event.target) }, "Copy")),
        h("p", { class: "note", role: "status" }, "This page looks for it and goes on once it is there.")],
      h("button", { type: "button", onclick: () => this.forgetKey() }, "Forget this key"));
    if (this.submitButton) this.submitButton.disabled = !isGood;
    if (!isGood) this.pollStanding(this.keyId);
  }

  command() {
    return `ledgerctl key add ${toHex(this.publicKey)} --role submit --key govern.pem --node ${location.origin}`;
  }

  async pollStanding(keyId) {
    do await wait(POLL_MS);
    while (document.hidden && this.container.isConnected);
    if (!this.container.isConnected || keyId !== this.keyId || !this.keys) return;
    const entry = await this.askStanding();
    if (keyId === this.keyId && this.keys) await this.showStanding(entry);
  }

  // -- call

  showCallForm() {
    const field = (label, input) => h("label", null, h("span", null, label), input);
    this.form = h("form", { class: "call-form", onsubmit: (event) => event.preventDefault() },
      field("Caller", h("input", { name: "caller", value: "sip:me@browser.invalid", maxlength: 200 })),
      field("Callee", h("input", { name: "callee", value: "sip:echo@browser.invalid", maxlength: 200 })),
      field("Codec", h("select", { name: "codec" },
        h("option", { value: "PCMU" }, "G.711 \u00b5-law: can be rated"),
        h("option", { value: "PCMA" }, "G.711 A-law: can be rated"),
        h("option", { value: "opus" }, "Opus: no confirmed values, so no MOS"))),
      field("Sound", h("select", { name: "source" },
        h("option", { value: "tone" }, "a tone"), h("option", { value: "microphone" }, "the microphone"))));
    this.button = h("button", { type: "button", class: "primary", onclick: () => this.startCall() }, "Start the call");
    this.meter = h("div", { "data-meter": true });
    put(this.callBox, this.form, this.button, this.meter);
  }

  async startCall() {
    this.given = Object.fromEntries(new FormData(this.form));
    const { codec, source } = this.given;
    this.call = new LoopbackCall({ codec, source, onStats: (report, ms) => this.showStats(report, ms) });
    this.button.disabled = true;
    try {
      await this.call.start();
    } catch (error) {
      await this.call.end();
      put(this.meter, h("p", { class: "warn" }, error.message));
      this.button.disabled = false;
      return;
    }
    const end = h("button", { type: "button", class: "primary", onclick: () => this.endCall() }, "Hang up");
    this.button.replaceWith(end);
    this.button = end;
    end.focus();
  }

  showStats(report, ms) {
    if (!this.container.isConnected) {
      // The view was left: nobody could hang up any more.
      this.call.end();
      return;
    }
    const of = (type) => report.find((one) => one.type === type && (one.kind ?? "audio") === "audio") ?? {};
    const received = of("inbound-rtp");
    put(this.meter, facts(
      ["Talk", `${Math.round(ms / 1000)} s`],
      ["Packets", h("span", { "data-packets": received.packetsReceived ?? 0 },
        `${of("outbound-rtp").packetsSent ?? 0} sent, ${received.packetsReceived ?? 0} received, `
          + `${received.packetsLost ?? 0} lost`)],
      ["Jitter", `${((received.jitter ?? 0) * 1000).toFixed(1)} ms`]),
    ms < 6000 ? h("p", { class: "note" }, "A call under five seconds, or 250 packets, is too short for a MOS.") : null);
  }

  async endCall() {
    this.button.disabled = true;
    const { call, given } = this;
    const stats = await call.end();
    this.private = records.makePrivatePart({
      caller: given.caller,
      callee: given.callee,
      call_id: crypto.randomUUID(),
      from_tag: toHex(crypto.getRandomValues(new Uint8Array(8))),
      to_tag: toHex(crypto.getRandomValues(new Uint8Array(8))),
    });
    const { call_id: { value: callId }, from_tag: { value: fromTag } } = records.privateToJson(this.private);
    this.record = records.recordFromStats(stats, {
      leg: "originating",
      setup_ms: call.setupMs,
      answer_ms: call.answerMs,
      end_ms: call.endMs,
      released_by: "caller",
      party_commitment: await records.partyCommitment(this.private),
      call_commitment: await records.callCommitment(this.keys.recordKey, callId, fromTag),
    });
    this.showCallForm();
    this.showRecord();
    this.recordBox.focus();
  }

  // -- record

  showRecord() {
    const readable = records.readableRecord(this.record);
    const { quality } = readable;
    this.token = h("input", {
      type: "password", name: "token", autocomplete: "off", value: keptToken(), placeholder: "lt_…", maxlength: 512,
    });
    this.submitButton = h("button", { type: "submit", class: "primary", disabled: !this.memberId }, "Sign and hand in");
    const onsubmit = (event) => {
      event.preventDefault();
      this.submit();
    };
    this.said = h("div", { role: "status", "data-said": true });
    put(this.recordBox,
      facts(
        ["Talk", `${((readable.end_ms - readable.answer_ms) / 1000).toFixed(1)} s`],
        ["Packets", `${readable.packets_sent} sent, ${readable.packets_received} received`],
        ["Quality", quality
          ? `MOS ${(quality.mean.mos_milli / 1000).toFixed(2)}, R ${(quality.r_milli / 1000).toFixed(2)} by g107`
          : "none: too short, or a codec without confirmed values. A missing MOS is not a bad one"],
        ["Energy", "none: a browser cannot measure it"]),
      h("details", null, h("summary", null, "The record as it will be signed"),
        h("pre", { "data-record": true }, JSON.stringify(readable, null, 2))),
      h("form", { onsubmit },
        h("div", { class: "call-form" }, h("label", null, h("span", null, "Token of your carrier, with role submit"),
          this.token, h("span", { class: "note" }, "Kept until this tab is closed."))),
        this.submitButton),
      this.said);
  }

  async submit() {
    this.submitButton.disabled = true;
    const token = this.token.value.trim();
    keepToken(token);
    const { said } = this;
    const { txId, raw } = await this.sign();
    try {
      await post(raw, token);
    } catch (error) {
      put(said, h("p", { class: "warn", role: "alert" }, error.message));
      this.submitButton.disabled = false;
      return;
    }
    await this.showKept();
    await this.follow(txId, said);
  }

  /** Return the signed transaction: the same one each time, so that handing it in twice makes no second record. */
  async sign() {
    const { record, memberId, signed } = this;
    const nowMs = Date.now();
    if (signed && signed.record === record && nowMs < signed.expiresMs) return signed;
    const made = await records.signRecord(record, { pair: this.keys.pair, memberId, chainId: this.chainId, nowMs });
    // Before it leaves: salts that are lost can never be shown again.
    await saveCall(made.txId, {
      chainId: this.chain, memberId, record: records.readableRecord(record), private: records.privateToJson(this.private),
    });
    this.signed = { ...made, record };
    return this.signed;
  }

  async follow(txId, said) {
    for (;;) {
      const { promises } = await get(`v1/promises?tx_ids=${txId}`).catch(() => ({ promises: [{ state: "unknown" }] }));
      // A transaction is final with its records void, or some of them: this one has but one.
      const state = promises[0].void?.includes(0) ? "void" : promises[0].state;
      const reached = STATES.indexOf(state);
      put(said,
        h("ul", { class: "names" }, STATES.map((name, i) =>
          h("li", null, h("span", { class: `tag ${i <= reached ? "good" : ""}`, "data-state": name }, name)))),
        h("p", null, link(`record/${txId}/0`, `Record 0 of ${txId}`)));
      if (ENDED.includes(state)) {
        await this.conclude(txId, state, said);
        return;
      }
      await wait(POLL_MS);
      if (!this.container.isConnected) return;
    }
  }

  async conclude(txId, state, said) {
    if (state !== "final") {
      said.append(h("p", { class: "warn" }, state === "void" ? "It came twice: it does not count."
        : "No block took it in time: sign it anew."));
      return;
    }
    const place = h("div", { "data-proof-of": txId });
    said.append(h("h3", null, "Its proof, verified in this page"), place);
    await mountProof(place, { tx_id: txId, index: 0 });
  }

  async showKept() {
    const calls = await loadCalls(this.chain);
    put(this.keptBox, calls.length
      ? h("ul", { class: "kept" }, calls.map(([txId, call]) => keptView(txId, call)))
      : h("p", { class: "note" }, "None. Numbers and salts stay in this browser; keep the private part, or nobody can "
        + "ever show whose call it was."));
  }
}

/** Return a record of one's own: where it is, its private part, and a receipt that shows some of that. */
function keptView(txId, { record, private: kept }) {
  const boxes = PRIVATE_FIELDS.filter((name) => kept[name].value).map((name) =>
    h("label", null, h("input", { type: "checkbox", name: "field", value: name }), " ", name.replace("_", " ")));
  const said = h("div", { role: "status" });
  const onsubmit = async (event) => {
    event.preventDefault();
    const names = new FormData(event.target).getAll("field");
    put(said, names.length ? await revealedView(txId, kept, names) : h("p", { class: "warn" }, "Choose what to show."));
  };
  return h("li", null,
    link(`record/${txId}/0`, h("code", null, txId)), ` \u00b7 ${new Date(record.setup_ms).toLocaleString()} \u00b7 `,
    h("a", { href: fileOf(JSON.stringify(kept, null, 2)), download: `private-${txId.slice(0, 16)}.json` }, "private part"),
    h("details", null, h("summary", null, "Show some of it to somebody"),
      h("form", { class: "fields", onsubmit }, boxes, h("button", { type: "submit" }, "Make the receipt")), said));
}

async function revealedView(txId, kept, names) {
  try {
    const [receipt, genesis] = [await fetchText(`v1/records/${txId}/0/receipt`), await fetchText("v1/genesis")];
    const made = await revealFields(receipt, kept, names, genesis);
    return h("p", null, "It holds personal data: ",
      h("a", { href: fileOf(made), download: `receipt-${txId.slice(0, 16)}.json` }, "receipt with ", names.join(", ")));
  } catch (error) {
    return h("p", { class: "warn", role: "alert" }, error.message);
  }
}

/** Return an address under which this browser, and nobody else, finds a JSON file. */
function fileOf(text) {
  return URL.createObjectURL(new Blob([text], { type: "application/json" }));
}

async function post(raw, token) {
  const response = await fetch("v1/transactions", {
    method: "POST",
    credentials: "omit",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/msgpack" },
    body: raw,
  });
  if (response.ok) return;
  const problem = await response.json().catch(() => ({}));
  throw new Error([problem.detail ?? `The node answered ${response.status}`, problem.hint].filter(Boolean).join(". "));
}

function keptToken() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

function keepToken(token) {
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // Without storage it is asked for again.
  }
}
