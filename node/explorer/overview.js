// The first page: what the chain does now, and what the calls on it add up to.

import { get } from "./api.js";
import { bars, line, share } from "./charts.js";
import { h, link, put, table, update as change } from "./dom.js";
import * as f from "./format.js";

const PERIODS = [["hour", "Last hour"], ["day", "Last day"], ["all", "All counted"]];
const MOS_LEAST = 1;
const MOS_MOST = 5;

/** Show the overview in `main`. Return {update, stop}: `update()` asks the node again. */
export function showOverview(main, { announce }) {
  let period = "hour";
  let data = null;
  let asked = 0;
  const part = (id, title, note) => {
    const body = h("div", { class: "body" });
    const head = h("div", { class: "panel-head" }, h("h2", { id }, title), note ?? null);
    return [h("section", { class: "panel", "aria-labelledby": id }, head, body), body];
  };
  const now = h("section", { class: "now", "aria-label": "Now" });
  const [rate, rateBody] = part("rate", "Records by the minute");
  const [turns, turnsBody] = part("turns", "Producers and their slots");
  const choice = h("div", { class: "choice", role: "group", "aria-label": "Period" },
    PERIODS.map(([name, title]) => h("button", {
      type: "button", "aria-pressed": String(name === period), "data-period": name, onclick: () => choose(name),
    }, title)));
  const [quality, qualityBody] = part("quality", "Voice quality");
  const [calls, callsBody] = part("calls", "Calls");
  const [energy, energyBody] = part("energy", "Energy and CO\u2082 by grid zone");
  const [latest, latestBody] = part("latest", "Latest blocks", link("blocks", "All blocks"));
  put(main,
    h("h1", { class: "unseen", tabindex: "-1" }, "Overview"),
    now,
    h("div", { class: "grid two" }, rate, turns),
    h("div", { class: "period" }, h("h2", { class: "eyebrow" }, "What the calls add up to"), choice),
    calls, quality, energy, latest);

  function choose(name) {
    period = name;
    for (const button of choice.children) button.setAttribute("aria-pressed", String(button.dataset.period === name));
    if (data) draw();
  }

  function draw() {
    const of = data.periods[period];
    change(now, nowView(data));
    change(rateBody, rateView(data));
    change(turnsBody, turnsView(data));
    change(callsBody, callsView(of, data, period));
    change(qualityBody, qualityView(of, data, period));
    change(energyBody, energyView(of));
    change(latestBody, blocksTable(data.blocks, "Latest blocks", true));
    tick();
  }

  function tick() {
    if (!data) return;
    const passed = Date.now() - asked;
    const ages = { head: data.now_ms - data.head.time_ms, final: data.final_age_ms };
    for (const node of now.querySelectorAll("[data-age]")) {
      node.textContent = f.age(Math.max(0, ages[node.dataset.age] + passed));
    }
  }

  async function update(signal) {
    data = await get("v1/explore", { signal });
    asked = Date.now();
    draw();
    announce(`Block ${f.count(data.final.height)} is final.`);
  }

  const timer = setInterval(() => document.hidden || tick(), 1000);
  return { update, stop: () => clearInterval(timer) };
}

function tile(title, value, note) {
  return h("div", { class: "tile" }, h("h2", null, title), h("p", { class: "value" }, value), h("p", { class: "note" }, note));
}

function nowView(data) {
  const { head, final, node, periods } = data;
  const state = node.state === "ok" ? null
    : h("p", { class: "banner warn" }, h("strong", null, `This node is ${f.words(node.state)}. `), node.reason);
  const known = final.height > 0;
  return [state, h("div", { class: "tiles" },
    tile("Final block", known ? link(`block/${final.height}`, f.count(final.height)) : "0",
      known ? h("span", { "data-age": "final" }) : "nothing is final yet"),
    tile("Head", head.height ? link(`block/${head.height}`, f.count(head.height)) : "0",
      head.height ? [h("span", { "data-age": "head" }), ` · ${ahead(head.height - final.height)}`] : "genesis"),
    tile("Records a second", f.short(data.records_last_minute / 60),
      `${f.count(data.records_last_minute)} in the last minute`),
    tile("Records counted", f.rough(periods.all.records),
      data.counted.from_height ? `since height ${f.count(data.counted.from_height)}` : "none yet"))];
}

const ahead = (blocks) => blocks === 0 ? "all final" : blocks === 1 ? "1 not final" : `${f.count(blocks)} not final`;

function rateView(data) {
  const values = data.minutes.map((minute) => minute.records);
  const most = Math.max(...values);
  const total = values.reduce((sum, value) => sum + value, 0);
  return [
    h("p", { class: "lead" }, h("strong", null, f.count(total)), " in the last hour",
      most ? h("span", { class: "soft" }, ` · at most ${f.count(most)} in a minute`) : null),
    bars({
      values, height: 110, kind: "rate",
      label: `Records of each of the last 60 minutes: ${f.count(total)} in all, at most ${f.count(most)} in a minute.`,
      titles: data.minutes.map((m) => `${f.utcMinute(m.start_ms)} UTC: ${f.count(m.records)} records`),
      ticks: [`${f.utcMinute(data.minutes[0].start_ms)} UTC`, f.utcMinute(data.minutes[30].start_ms),
        f.utcMinute(data.minutes.at(-1).start_ms)],
    }),
    h("details", null, h("summary", null, "By the hour"), table("Records of the last 24 hours",
      [["Hour, UTC"], ["Records", "n"], ["Void", "n"]],
      data.hours.filter((hour) => hour.records + hour.void > 0).reverse()
        .map((hour) => [f.utcMinute(hour.start_ms), f.count(hour.records), f.count(hour.void)]), { hidden: true })),
  ];
}

function turnsView(data) {
  const names = data.producers.map((producer) => producer.member_id);
  const width = data.slots.length;
  const sealed = data.slots.filter((slot) => slot.height !== null).length;
  const strip = h("ol", { class: "slots", "aria-label": `The last ${width} slots: a block in ${sealed} of them.` },
    data.slots.map((slot) => {
      const what = slot.height === null ? "no block" : `block ${f.count(slot.height)}`;
      const title = `Slot ${f.count(slot.slot)}, ${slot.member_id}: ${what}`;
      return h("li", { class: slot.height === null ? "empty" : `p${names.indexOf(slot.member_id) % 8}`, title },
        h("span", { class: "unseen" }, title));
    }));
  return [
    table("Turns of this epoch", [["Producer"], ["Votes"], ["Sealed", "n"], ["Missed", "n"]],
      data.producers.map((producer, place) => [
        [h("i", { class: `key p${place % 8}`, "aria-hidden": "true" }), link(`member/${producer.member_id}`, producer.member_id)],
        producer.votes ? "yes" : "not yet",
        f.count(producer.sealed),
        producer.missed ? h("span", { class: "warn" }, f.count(producer.missed)) : "0",
      ]), { hidden: true }),
    h("h3", null, `Last ${width} slots`), strip,
    h("p", { class: "note" }, "A chain without new records rests: slots without a block are then no fault."),
  ];
}

function callsView(of, data, period) {
  const read = of.read;
  const from = { hour: "in the last hour", day: "in the last day", all: `since height ${f.count(data.counted.from_height)}` };
  const stat = (title, value, note) => h("div", { class: "stat" }, h("dt", null, title),
    h("dd", null, value, h("span", { class: "note" }, note)));
  return [
    h("dl", { class: "stats" },
      stat("Records", f.count(of.records), from[period]),
      stat(h("abbr", { title: "Answer-seizure ratio" }, "ASR"), f.percent(read.answered, read.records),
        `${f.count(read.answered)} answered of ${f.count(read.records)}`),
      stat(h("abbr", { title: "Average call duration" }, "ACD"),
        read.answered ? f.duration(read.talk_ms / read.answered) : "–", "talk of an answered call"),
      stat("Talk", f.duration(of.talk_ms), `${f.octets(of.octets)} of media`),
      stat("Void", f.count(of.void), "came twice, not counted"),
      stat("CO\u2082e", f.grams(of.co2_ug), f.energy(of.device_mj + of.network_mj + of.server_mj))),
    sampleNote(of),
    data.counted.is_looking_back && period !== "hour"
      ? h("p", { class: "note" }, `Earlier blocks are still being counted, down to height ${f.count(data.counted.from_height)}.`)
      : null,
  ];
}

function sampleNote(of) {
  if (of.read.records >= of.records) return null;
  return h("p", { class: "note" }, `ASR, ACD, spread of MOS and zones are from a sample of ${f.count(of.read.records)} `
    + `of ${f.count(of.records)} records.`);
}

function qualityView(of, data, period) {
  const spreads = of.read.mos;
  if (!spreads.length) return h("p", { class: "empty-note" }, "No record of this period has a MOS.");
  const buckets = period === "hour" ? data.minutes : data.hours;
  return h("div", { class: "grid methods" }, spreads.map((spread) => methodView(spread, of, buckets, period)));
}

function methodView(spread, of, buckets, period) {
  const name = f.methodName(spread.method);
  const same = (mos) => mos.method === spread.method && mos.kind === spread.kind;
  // Headers have all of them, but do not tell bands apart.
  const rated = of.read.mos.filter(same).length === 1 ? of.mos.find(same) ?? spread : spread;
  const mean = rated.sum_milli / rated.count;
  const kind = `${f.kindName(spread.kind)}, ${f.words(spread.band)}`;
  const trend = buckets.map((bucket) => bucket.mos.find(same)).map((mos) => mos ? mos.sum_milli / mos.count / 1000 : null);
  const when = (bucket) => f.utcMinute(bucket.start_ms);
  const bins = spread.bins.map((value, place) => [MOS_LEAST + place / 10, value]);
  const span = ([from]) => `${from.toFixed(1)} to ${(from + 0.1).toFixed(1)}`;
  const good = spread.bins.slice(26).reduce((sum, value) => sum + value, 0);
  return h("article", { class: "method", "aria-label": `${name}, ${kind}` },
    h("h3", null, h("code", null, name), h("span", { class: "soft" }, ` ${kind}`)),
    h("p", { class: "lead" }, h("strong", null, f.milli(mean)), " mean",
      h("span", { class: "soft" }, ` · least ${f.milli(rated.minimum_milli)} · ${f.count(rated.count)} rated`)),
    bars({
      values: spread.bins, height: 80, kind: "mos", ticks: ["1", "2", "3", "4", "5"],
      label: `How MOS is spread: mean ${f.milli(mean)}, ${f.percent(good, spread.count)} at 3.6 or better.`,
      titles: bins.map((bin) => `MOS ${span(bin)}: ${f.count(bin[1])}`),
    }),
    trend.some((value) => value !== null) ? line({
      points: trend, least: MOS_LEAST, most: MOS_MOST, height: 46,
      label: `Mean MOS ${period === "hour" ? "by the minute, last hour" : "by the hour, last day"}, all bands of this method.`,
      titles: trend.map((value, place) => value === null ? "" : `${when(buckets[place])} UTC: mean ${value.toFixed(2)}`),
      ticks: [`${when(buckets[0])} UTC`, `mean by the ${period === "hour" ? "minute" : "hour"}, scale 1 to 5`, when(buckets.at(-1))],
    }) : null,
    h("details", null, h("summary", null, "Table"), table(`MOS by ${name}`, [["MOS"], ["Records", "n"], ["Share", "n"]],
      bins.filter((bin) => bin[1]).map((bin) => [span(bin), f.count(bin[1]), f.percent(bin[1], spread.count)]), { hidden: true })));
}

function energyView(of) {
  const zones = of.read.zones;
  if (!zones.length) return h("p", { class: "empty-note" }, "No record of this period states its energy.");
  const most = Math.max(...zones.map((zone) => zone.energy_mj), 1);
  const total = of.device_mj + of.network_mj + of.server_mj;
  return [
    h("p", { class: "lead" }, h("strong", null, f.energy(total)), h("span", { class: "soft" },
      ` · devices ${f.percent(of.device_mj, total, 0)} · network ${f.percent(of.network_mj, total, 0)} · `
      + `servers ${f.percent(of.server_mj, total, 0)} · ${f.grams(of.co2_ug)} CO\u2082e`)),
    table("Energy and CO\u2082 by grid zone",
      [["Zone"], ["Share", "wide"], ["Records", "n"], ["Energy", "n"], ["CO\u2082e", "n"], ["CO\u2082e a record", "n"]],
      zones.map((zone) => [
        h("code", null, zone.zone), share(zone.energy_mj / most), f.count(zone.records), f.energy(zone.energy_mj),
        f.grams(zone.co2_ug), f.grams(zone.co2_ug / zone.records),
      ]), { hidden: true }),
  ];
}

/** Return blocks in a table, newest first. */
export function blocksTable(blocks, caption, isHidden = false) {
  if (!blocks.length) return h("p", { class: "empty-note" }, "No blocks yet.");
  return table(caption,
    [["Height"], ["Time"], ["Producer"], ["Finality"], ["Records", "n"], ["Void", "n"], ["Transactions", "n"]],
    blocks.map((block) => [
      link(`block/${block.height}`, f.count(block.height)),
      h("time", { datetime: new Date(block.time_ms).toISOString(), title: f.utc(block.time_ms) }, f.timeOfDay(block.time_ms)),
      link(`member/${block.producer}`, block.producer),
      block.is_final ? h("span", { class: "tag good" }, "final") : h("span", { class: "tag", "data-unsettled": true }, "not yet"),
      f.count(block.records), f.count(block.void), f.count(block.transactions),
    ]), { hidden: isHidden });
}
