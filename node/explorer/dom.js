// Elements from text alone: nothing that comes from the chain is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Set attributes and listeners: `class`, `onclick: function`, any attribute; null and false are left out. */
function dress(node, attributes) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

/** Append children: nodes, text, numbers, arrays of those; null is left out. */
function fill(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** Return an HTML element. */
export function h(tag, attributes, ...children) {
  return fill(dress(document.createElement(tag), attributes), children);
}

/** Return an SVG element. */
export function s(tag, attributes, ...children) {
  return fill(dress(document.createElementNS(SVG, tag), attributes), children);
}

/** Replace what is in `node`. */
export function put(node, ...children) {
  node.replaceChildren(fill(document.createDocumentFragment(), children));
  return node;
}

/**
 * Make what is in `node` equal to `children`, by changing what differs: focus, selection, scrolling and opened details
 * stay. For what has no listeners of its own: those of `children` are lost where an element was there already.
 */
export function update(node, ...children) {
  sync(node, fill(document.createDocumentFragment(), children));
  return node;
}

function sync(node, fresh) {
  const now = [...node.childNodes];
  const next = [...fresh.childNodes];
  next.forEach((child, place) => {
    const old = now[place];
    if (!old) node.append(child);
    else if (old.isEqualNode(child)) return;
    else if (old.nodeName !== child.nodeName) old.replaceWith(child);
    else if (old.nodeType === Node.TEXT_NODE) old.data = child.data;
    else {
      syncAttributes(old, child);
      sync(old, child);
    }
  });
  for (const old of now.slice(next.length)) old.remove();
}

function syncAttributes(old, child) {
  for (const { name } of [...old.attributes]) {
    // What a reader opened stays open.
    if (!child.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of child.attributes) {
    // The page's policy forbids styles in markup; set as properties they are not in it.
    if (name === "style") old.style.cssText = child.style.cssText;
    else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

/** Return a link to a view of this page. */
export function link(path, ...children) {
  return h("a", { href: `#/${path}` }, ...children);
}

/** Return a table: `columns` are [title, class], `rows` arrays of cells. */
export function table(caption, columns, rows, { hidden = false } = {}) {
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", null,
      h("caption", { class: hidden ? "unseen" : null }, caption),
      h("thead", null, h("tr", null, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))),
      h("tbody", null, rows.map((cells) => h("tr", null,
        cells.map((cell, place) => h("td", { class: columns[place][1] }, cell)))))));
}

/** Return a list of facts: [term, description] pairs; a null description leaves its pair out. */
export function facts(...pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined)
    .map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))));
}
