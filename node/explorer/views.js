// Blocks, transactions, members, keys, and what a search found.

import { get } from "./api.js";
import { facts, h, link, put, table } from "./dom.js";
import * as f from "./format.js";
import { INSTEAD, WHY, isPerson } from "./numbers.js";
import { blocksTable } from "./overview.js";

const PAGE_RECORDS = 100;

/** Return a heading that a change of view moves the focus to. */
export function title(...text) {
  return h("h1", { tabindex: "-1" }, ...text);
}

/** Return an id in full, broken anywhere, easy to copy. */
export const id = (text) => h("code", { class: "id" }, text);

/** Return an id's beginning as a link. */
export const brief = (path, text) => h("a", { href: `#/${path}`, title: text }, h("code", null, `${text.slice(0, 12)}…`));

/** Return a moment in the reader's zone and in UTC. */
export function moments(ms) {
  return h("time", { datetime: new Date(ms).toISOString() }, f.moment(ms), h("span", { class: "soft" }, ` · ${f.utcBeside(ms)}`));
}

/** Return what is promised of something, in colour. */
export function promiseTag(state) {
  const kind = { final: "good", void: "bad", expired: "bad" }[state] ?? "";
  return h("span", { class: `tag ${kind}`, "data-unsettled": !kind }, state);
}

const panel = (heading, ...content) => h("section", { class: "panel" }, heading ? h("h2", null, heading) : null, ...content);

/** Show blocks below `before`, or the latest. */
export async function showBlocks(main, { before }, signal) {
  const found = await get(`v1/explore/blocks?count=50${before ? `&before=${before}` : ""}`, { signal });
  const lowest = found.blocks.at(-1)?.height ?? 1;
  put(main, title("Blocks"), panel(null, blocksTable(found.blocks, "Blocks of the best chain, newest first", true),
    h("nav", { class: "pages", "aria-label": "Pages" },
      before ? link("blocks", "Newest") : null,
      before && before <= found.head.height ? link(`blocks/${Number(before) + 50}`, "Newer") : null,
      lowest > 1 ? link(`blocks/${lowest}`, "Older") : null)));
  return "Blocks";
}

/** Show one block. */
export async function showBlock(main, { block, from = "0" }, signal) {
  const found = await get(`v1/explore/blocks/${block}?from=${from}`, { signal });
  const { header } = found;
  const totals = header.totals;
  const first = found.first_transaction;
  put(main,
    title(`Block ${f.count(header.height)} `, found.is_final ? promiseTag("final")
      : h("span", { class: "tag", "data-unsettled": true }, found.is_on_best_chain ? "not final yet" : "on another branch")),
    h("nav", { class: "pages", "aria-label": "Neighbours" },
      header.height > 1 ? link(`block/${header.height - 1}`, `← ${f.count(header.height - 1)}`) : null,
      link(`block/${header.height + 1}`, `${f.count(header.height + 1)} →`)),
    h("div", { class: "grid two" },
      panel("Block", facts(
        ["Sealed by", link(`member/${found.producer}`, found.producer)],
        ["Slot", [f.count(header.slot), " · ", moments(found.time_ms)]],
        ["Id", id(found.block_id)],
        ["Parent", header.height > 1 ? link(`block/${header.parent_id}`, id(header.parent_id)) : ["genesis ", id(header.parent_id)]],
        ["Transactions", f.count(header.tx_count)],
      )),
      panel("Votes for it", signers(found.certified, "No certificate on this block is known yet."))),
    panel("What its records add up to", facts(
      ["Records", [f.count(totals.records), totals.void ? ` and ${f.count(totals.void)} void` : ""]],
      ["Talk", f.duration(totals.talk_ms)],
      ["Media", f.octets(totals.octets)],
      ["Energy", [f.energy(totals.device_mj + totals.network_mj + totals.server_mj), h("span", { class: "soft" },
        ` · devices ${f.energy(totals.device_mj)}, network ${f.energy(totals.network_mj)}, servers ${f.energy(totals.server_mj)}`)]],
      ["CO\u2082e", f.grams(totals.co2_ug)],
      ...totals.mos.map((mos) => [`${f.kindName(f.MOS_KINDS[mos.kind])}, ${f.methodName(f.METHODS[mos.method])}`,
        [f.milli(mos.sum_milli / mos.count), h("span", { class: "soft" }, ` · least ${f.milli(mos.minimum_milli)} · ${f.count(mos.count)} rated`)]]),
    )),
    found.header.tx_count ? panel("Transactions",
      table("Transactions of this block", [["Transaction"], ["Holds"], ["Signed by"], ["Void", "n"], ["Made"]],
        found.transactions.map((tx) => [brief(`tx/${tx.tx_id}`, tx.tx_id),
          tx.kind === "records" ? `${f.count(tx.items)} ${tx.items === 1 ? "record" : "records"}` : tx.kind,
          link(`member/${tx.member_id}`, tx.member_id), f.count(tx.void), f.moment(tx.created_ms)]), { hidden: true }),
      h("nav", { class: "pages", "aria-label": "Transactions" },
        first > 0 ? link(`block/${block}/${Math.max(0, first - 50)}`, "Earlier") : null,
        first + found.transactions.length < header.tx_count
          ? link(`block/${block}/${first + 50}`, `${f.count(header.tx_count - first - found.transactions.length)} more`) : null)) : null,
    panel("Header", facts(
      ["State root", id(header.state_root)], ["Transactions' root", id(header.tx_root)],
      ["History root", id(header.history_root)], ["Rule set", id(header.rule_set)],
      ["Producer's key", link(`key/${header.producer_key_id}`, id(header.producer_key_id))],
      ["Signature", id(found.signature)],
      ["Carries a certificate on", found.carries
        ? [link(`block/${found.carries.height}`, `block ${f.count(found.carries.height)}`)] : "none"],
    )));
  return `Block ${header.height}`;
}

function signers(certificate, none) {
  if (!certificate) return h("p", { class: "empty-note" }, none);
  return certificate.parts.map((part) => [
    h("p", { class: "lead" }, h("strong", null, f.count(part.signed.length)),
      ` of ${f.count(part.signed.length + part.not_signed.length)} signed`,
      h("span", { class: "soft" }, ` · ${part.quorum} needed · voting set ${part.set_id}`)),
    h("ul", { class: "names" },
      part.signed.map((name) => h("li", { class: "yes" }, h("span", { "aria-hidden": "true" }, "✓ "), link(`member/${name}`, name))),
      part.not_signed.map((name) => h("li", { class: "no" }, link(`member/${name}`, name), ": no vote in it"))),
  ]);
}

/** Show a transaction with its records, or what it governs. */
export async function showTransaction(main, { tx }, signal) {
  const found = await get(`v1/transactions/${tx}`, { signal });
  const { envelope, promise } = found;
  const isVoid = new Set(found.void);
  const list = h("div");
  let shown = 0;
  const more = () => {
    shown = Math.min(shown + PAGE_RECORDS, found.records.length);
    put(list, recordsTable(found, isVoid, shown), shown < found.records.length
      ? h("button", { type: "button", onclick: more }, `Show more of ${f.count(found.records.length)}`) : null);
  };
  more();
  put(main,
    title("Transaction ", promiseTag(promise.state)),
    panel(null, facts(
      ["Id", id(found.tx_id)],
      ["Holds", envelope.kind === "records" ? `${f.count(envelope.item_count)} records` : envelope.kind],
      ["Signed by", link(`member/${envelope.member_id}`, envelope.member_id)],
      ["Block", promise.height ? link(`block/${promise.height}`, f.count(promise.height)) : "in none yet"],
      ["Made", moments(envelope.created_ms)],
      ["Expires", moments(envelope.expires_ms)],
      ["Key", link(`key/${envelope.key_id}`, id(envelope.key_id))],
      ["Root of its items", id(envelope.items_root)],
      ["Signature", id(found.signature)],
    )),
    found.payload ? panel("Payload", h("pre", { tabindex: "0" }, JSON.stringify(found.payload, null, 2))) : panel("Records", list));
  return "Transaction";
}

function recordsTable(found, isVoid, shown) {
  return table("Records of this transaction",
    [["Record"], ["Setup"], ["Leg"], ["Ended"], ["Talk", "n"], ["MOS", "n"], ["Method"], ["Counts"]],
    found.records.slice(0, shown).map((record, place) => [
      link(`record/${found.tx_id}/${place}`, `/${place}`), f.moment(record.setup_ms), record.leg, f.sip(record.sip_code),
      record.answer_ms ? f.duration(Math.max(0, record.end_ms - record.answer_ms)) : "–",
      record.quality ? f.milli(record.quality.mean.mos_milli) : "–",
      record.quality ? h("code", null, f.methodName(record.quality.method)) : "–",
      isVoid.has(place) ? promiseTag("void") : "yes",
    ]), { hidden: true });
}

/** Show all members, and who seals. */
export async function showMembers(main, _place, signal) {
  const [members, producers] = await Promise.all([get("v1/members", { signal }), get("v1/producers", { signal })]);
  put(main, title("Members"),
    panel("Who produces and votes", facts(
      ["Quorum", `${producers.quorum} of ${producers.voting.producers.length}; ${producers.faults_tolerated} may fail`],
      ["Voting set", `${producers.voting.set_id}${producers.pending ? ", changing" : ""}`],
      ["Next election", moments(producers.next_epoch_ms)],
      ["Struck", producers.struck.length ? producers.struck.map((entry) => entry.member_id).join(", ") : "nobody"],
    ), table("Producers of this epoch", [["Rank"], ["Member"], ["Sealed", "n"], ["Missed", "n"], ["Zone"], ["Address"]],
      producers.producers.map((p) => [p.rank + 1, link(`member/${p.member_id}`, p.member_id), f.count(p.sealed),
        f.count(p.missed), p.grid_zone || "–", p.endpoint || "–"]))),
    panel("All members", table("All members", [["Member"], ["Weight", "n"], ["Share", "n"], ["Seat"], ["Votes"], ["Standing"]],
      members.members.map((m) => [link(`member/${m.member_id}`, m.member_id), f.count(m.weight),
        f.percent(m.weight, members.weight), m.seat === null ? "–" : m.seat + 1, m.votes ? "yes" : "–",
        m.struck ? h("span", { class: "tag bad" }, "struck") : m.candidate ? "candidate" : "member"]), { hidden: true })));
  return "Members";
}

/** Show one member with its keys. */
export async function showMember(main, { member }, signal) {
  const m = await get(`v1/members/${encodeURIComponent(member)}`, { signal });
  const weights = (of) => Object.entries(of).map(([name, weight], place) =>
    [place ? ", " : "", link(`member/${name}`, name), ` ${f.count(weight)}`]);
  put(main, title(m.member_id, " ", m.struck ? h("span", { class: "tag bad" }, "struck") : null),
    panel(null, facts(
      ["Weight", f.count(m.weight)],
      ["Seat", m.seat === null ? "none this epoch" : `rank ${m.seat + 1}`],
      ["Votes", m.votes ? "yes" : "no"],
      ["Delegates to", Object.keys(m.delegates).length ? weights(m.delegates) : "nobody"],
      ["Delegated by", Object.keys(m.delegated_by).length ? weights(m.delegated_by) : "nobody"],
      ["Stands at", m.candidate ? `${m.candidate.endpoint || "no address"} · ${m.candidate.grid_zone || "no zone"}` : null],
    )),
    panel("Keys", table("Keys of this member", [["Key"], ["Roles"], ["Standing"]],
      m.keys.map((key) => [link(`key/${key.key_id}`, id(key.key_id)), key.roles.join(", "), key.standing]), { hidden: true })));
  return m.member_id;
}

/** Show one key. */
export async function showKey(main, { key }, signal) {
  const { keys } = await get("v1/keys", { signal });
  const found = keys.find((one) => one.key_id === key);
  put(main, title("Key"), found ? panel(null, facts(
    ["Id", id(found.key_id)], ["Of", link(`member/${found.member_id}`, found.member_id)],
    ["Roles", found.roles.join(", ")], ["Standing", found.standing], ["Public key", id(found.public_key)],
  )) : h("p", { class: "empty-note" }, "The chain knows no such key."));
  return "Key";
}

const places = {
  block: (r) => `block/${r.id}`, transaction: (r) => `tx/${r.id}`, record: (r) => `record/${r.id}`,
  member: (r) => `member/${r.id}`, key: (r) => `key/${r.id}`,
};
const about = {
  block: (r) => `height ${f.count(r.height)}`, transaction: (r) => `${r.holds} of ${r.member_id}`,
  record: (r) => `of ${r.member_id}`, member: () => "", key: (r) => `of ${r.member_id}`,
};

/** Show what an id is the id of; a single result is gone to at once. */
export async function showSearch(main, { text }, signal) {
  // Addresses are typed and passed on too, not only what stands in the field.
  if (await isPerson(text, signal)) {
    put(main, title("Not searched for"), h("div", { class: "banner warn", role: "alert" },
      h("p", null, WHY), h("p", { class: "note" }, INSTEAD)));
    return "Search";
  }
  const { q, results } = await get(`v1/search?q=${encodeURIComponent(text)}`, { signal });
  if (results.length === 1) {
    location.replace(`#/${places[results[0].kind](results[0])}`);
    return "Search";
  }
  put(main, title("Search"), h("p", { class: "lead" }, results.length ? `${results.length} results for ` : "Nothing here is called ",
    h("code", { class: "id" }, q)),
    results.length ? panel(null, table("Results", [["What"], ["Id"], ["Which"]], results.map((r) => [
      r.kind, h("a", { href: `#/${places[r.kind](r)}` }, id(r.id)), about[r.kind](r)]), { hidden: true }))
      : h("p", { class: "note" }, "Heights, ids of blocks, transactions, members and keys are known, of ids the first four digits "
        + "or more; records as transaction/place, or by record key for some time. Numbers and Call-IDs are not on the chain."));
  return "Search";
}
