// Elements without markup in strings: what comes from sensors and nodes is text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // By the object model: the policy forbids style attributes.
    else if (name === "vars") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Writes only what changed, so that a screen reader and a selection are not disturbed once a second.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setClass(element, name) {
  if (element.getAttribute("class") !== name) element.setAttribute("class", name);
}

const NODE_COLOURS = 9;
const order = [];

// A node keeps its colour on every page, as long as the page is open.
export function colourOf(node) {
  if (!order.includes(node)) {
    order.push(node);
    order.sort();
  }
  return `var(--n${(order.indexOf(node) % NODE_COLOURS) + 1})`;
}

export const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const plainColour = (reference) => cssColour(reference.slice(4, -1));
