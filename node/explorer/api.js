// Questions to the node that served this page.

/** A node's answer that is no success: its problem document says what and why. */
export class Problem extends Error {
  constructor(status, document) {
    super(document?.detail || document?.title || `The node answered ${status}`);
    this.status = status;
    this.document = document ?? {};
  }
}

/** Return the JSON at `path`, as "v1/head". Throws Problem, or TypeError where the node does not answer. */
export async function get(path, { signal } = {}) {
  const response = await fetch(path, { signal, cache: "no-store", credentials: "omit" });
  const document = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, document);
  return document;
}

const RETRY_MS = 5_000;

/**
 * Call `onEvent(name, data)` for what happens, and `onState(isLive)` when the stream comes and goes, while the page is
 * visible: a page in the background costs its node nothing.
 */
export function follow(onEvent, onState) {
  let source = null;
  let retry = 0;
  const stop = () => {
    clearTimeout(retry);
    source?.close();
    source = null;
  };
  const start = () => {
    stop();
    if (document.hidden) return;
    source = new EventSource("v1/events");
    source.onopen = () => onState(true);
    source.onerror = () => {
      onState(false);
      // A stream that was refused is not tried again by the browser itself.
      if (source?.readyState === EventSource.CLOSED) retry = setTimeout(start, RETRY_MS);
    };
    for (const name of ["block", "final", "dropped", "fault"]) {
      source.addEventListener(name, (event) => onEvent(name, JSON.parse(event.data)));
    }
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  start();
}
