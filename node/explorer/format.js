// Figures as people read them. Quantities arrive as integers with the unit last in their name.

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

/** Return an integer with separators: 1,234,567. */
export const count = (value) => whole.format(value);

/** Return a number with about `digits` significant digits and no exponent. */
export function short(value, digits = 3) {
  return new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
}

/** Return large counts shortened: 12.3 k, 4.56 M. */
export function rough(value) {
  if (value < 10_000) return count(value);
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${short(value / size)} ${unit}`;
  }
  return count(value);
}

/** Return thousandths as a figure with two decimals: MOS, R. */
export const milli = (value, decimals = 2) => (value / 1000).toFixed(decimals);

/** Return a part of a whole in percent, a dash where there is no whole. */
export function percent(part, all, decimals = 1) {
  return all > 0 ? `${((100 * part) / all).toFixed(decimals)} %` : "–";
}

/** Return parts per million in percent. */
export const ppm = (value) => `${short(value / 10_000)} %`;

/** Return a duration: 850 ms, 4.2 s, 3 min 05 s, 2 h 04 min, 3 d 4 h. */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.floor(ms / 1000);
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86_400)];
  const two = (value) => String(value).padStart(2, "0");
  if (hours < 1) return `${minutes} min ${two(seconds % 60)} s`;
  return days < 1 ? `${hours} h ${two(minutes % 60)} min` : `${count(days)} d ${hours % 24} h`;
}

/** Return an age in whole seconds and up: what is younger than a second is "now". */
export const age = (ms) => (ms < 1000 ? "now" : ms < 60_000 ? `${Math.floor(ms / 1000)} s ago` : `${duration(ms)} ago`);

/** Return microseconds as milliseconds. */
export const us = (value) => `${short(value / 1000)} ms`;

/** Return bytes. */
export function octets(value) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= size) return `${short(value / size)} ${unit}`;
  }
  return `${count(value)} B`;
}

/** Return millijoules as watt-hours. */
export function energy(mj) {
  const wh = mj / 3.6e6;
  if (wh >= 1e6) return `${short(wh / 1e6)} MWh`;
  if (wh >= 1000) return `${short(wh / 1000)} kWh`;
  if (wh >= 0.1 || wh === 0) return `${short(wh)} Wh`;
  return `${short(wh * 1000)} mWh`;
}

/** Return micrograms. */
export function grams(ug) {
  if (ug >= 1e12) return `${short(ug / 1e12)} t`;
  if (ug >= 1e9) return `${short(ug / 1e9)} kg`;
  if (ug >= 1e6 || ug === 0) return `${short(ug / 1e6)} g`;
  return `${short(ug / 1000)} mg`;
}

/** Return a moment in the reader's zone: the time of day, or with its date. */
export const timeOfDay = (ms) => clock.format(ms);
export const moment = (ms) => day.format(ms);

/** Return a moment in UTC, to the millisecond. */
export const utc = (ms) => `${new Date(ms).toISOString().replace("T", " ").replace("Z", "")} UTC`;

/** Return the same beside a moment in the reader's zone: the date only where it is another. */
export function utcBeside(ms) {
  const date = new Date(ms);
  return date.getDate() === date.getUTCDate() ? utc(ms).slice(11) : utc(ms);
}

/** Return hours and minutes in UTC. */
export const utcMinute = (ms) => new Date(ms).toISOString().slice(11, 16);

/** Return the name of a method as documents spell it: g107.1, rtpengine-10. */
export function methodName(name) {
  return name.startsWith("g107_") ? name.replace("_", ".") : name.replaceAll("_", "-");
}

const KINDS = { lq: "MOS-LQ", cq: "MOS-CQ", tq: "MOS-TQ", vq: "MOS-VQ", avq: "MOS-AVQ" };
/** Return a kind of MOS as P.800.1 writes it. */
export const kindName = (name) => KINDS[name] ?? name;

/** Return a name from JSON in words: core_access is "core access". */
export const words = (name) => name.replaceAll("_", " ");

/** Return the order of `QualityMethod` in headers, which have numbers. */
export const METHODS = [
  "", "g107", "g107_1", "g107_2", "rtpengine_10", "rtpengine_13", "freeswitch", "rfc3611", "measured",
];
export const MOS_KINDS = ["", "lq", "cq", "tq", "vq", "avq"];

const SIP = {
  200: "OK", 302: "Moved Temporarily", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
  408: "Request Timeout", 410: "Gone", 415: "Unsupported Media Type", 480: "Temporarily Unavailable",
  481: "Call Does Not Exist", 484: "Address Incomplete", 486: "Busy Here", 487: "Request Terminated",
  488: "Not Acceptable Here", 500: "Server Internal Error", 502: "Bad Gateway", 503: "Service Unavailable",
  504: "Server Time-out", 600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere",
};
/** Return a SIP response with its usual phrase (RFC 3261). */
export const sip = (code) => (code === 0 ? "none" : SIP[code] ? `${code} ${SIP[code]}` : String(code));

const Q850 = {
  0: "unknown", 1: "unallocated number", 16: "normal clearing", 17: "user busy", 18: "no user responding",
  19: "no answer", 20: "subscriber absent", 21: "call rejected", 22: "number changed", 27: "destination out of order",
  28: "invalid number format", 31: "normal, unspecified", 34: "no circuit available", 38: "network out of order",
  41: "temporary failure", 42: "congestion", 58: "bearer not available", 65: "bearer not implemented",
  88: "incompatible destination", 102: "timer expired", 127: "interworking",
};
/** Return a Q.850 cause with its meaning. */
export const q850 = (cause) => (Q850[cause] ? `${cause} ${Q850[cause]}` : String(cause));
