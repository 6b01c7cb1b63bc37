// ITU-T G.107 (06/2015), narrowband, in integers: R and MOS exactly as every node recomputes them.
// Source: docs/rules.md, "Models".

import { IDD_FREE_MS, IDD_MILLI } from "./tables.js";

const R0_MILLI = 93_206n;
const R_MILLI_MAX = 100_000n;
const IE_MILLI_MAX = 95_000n;
export const ONE_WAY_US_MAX = 2_000_000;

const divideHalfUp = (numerator, denominator) => (numerator + denominator / 2n) / denominator;
const clamp = (value, least, greatest) => (value < least ? least : value > greatest ? greatest : value);

function iddAtMs(ms) {
  return BigInt(ms <= IDD_FREE_MS ? 0 : IDD_MILLI[ms - IDD_FREE_MS - 1]);
}

/** Return the delay impairment in thousandths of R; between two milliseconds it is interpolated. */
function iddMilli(oneWayUs) {
  const ms = Math.floor(oneWayUs / 1000);
  const below = iddAtMs(ms);
  const above = ms < ONE_WAY_US_MAX / 1000 ? iddAtMs(ms + 1) : below;
  return below + divideHalfUp((above - below) * BigInt(oneWayUs % 1000), 1000n);
}

function ieEffMilli(ieMilli, bplMilli, lost, expected, lossEvents) {
  if (!lost) return ieMilli;
  const spread = divideHalfUp(1000n * lost * (expected - lost), lossEvents * expected);
  const burst = spread < 1000n ? 1000n : spread;
  return ieMilli + divideHalfUp(
    1000n * (IE_MILLI_MAX - ieMilli) * 100n * lost * burst,
    100_000_000n * lost + bplMilli * expected * burst,
  );
}

function mosMilli(rMilli) {
  if (rMilli <= 0n) return 1000n;
  const r = clamp(rMilli, 0n, R_MILLI_MAX);
  const cubic = 10n ** 15n + 35n * 10n ** 9n * r + 7n * r * (r - 60_000n) * (100_000n - r);
  return divideHalfUp(clamp(divideHalfUp(cubic, 10n ** 9n), 1_000_000n, 4_500_000n), 1000n);
}

/**
 * Return {r_milli, mos_milli} of a call, null where it cannot be rated: nothing expected, more than two seconds one
 * way, or counters that contradict each other.
 *
 * ieMilli, bplMilli: the codec's. lost, expected: packets. lossEvents: runs of lost packets. oneWayUs: mouth to ear.
 */
export function rate(ieMilli, bplMilli, { lost, expected, lossEvents, oneWayUs }) {
  if (!expected || lost < 0 || lost > expected || oneWayUs < 0 || oneWayUs > ONE_WAY_US_MAX) return null;
  if (lost ? lossEvents < 1 || lossEvents > lost : lossEvents) return null;
  const impairment = ieEffMilli(BigInt(ieMilli), BigInt(bplMilli), BigInt(lost), BigInt(expected), BigInt(lossEvents));
  const r = R0_MILLI - iddMilli(oneWayUs) - impairment;
  return { r_milli: Number(clamp(r, 0n, R_MILLI_MAX)), mos_milli: Number(mosMilli(r)) };
}
