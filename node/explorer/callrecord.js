// A call record from what a browser's getStats() says, and the transaction that carries it.
// Source: docs/explorer.md, "A record of my own call"; docs/protocol.md, "Call record", "Private part", "Transaction".

import { rate } from "./emodel.js";
import { rootOf } from "./merkle.js";
import { keyIdOf, publicKeyOf, sign } from "./p256.js";
import { encodeAs } from "./schema.js";
import { CallRecord, Envelope, PRIVATE_FIELDS, PrivateField, Transaction } from "./structs.js";
import { encode, hashOf, taggedBytes, toHex } from "./wire.js";

/** Rows of the codec registry (codecs-1) that browsers speak: by name, the row for each packet time in ms. Browsers
 * conceal what is lost, so G.711 is the row with concealment; of the others none has confirmed values. */
export const CODEC_ROWS = {
  pcmu: { 10: 6, 20: 2, 30: 10 },
  pcma: { 10: 8, 20: 4, 30: 12 },
  g722: { 20: 71 },
  opus: { 10: 81, 20: 80 },
};
const G711 = { ieMilli: 0, bplMilli: 25_100, octetsPerMs: 8, codecUs: 125 };
const SHORTEST_TALK_MS = 5_000; // shorter, or fewer packets, is too little to rate, as for ledger-agent
const FEWEST_PACKETS = 250;
const U32_MAX = 0xffffffff;
const LIFETIME_MS = 3_600_000;

const ofType = (report, type) => report.filter((one) => one.type === type);
const ofAudio = (report, type) => ofType(report, type).filter((one) => (one.kind ?? one.mediaType) === "audio");
const sum = (many, name) => many.reduce((total, one) => total + (one[name] ?? 0), 0);
const whole = (value, most = Number.MAX_SAFE_INTEGER) => Math.min(Math.max(0, Math.round(value)), most);
const isGiven = (value) => typeof value === "number" && Number.isFinite(value);

/**
 * Return the CallRecord of a call.
 *
 * stats: reports of RTCPeerConnection.getStats() in the order they were taken, the last one before the connection was
 * closed; each iterates over entries or values. Audio alone is counted.
 * call: {leg, setup_ms, answer_ms, end_ms, released_by, party_commitment, call_commitment}.
 */
export function recordFromStats(stats, call) {
  const reports = stats.map(statsOf);
  const last = reports.at(-1) ?? [];
  const sent = ofAudio(last, "outbound-rtp");
  const received = ofAudio(last, "inbound-rtp");
  const codec = codecOf(last, received[0] ?? sent[0], call);
  const media = {
    packets_sent: soundPackets(sum(sent, "packetsSent"), sum(sent, "bytesSent"), codec),
    packets_received: soundPackets(sum(received, "packetsReceived"), sum(received, "bytesReceived"), codec),
    octets_sent: whole(sum(sent, "bytesSent")),
    octets_received: whole(sum(received, "bytesReceived")),
  };
  return {
    version: 1,
    service: "webrtc",
    leg: call.leg,
    party_commitment: call.party_commitment,
    call_commitment: call.call_commitment,
    setup_ms: call.setup_ms,
    answer_ms: call.answer_ms,
    end_ms: call.end_ms,
    sip_code: 0, // no SIP was spoken
    q850_cause: 0,
    released_by: call.released_by,
    codec: codec.row,
    ...media,
    quality: qualityOf(reports, received, codec, media, call),
    levels: null,
    energy: null, // a browser cannot measure it, and a guess is no measurement
  };
}

/** Return the objects of one report, whether it is an RTCStatsReport, its entries or its values. */
function statsOf(report) {
  return Array.from(report, (one) => (Array.isArray(one) ? one[1] : one));
}

/** Return {row, packetMs, name}: row 0 where the registry has none for this codec and packet time. */
function codecOf(report, stream, call) {
  const found = ofType(report, "codec").find((one) => one.id === stream?.codecId);
  const name = (found?.mimeType ?? "").replace(/^audio\//i, "").toLowerCase();
  const rows = CODEC_ROWS[name] ?? {};
  const packetMs = name.startsWith("pcm") ? g711PacketMs(report) : usualPacketMs(name, report, call);
  return { row: rows[packetMs] ?? 0, packetMs, name };
}

/** The packet time, of those that there are, which is nearest to the octets of a packet. */
function g711PacketMs(report) {
  const streams = ofAudio(report, "outbound-rtp");
  const packets = sum(streams, "packetsSent");
  const ms = packets ? sum(streams, "bytesSent") / packets / G711.octetsPerMs : 20;
  return [10, 20, 30].find((one) => Math.abs(ms - one) < 5) ?? 0;
}

/** 20 ms unless more packets were sent than fit: a packet count cannot tell longer ones from silence. */
function usualPacketMs(name, report, call) {
  const most = Math.ceil((call.end_ms - call.setup_ms) / 20);
  return name === "opus" && sum(ofAudio(report, "outbound-rtp"), "packetsSent") > most + 2 ? 10 : 20;
}

/** Return the packets that carry sound. Browsers also send some of padding alone, to find out how much the path
 * takes; where every packet has the same size, the octets (which are without padding) tell. */
function soundPackets(packets, octets, { row, packetMs, name }) {
  if (row === 0 || !name.startsWith("pcm")) return whole(packets);
  return whole(Math.min(packets, octets / (packetMs * G711.octetsPerMs)));
}

function qualityOf(reports, received, codec, media, call) {
  const isG711 = codec.row !== 0 && codec.name.startsWith("pcm");
  const talkMs = call.answer_ms ? call.end_ms - call.answer_ms : 0;
  const late = sum(received, "packetsLost"); // negative where packets came twice
  const lost = whole(late);
  const expected = media.packets_received + Math.round(late);
  if (!isG711 || talkMs < SHORTEST_TALK_MS || expected < FEWEST_PACKETS || !media.packets_received) return null;
  const rttUs = roundTripUs(reports);
  if (rttUs === null) return null;
  const lossEvents = lost ? Math.min(Math.max(1, sum(received, "concealmentEvents")), lost, media.packets_received + 1) : 0;
  const oneWayUs = whole(rttUs / 2 + bufferUs(received) + 1000 * codec.packetMs + G711.codecUs, U32_MAX);
  const rated = rate(G711.ieMilli, G711.bplMilli, { lost, expected, lossEvents, oneWayUs });
  if (rated === null) return null;
  return {
    method: "g107",
    band: "narrowband",
    kind: "cq",
    observer: call.leg === "terminating" ? "callee" : "caller",
    samples: Math.min(reports.length, Math.floor((call.end_ms - call.setup_ms) / 1000) + 1),
    r_milli: rated.r_milli,
    one_way_us: oneWayUs,
    packets_expected: expected,
    packets_lost: lost,
    packets_discarded: whole(sum(received, "packetsDiscarded"), expected - lost),
    loss_events: lossEvents,
    mean: {
      mos_milli: rated.mos_milli,
      rtt_us: rttUs,
      jitter_us: meanJitterUs(reports),
      loss_ppm: Math.floor((2_000_000 * lost + expected) / (2 * expected)),
      at_ms: 0,
    },
    worst: null,
    best: null,
  };
}

/** Return the mean round trip: of RTCP where it says one, else of the connectivity checks; null where nobody says. */
function roundTripUs(reports) {
  const last = reports.at(-1);
  const pairs = ofType(last, "candidate-pair").filter((one) => one.nominated || one.state === "succeeded");
  for (const [found, total, measured] of [
    [ofAudio(last, "remote-inbound-rtp"), "totalRoundTripTime", "roundTripTimeMeasurements"],
    [pairs, "totalRoundTripTime", "responsesReceived"],
  ]) {
    const one = found.find((entry) => entry[measured] > 0 && isGiven(entry[total]));
    if (one) return whole((1_000_000 * one[total]) / one[measured], U32_MAX);
  }
  return null;
}

function bufferUs(received) {
  const emitted = sum(received, "jitterBufferEmittedCount");
  return emitted ? (1_000_000 * sum(received, "jitterBufferDelay")) / emitted : 0;
}

function meanJitterUs(reports) {
  const found = reports.flatMap((report) => ofAudio(report, "inbound-rtp").map((one) => one.jitter)).filter(isGiven);
  return found.length ? whole((1_000_000 * found.reduce((a, b) => a + b)) / found.length, U32_MAX) : 0;
}

// -- private part and identity ------------------------------------------------------------------------------------------

/** Return the private fields of `values` (by name), each with a fresh salt, in their order. */
export function makePrivatePart(values) {
  return PRIVATE_FIELDS.map((name) => ({
    name,
    salt: crypto.getRandomValues(new Uint8Array(32)),
    value: new TextEncoder().encode(values[name] ?? ""),
  }));
}

/** Return the commitment to private fields. */
export async function partyCommitment(fields) {
  const leaves = [];
  for (const field of fields) leaves.push(await hashOf("private", PrivateField.toWire(field)));
  return rootOf(leaves);
}

/** Return private fields as the API and vault files spell them: {name: {salt, value}}. */
export function privateToJson(fields) {
  return Object.fromEntries(
    fields.map(({ name, salt, value }) => [name, { salt: toHex(salt), value: new TextDecoder().decode(value) }]),
  );
}

/** Return a fresh key for call commitments, which never leaves the browser. */
export function generateRecordKey() {
  return crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
}

/** Return the 16 bytes that identify a call to whoever has the key. */
export async function callCommitment(recordKey, callId, fromTag, inviteCseq = 0) {
  const mac = await crypto.subtle.sign("HMAC", recordKey, encode([callId, fromTag, inviteCseq]));
  return new Uint8Array(mac).slice(0, 16);
}

// -- transaction ----------------------------------------------------------------------------------------------------------

/** Return {txId, raw, expiresMs}: a transaction of one record, signed with `pair` for a member. */
export async function signRecord(record, { pair, memberId, chainId, nowMs }) {
  const item = encodeAs(CallRecord, record);
  CallRecord.check(record, "record");
  const envelope = {
    version: 1,
    chain_id: chainId,
    kind: "records",
    member_id: memberId,
    key_id: await keyIdOf(await publicKeyOf(pair)),
    created_ms: nowMs,
    expires_ms: nowMs + LIFETIME_MS,
    item_count: 1,
    items_root: await rootOf([item]),
  };
  const signature = await sign(pair, taggedBytes("tx", encodeAs(Envelope, envelope)));
  const raw = encodeAs(Transaction, { envelope, signature, items: [item] });
  return { txId: toHex(await hashOf("tx", Envelope.toWire(envelope))), raw, expiresMs: envelope.expires_ms };
}

/** Return the readable form of a record: bytes as hex. */
export function readableRecord(record) {
  return JSON.parse(JSON.stringify(record, (_, value) => (value instanceof Uint8Array ? toHex(value) : value)));
}
