// One call record, every field with its unit.

import { get } from "./api.js";
import { facts, h, link, put } from "./dom.js";
import * as f from "./format.js";
import { id, moments, promiseTag, title } from "./views.js";

const panel = (heading, ...content) => h("section", { class: "panel" }, h("h2", null, heading), ...content);
const soft = (...text) => h("span", { class: "soft" }, ...text);
const given = (value, show) => (value === null ? null : show(value));

/** Show the record at `tx` and `index`. */
export async function showRecord(main, { tx, index }, signal) {
  const [found, { codecs }] = await Promise.all([
    get(`v1/records/${tx}/${index}`, { signal }), get("v1/explore/codecs", { signal })]);
  const { record, promise } = found;
  put(main,
    title("Call record ", promiseTag(promise.state)),
    h("p", { class: "lead" }, summary(record), soft(" · reported by "), link(`member/${found.member_id}`, found.member_id)),
    flagsView(found.flags),
    recordPanels(record, codecs),
    panel("On the chain", facts(
      ["Promise", [promiseTag(promise.state), " ", soft(PROMISES[promise.state] ?? "")]],
      ["Block", promise.height ? link(`block/${promise.height}`, f.count(promise.height)) : "in none yet"],
      ["Transaction", link(`tx/${found.tx_id}`, id(found.tx_id))],
      ["Place in it", found.index],
      ["Record key", id(found.record_key)],
      ["Call commitment", id(record.call_commitment)],
      ["Party commitment", [id(record.party_commitment), soft(" Numbers, names and addresses are not on the chain: only this is.")]],
    )),
    proofPanel(found, tx, index));
  return "Call record";
}

/** Return what a record says, as the node's JSON has it or a receipt; `codecs` are the rows of the codec registry. */
export function recordPanels(record, codecs) {
  return [
    h("div", { class: "grid two" },
      h("div", null, panel("Call", callFacts(record)), panel("Media", mediaFacts(record, codecs))),
      h("div", null, panel("Voice quality", qualityFacts(record.quality)), panel("Energy", energyFacts(record.energy)))),
    record.levels ? panel("Levels and bursts", soft("What an RFC 3611 voice metrics report adds."), levelFacts(record.levels)) : null,
  ];
}

const PROMISES = {
  stored: "on the disk of this node, signed",
  accepted: "on the disks of a quorum",
  included: "in a block",
  final: "can no longer be replaced",
  void: "came twice: it is on the chain and does not count",
  expired: "no block took it in time",
};

function summary(record) {
  const service = record.service === "webrtc" ? "WebRTC" : f.words(record.service);
  const talk = record.answer_ms ? `${f.duration(Math.max(0, record.end_ms - record.answer_ms))} of talk` : "never answered";
  return `${service[0].toUpperCase()}${service.slice(1)} call, ${record.leg} leg, ${talk}`;
}

function flagsView(flags) {
  if (!flags.length) return null;
  return h("section", { class: "banner", "aria-label": "Flags" },
    h("h2", null, "Suspicious, yet possible"),
    h("ul", null, flags.map((flag) => h("li", null, h("strong", null, flag.name), " · ", flag.field, ": ", flag.message ?? ""))));
}

function callFacts(record) {
  const { setup_ms: setup, answer_ms: answer, end_ms: end } = record;
  return facts(
    ["Setup", moments(setup)],
    ["Answered", answer ? [moments(answer), soft(` · after ${f.duration(Math.max(0, answer - setup))}`)] : "never"],
    ["Ended", moments(end)],
    ["Talk", answer ? f.duration(Math.max(0, end - answer)) : "none"],
    ["SIP response", f.sip(record.sip_code)],
    ["Q.850 cause", f.q850(record.q850_cause)],
    ["Released by", record.released_by],
  );
}

function mediaFacts(record, codecs) {
  const codec = codecs.find((row) => row.row === record.codec);
  const named = record.codec === 0 ? "unknown" : !codec ? "of the chain's table" : [codec.name, codec.packet_us ? `, ${f.us(codec.packet_us)} packets` : "",
    codec.concealment === "plc" ? ", loss concealed" : ""];
  return facts(
    ["Codec", [named, soft(` · row ${record.codec}`)]],
    ["Packets sent", f.count(record.packets_sent)],
    ["Packets received", f.count(record.packets_received)],
    ["Payload sent", f.octets(record.octets_sent)],
    ["Payload received", f.octets(record.octets_received)],
  );
}

function reading(mos) {
  return [h("strong", null, f.milli(mos.mos_milli)), soft(` · round trip ${f.us(mos.rtt_us)} · jitter ${f.us(mos.jitter_us)} · `
    + `loss ${f.ppm(mos.loss_ppm)}`)];
}

function qualityFacts(quality) {
  if (!quality) return h("p", { class: "empty-note" }, "Nothing was measured. A missing MOS is not a bad one.");
  const worst = (moment) => given(moment, (mos) => [reading(mos), soft(` · ${f.duration(mos.at_ms)} after setup`)]);
  return [
    h("p", { class: "score" }, h("strong", null, f.milli(quality.mean.mos_milli)),
      ` ${f.kindName(quality.kind)} by `, h("code", null, f.methodName(quality.method)), soft(`, ${f.words(quality.band)}`)),
    facts(
      ["Mean", reading(quality.mean)], ["Worst", worst(quality.worst)], ["Best", worst(quality.best)],
      ["R factor", given(quality.r_milli, f.milli)],
      ["One way", given(quality.one_way_us, (value) => `${f.us(value)} mouth to ear`)],
      ["Heard by", quality.observer],
      ["Reports", f.count(quality.samples)],
      ...packetFacts(quality),
    ),
  ];
}

/** A platform that tells of no packets has none expected: 0 lost of none says nothing. */
function packetFacts(quality) {
  if (!quality.packets_expected) return [["Packets", "not counted"]];
  return [
    ["Packets expected", f.count(quality.packets_expected)],
    ["Lost", [f.count(quality.packets_lost), soft(` in ${f.count(quality.loss_events)} runs`)]],
    ["Discarded", [f.count(quality.packets_discarded), soft(" too late or too early")]],
  ];
}

const NETWORK_METHODS = {
  average_kwh_gb: "average kWh/GB",
  power_marginal: "marginal power",
  power_attributed: "attributed power",
  metered: "metered",
};

function energyFacts(energy) {
  if (!energy) return h("p", { class: "empty-note" }, "Not stated.");
  const server = Math.floor((energy.server_mj * energy.pue_milli + 500) / 1000);
  return [
    h("p", { class: "score" }, h("strong", null, f.grams(energy.co2_ug)), " CO\u2082e",
      soft(` · ${f.energy(energy.device_mj + energy.network_mj + server)}`)),
    facts(
      ["Device", [f.energy(energy.device_mj), soft(` · ${f.words(energy.device_class)}`)]],
      ["Network", [f.energy(energy.network_mj), soft(` · ${NETWORK_METHODS[energy.method]}, ${f.words(energy.boundary)}`)]],
      ["Servers", [f.energy(energy.server_mj), soft(` · PUE ${f.milli(energy.pue_milli)}, ${f.energy(server)} in all`)]],
      ["Grid", [h("code", null, energy.grid_zone),
        soft(` · ${f.short(energy.intensity_mg_per_kwh / 1000)} g CO\u2082e/kWh by ${energy.intensity_table}`)]],
    ),
  ];
}

function levelFacts(levels) {
  return facts(
    ["Signal", given(levels.signal_dbm0, (value) => `${value} dBm0`)],
    ["Noise", given(levels.noise_dbm0, (value) => `${value} dBm0`)],
    ["Residual echo return loss", given(levels.rerl_db, (value) => `${value} dB`)],
    ["Lost or discarded in bursts", given(levels.burst_density, (value) => f.percent(value, 256))],
    ["In gaps between", given(levels.gap_density, (value) => f.percent(value, 256))],
    ["Mean burst", given(levels.burst_ms, (value) => `${value} ms`)],
    ["Mean gap", given(levels.gap_ms, (value) => `${value} ms`)],
    ["Jitter buffer", given(levels.jitter_buffer_ms, (value) => `${value} ms`)],
    ["Jitter buffer at most", given(levels.jitter_buffer_max_ms, (value) => `${value} ms`)],
    ["End system delay", given(levels.end_system_delay_ms, (value) => `${value} ms`)],
  );
}

function proofPanel({ record, member_id: memberId, promise }, tx, index) {
  const place = h("div", { class: "proof" });
  const button = h("button", { type: "button", class: "primary", onclick: open }, "Verify in this browser");
  async function open() {
    button.disabled = true;
    try {
      const { mountProof } = await import("./proof.js");
      await mountProof(place, { tx_id: tx, index: Number(index), shown: { record, member_id: memberId } });
      button.remove();
    } catch (error) {
      button.disabled = false;
      put(place, h("p", { class: "banner warn", role: "alert" }, `That did not work: ${error.message}`));
    }
  }
  const isProvable = promise.state === "final" || (promise.state === "void" && promise.height);
  return h("section", { class: "panel" }, h("h2", null, "Proof"),
    h("p", null, "A receipt proves this record by itself, with the genesis file alone: nobody's word is needed, not even this node's."),
    isProvable ? [button, place] : h("p", { class: "note" }, "There is one once the record is final."));
}
