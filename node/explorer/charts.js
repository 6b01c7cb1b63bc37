// Small charts in SVG. Each has its figures in words for those who do not see it.

import { h, s } from "./dom.js";

const WIDTH = 400;

/**
 * Return bars. `values`: numbers; `label`: what a screen reader says; `titles`: of each bar; `ticks`: [place from 0 to
 * 1, text] below; `marks`: [value, text] lines across; `height`: in units of which the width has 400.
 */
export function bars({ values, label, titles = [], ticks = [], height = 90, most = Math.max(...values, 1), kind = "" }) {
  const step = WIDTH / values.length;
  const gap = Math.min(2, step * 0.25);
  const drawn = values.map((value, place) => {
    const size = value > 0 ? Math.max((value / most) * height, 1.5) : 0;
    return s("g", null,
      s("title", null, titles[place] ?? String(value)),
      s("rect", { class: "hit", x: place * step, y: 0, width: step, height }),
      s("rect", { class: "bar", x: place * step + gap / 2, y: height - size, width: step - gap, height: size, rx: 1 }));
  });
  return frame(height, label, kind, ticks, [
    s("line", { class: "base", x1: 0, x2: WIDTH, y1: height, y2: height }), ...drawn,
  ]);
}

/** Return a line through the points that have a value: `points` are numbers or null, between `least` and `most`. */
export function line({ points, label, titles = [], ticks = [], height = 50, least, most }) {
  const step = WIDTH / points.length;
  const at = (value) => height - ((value - least) / (most - least)) * height;
  const runs = [[]];
  points.forEach((value, place) => {
    if (value === null) runs.push([]);
    else runs.at(-1).push([(place + 0.5) * step, at(value)]);
  });
  const strokes = runs.filter((run) => run.length > 1).map((run) =>
    s("polyline", { class: "stroke", points: run.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") }));
  const dots = runs.flat().map(([x, y]) => s("path", { class: "dot", d: `M${x.toFixed(1)} ${y.toFixed(1)}h0` }));
  const hits = points.map((value, place) => value === null ? null : s("g", null,
    s("title", null, titles[place] ?? String(value)),
    s("rect", { class: "hit", x: place * step, y: 0, width: step, height })));
  return frame(height, label, "trend", ticks, [
    s("line", { class: "base", x1: 0, x2: WIDTH, y1: height, y2: height }), strokes, dots, hits,
  ]);
}

function frame(height, label, kind, ticks, content) {
  return h("div", { class: `chart ${kind}` },
    s("svg", { viewBox: `0 0 ${WIDTH} ${height + 1}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      content),
    ticks.length ? h("div", { class: "ticks", "aria-hidden": "true" }, ticks.map((text) => h("span", null, text))) : null);
}

/** Return a bar of one share, from 0 to 1, beside its figure. */
export function share(part) {
  const bar = h("span");
  // Not an attribute: the page's policy forbids styles in markup.
  bar.style.width = `${(100 * Math.max(0, Math.min(1, part))).toFixed(1)}%`;
  return h("span", { class: "share", "aria-hidden": "true" }, bar);
}
