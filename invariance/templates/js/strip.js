/**
 * One strip plot per figure: a point for every row of a table, which opens the row's case.
 *
 * It takes over what the macro ``strip`` wrote. Points are drawn on a canvas, so that there may be ten thousand;
 * the same values stand in the table, which the keyboard reaches.
 */

const STRIP = { height: 74, left: 12, right: 12, axis: 24, radius: 3.5 };

/**
 * Round numbers between two ends, about five of them.
 * @param {number} low
 * @param {number} high
 * @returns {number[]}
 */
function ticks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) || 10);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n++) {
    found.push(Number((n * step).toPrecision(12)));
  }
  return found;
}

/**
 * A height for each point that is the same every time, so that points of like value stand apart.
 * @param {number} row
 */
const scatter = (row) => ((row * 0.618034) % 1) * 2 - 1;

/** @param {HTMLElement} root */
function startStrip(root) {
  const { data, listeners } = tableOf(root.dataset.strip || "");
  const at = data.columns.findIndex((column) => column.key === root.dataset.key);
  const canvas = /** @type {HTMLCanvasElement} */ (find(root, "canvas"));
  const told = find(root, ".told");
  const known = data.rows.map((_, row) => row).filter((row) => typeof data.rows[row][at] === "number");
  const values = known.map((row) => Number(data.rows[row][at]));
  let [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (low > 0 && low < high / 2) low = 0;
  if (low === high) [low, high] = [low - (Math.abs(low) / 2 || 1), high + (Math.abs(high) / 2 || 1)];
  let shown = new Set(known);
  let [near, width] = [-1, 0];

  const x = (/** @type {number} */ value) =>
    STRIP.left + ((value - low) / (high - low)) * (width - STRIP.left - STRIP.right);
  const middle = (STRIP.height - STRIP.axis) / 2;
  const y = (/** @type {number} */ row) => middle + (known.length > 1 ? scatter(row) : 0) * (middle - 8);
  const value = (/** @type {number} */ row) => Number(data.rows[row][at]);

  const draw = () => {
    width = canvas.clientWidth;
    const dense = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * dense), Math.round(STRIP.height * dense)];
    const pen = canvas.getContext("2d");
    if (!pen || !known.length || !width) return;
    pen.scale(dense, dense);
    pen.font = "13px sans-serif";
    pen.textAlign = "center";
    pen.fillStyle = colour("--quiet");
    pen.strokeStyle = colour("--line");
    for (const tick of ticks(low, high)) {
      pen.fillRect(Math.round(x(tick)), STRIP.height - STRIP.axis, 1, 4);
      const half = pen.measureText(String(tick)).width / 2;
      pen.fillText(String(tick), Math.min(Math.max(x(tick), half), width - half), STRIP.height - 5);
    }
    pen.fillRect(STRIP.left, STRIP.height - STRIP.axis, width - STRIP.left - STRIP.right, 1);
    pen.globalAlpha = known.length > 300 ? 0.35 : 0.75;
    pen.fillStyle = colour("--mark");
    for (const row of known) {
      if (!shown.has(row)) continue;
      pen.beginPath();
      pen.arc(x(value(row)), y(row), STRIP.radius, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (near < 0) return;
    pen.strokeStyle = colour("--ink");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x(value(near)), y(near), STRIP.radius + 2, 0, 2 * Math.PI);
    pen.stroke();
  };

  const nearest = (/** @type {PointerEvent | MouseEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    let [best, least] = [-1, 144];
    for (const row of shown) {
      const distance =
        (x(value(row)) - event.clientX + box.left) ** 2 + (y(row) - event.clientY + box.top) ** 2;
      if (distance < least) [best, least] = [row, distance];
    }
    return best;
  };
  const name = (/** @type {number} */ row) =>
    data.columns.map((column, n) => (column.number ? "" : String(data.rows[row][n] ?? ""))).filter(Boolean).slice(0, 3).join(", ");

  canvas.addEventListener("pointermove", (event) => {
    near = nearest(event);
    canvas.style.cursor = near >= 0 && data.links[near] ? "pointer" : "";
    told.textContent = near < 0 ? "" : `${name(near)}: ${written(value(near))} ${data.columns[at].unit}`;
    draw();
  });
  canvas.addEventListener("pointerleave", () => {
    near = -1;
    told.textContent = "";
    draw();
  });
  canvas.addEventListener("click", (event) => {
    const address = data.links[nearest(event)];
    if (address) location.href = address;
  });
  listeners.push((kept) => {
    const some = new Set(kept);
    shown = new Set(known.filter((row) => some.has(row)));
    draw();
  });
  new ResizeObserver(draw).observe(canvas);
  whenColoursChange(draw);
}

for (const root of document.querySelectorAll("[data-strip]")) startStrip(/** @type {HTMLElement} */ (root));
