/** Small helpers that all scripts of a page share. */

/**
 * A new element. Text only ever enters as text, never as markup.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * What the page stores under an id.
 * @param {string} id
 * @returns {any}
 */
function readStored(id) {
  const holder = document.getElementById(id);
  if (!holder) throw new Error(`the page holds nothing under ${id}`);
  return JSON.parse(holder.textContent || "null");
}

/**
 * The one element that a selector finds.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {HTMLElement}
 */
function find(root, selector) {
  const found = root.querySelector(selector);
  if (!(found instanceof HTMLElement)) throw new Error(`nothing answers to ${selector}`);
  return found;
}

/**
 * A number with three significant digits, as the page's own text has it.
 * @param {number} value
 * @returns {string}
 */
function written(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value)) return String(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(2);
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
}

/**
 * A colour that the style sheet names.
 * @param {string} name for example ``--ink``
 * @returns {string}
 */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** @param {() => void} draw called whenever the reader changes between light and dark */
function whenColoursChange(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
