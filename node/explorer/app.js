// The explorer: what is shown, by the part of the address behind "#".

import { Problem, follow } from "./api.js";
import { h, put } from "./dom.js";
import { INSTEAD, WHY, isPerson } from "./numbers.js";
import { showOverview } from "./overview.js";
import { showRecord } from "./record.js";
import {
  showBlock, showBlocks, showKey, showMember, showMembers, showSearch, showTransaction, title,
} from "./views.js";

const REFRESH_MS = 1_000;
const REST_MS = 15_000;
const RETRY_MS = 3_000;
const ANNOUNCE_MS = 15_000;
const THEME = "ledgerd-theme";

const ROUTES = [
  [/^blocks(?:\/(?<before>\d+))?$/, showBlocks, "blocks"],
  [/^block\/(?<block>\w+)(?:\/(?<from>\d+))?$/, showBlock, "blocks"],
  [/^tx\/(?<tx>[0-9a-f]{64})$/, showTransaction, "blocks"],
  [/^record\/(?<tx>[0-9a-f]{64})\/(?<index>\d+)$/, showRecord, "blocks"],
  [/^members$/, showMembers, "members"],
  [/^member\/(?<member>.+)$/, showMember, "members"],
  [/^key\/(?<key>[0-9a-f]{40})$/, showKey, "members"],
  [/^search\/(?<text>.+)$/, showSearch, ""],
  [/^verify$/, showVerify, "verify"],
  [/^call$/, showCall, "call"],
];

const main = document.getElementById("main");
const live = document.getElementById("live");
const spoken = document.getElementById("spoken");
let overview = null;
let asking = null;
let due = 0;
let announcedMs = 0;

function announce(text) {
  // A block a second would drown everything else that a screen reader has to say.
  if (Date.now() - announcedMs < ANNOUNCE_MS) return;
  announcedMs = Date.now();
  spoken.textContent = text;
}

async function showVerify(place) {
  const box = h("div", { class: "panel" });
  put(place, title("Verify a receipt"), box);
  const { mountProof } = await import("./proof.js");
  await mountProof(box, {});
  return "Verify a receipt";
}

async function showCall(place) {
  const box = h("div", { class: "panel" });
  put(place, title("My call"), box);
  const { mountCall } = await import("./call.js");
  await mountCall(box);
  return "My call";
}

function where() {
  try {
    return decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  } catch {
    return location.hash.replace(/^#\/?/, "");
  }
}

/** Show what the address says. `isMove`: somebody went there, so that the focus goes along. */
async function show(isMove) {
  asking?.abort();
  const mine = asking = new AbortController();
  overview?.stop();
  overview = null;
  clearTimeout(due);
  const path = where();
  const route = ROUTES.map(([pattern, view, tab]) => [path.match(pattern), view, tab]).find(([match]) => match);
  mark(route ? route[2] : path === "" ? "overview" : "");
  main.setAttribute("aria-busy", "true");
  let name = "Overview";
  try {
    if (path === "") {
      overview = showOverview(main, { announce });
      await refresh();
    } else if (route) {
      name = await route[1](main, route[0].groups ?? {}, mine.signal);
    } else {
      name = "Not found";
      put(main, title("Not found"), h("p", null, "There is no such view."));
    }
  } catch (error) {
    if (mine.signal.aborted) return;
    name = "Trouble";
    overview?.stop();
    overview = null;
    clearTimeout(due);
    if (!(error instanceof Problem) || error.status >= 500) due = setTimeout(() => show(false), RETRY_MS);
    put(main, title(error instanceof Problem && error.status === 404 ? "Not found" : "That did not work"), trouble(error));
  }
  if (mine.signal.aborted) return;
  main.removeAttribute("aria-busy");
  document.title = name === "Overview" ? "ledgerd explorer" : `${name} · ledgerd explorer`;
  if (isMove) {
    scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

function trouble(error) {
  const hint = error instanceof Problem ? error.document.hint : "The node does not answer. This page asks again by itself.";
  return h("div", { class: "banner warn", role: "alert" }, h("p", null, error.message), hint ? h("p", { class: "note" }, hint) : null);
}

function mark(tab) {
  for (const anchor of document.querySelectorAll("nav.tabs a")) {
    if (anchor.dataset.tab === tab) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

/** Ask for the overview again, and from time to time after that: an hour passes even where nothing happens. */
async function refresh() {
  clearTimeout(due);
  const shown = overview;
  if (!shown || document.hidden) return;
  try {
    await shown.update(asking.signal);
    showLive(true);
  } catch (error) {
    if (error.name === "AbortError" || shown !== overview) return;
    showLive(false);
    if (!main.querySelector(".tiles")) throw error;
  } finally {
    if (shown === overview) due = setTimeout(refresh, REST_MS);
  }
}

let wanted = 0;

/** Show anew, within a second, what a new block or finality may have changed. */
function refreshSoon() {
  if (wanted) return;
  wanted = setTimeout(() => {
    wanted = 0;
    if (overview) refresh().catch(() => {});
    // Nobody who reads or types in a view is interrupted.
    else if (main.querySelector("[data-unsettled]")) showAgain().catch(() => {});
  }, REFRESH_MS);
}

async function showAgain() {
  const at = document.activeElement;
  if (at !== main && main.contains(at) && at.tagName !== "H1") return;
  await show(false);
  if (at.tagName === "H1") main.querySelector("h1")?.focus({ preventScroll: true });
}

function showLive(isLive) {
  live.className = isLive ? "live on" : "live off";
  live.textContent = isLive ? "live" : "not connected";
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const set = (name) => {
    document.documentElement.dataset.theme = name;
    button.setAttribute("aria-pressed", String(name === "dark"));
  };
  let kept = null;
  try {
    kept = localStorage.getItem(THEME);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  set(kept ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => kept ?? set(dark.matches ? "dark" : "light"));
  button.addEventListener("click", () => {
    kept = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    set(kept);
    try {
      localStorage.setItem(THEME, kept);
    } catch {
      // As above.
    }
  });
}

function search() {
  const form = document.getElementById("search");
  const field = form.elements.q;
  const refused = document.getElementById("q-refused");
  const refuse = (isRefused) => {
    refused.textContent = isRefused ? `${WHY} ${INSTEAD}` : "";
    if (isRefused) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  };
  field.addEventListener("input", () => refuse(false));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    // Where the node does not answer, the view says so.
    const isRefused = await isPerson(text).catch(() => false);
    if (field.value.trim() !== text) return;
    refuse(isRefused);
    // What is refused comes into no history of addresses either.
    if (isRefused) field.focus();
    else location.hash = `#/search/${encodeURIComponent(text)}`;
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    event.preventDefault();
    field.focus();
  });
}

theme();
search();
document.getElementById("skip").addEventListener("click", (event) => {
  // The part behind "#" says which view is shown: it must not change.
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => show(true));
document.addEventListener("visibilitychange", () => refresh().catch(() => {}));
show(false);
follow(refreshSoon, (isLive) => {
  showLive(isLive);
  if (isLive) refreshSoon();
});
