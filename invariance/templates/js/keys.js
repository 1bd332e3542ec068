/** The keyboard in the viewer. */

/**
 * @typedef {object} Keys what a key can do
 * @property {(by: number) => void} sample
 * @property {() => void} flicker
 * @property {(columns: number, rows: number) => void} cursor
 * @property {(columns: number, rows: number) => void} move
 * @property {(factor: number) => void} zoom
 * @property {() => void} fit
 * @property {(number: number) => void} preset
 * @property {(layout: Layout) => void} layout
 * @property {() => void} full
 */

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
/** @type {Record<string, Layout>} */
const LAYOUTS = { o: "one", s: "side", v: "overlay", a: "all" };

/**
 * Keys count while the viewer has the focus or the mouse is over it; lists, sliders and buttons keep theirs.
 * @param {HTMLElement} root
 * @param {Keys} keys
 */
function listenToKeys(root, keys) {
  /** @type {(event: KeyboardEvent) => boolean} */
  const act = (event) => {
    const arrow = ARROWS[event.key];
    if (arrow && event.altKey) return false;
    if (arrow && event.shiftKey) keys.cursor(...arrow);
    else if (arrow && event.ctrlKey) keys.move(...arrow);
    else if (arrow) keys.sample(arrow[0] || -arrow[1]);
    else if (event.ctrlKey || event.metaKey || event.altKey) return false;
    else if (event.key === " ") keys.flicker();
    else if (event.key === "+" || event.key === "=") keys.zoom(1.25);
    else if (event.key === "-") keys.zoom(0.8);
    else if (event.key === "0") keys.fit();
    else if (/^[1-9]$/.test(event.key)) keys.preset(Number(event.key) - 1);
    else if (event.key in LAYOUTS) keys.layout(LAYOUTS[event.key]);
    else if (event.key === "f") keys.full();
    else return false;
    return true;
  };
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!root.contains(target) && !(target === document.body && root.matches(":hover"))) return;
    if (target.closest("select, input, textarea, a, summary")) return;
    if (target.closest("button") && (event.key === " " || event.key === "Enter")) return;
    if (act(event)) event.preventDefault();
  });
}
