/** One pane of the viewer: a head, the image on a canvas, and its colour bar. */

class Pane {
  /**
   * @param {string} label what screen readers call it
   * @param {HTMLElement} head
   */
  constructor(label, head) {
    this.canvas = /** @type {HTMLCanvasElement} */ (element("canvas", { role: "img", "aria-label": label }));
    this.bar = /** @type {HTMLCanvasElement} */ (element("canvas", { class: "bar", "aria-hidden": "true" }));
    this.ends = element("p", { class: "ends" });
    this.root = element("div", { class: "pane" }, head, this.canvas, this.bar, this.ends);
    this.sheet = document.createElement("canvas");
    this.painted = "";
    /** @type {Picture | null} what it shows now */
    this.picture = null;
  }

  /**
   * Paint an image, unless it is painted already.
   * @param {Picture} picture
   * @param {Tables} tables
   * @param {Ends} range
   * @param {Shape} shape
   */
  hold(picture, tables, range, shape) {
    this.picture = picture;
    const wanted = `${picture.key} ${range}`;
    if (wanted === this.painted) return;
    const pen = this.sheet.getContext("2d");
    if (!pen) return;
    if (this.sheet.width !== shape.width || this.sheet.height !== shape.height) {
      [this.sheet.width, this.sheet.height] = [shape.width, shape.height];
    }
    const pixels = pen.createImageData(shape.width, shape.height);
    paint(picture.values, tables[picture.kind], range, pixels);
    pen.putImageData(pixels, 0, 0);
    this.painted = wanted;
    this.ends.textContent = `${hu(range[0])} to ${hu(range[1])} HU`;
    this.canvas.setAttribute("aria-label", `${picture.title}, shown from ${hu(range[0])} to ${hu(range[1])} HU`);
    fitCanvas(this.bar);
    const barPen = this.bar.getContext("2d");
    if (barPen) drawBar(barPen, tables[picture.kind], 0, 0, this.bar.width, this.bar.height);
  }

  /**
   * Draw what is held.
   * @param {View} view
   * @param {number | null} mm of a column, for the scale bar
   * @param {{ column: number, row: number } | null} cursor
   * @param {{ sheet: HTMLCanvasElement, opacity: number } | null} over a second image on top
   */
  draw(view, mm, cursor, over) {
    fitCanvas(this.canvas);
    const pen = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    if (!pen || !width) return;
    const { across, down } = view.scale(width, height);
    const [left, top] = [width / 2 - view.column * across, height / 2 - view.row * down];
    const { width: columns, height: rows } = view.shape;
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    pen.imageSmoothingEnabled = across < 1;
    pen.drawImage(this.sheet, left, top, columns * across, rows * down);
    if (over) {
      pen.globalAlpha = over.opacity;
      pen.drawImage(over.sheet, left, top, columns * across, rows * down);
      pen.globalAlpha = 1;
    }
    const dense = devicePixelRatio || 1;
    if (mm) drawScaleBar(pen, across / mm, dense);
    if (cursor) drawCross(pen, left + (cursor.column + 0.5) * across, top + (cursor.row + 0.5) * down, dense);
  }
}

/**
 * Give a canvas as many pixels as it has on the screen.
 * @param {HTMLCanvasElement} canvas
 */
function fitCanvas(canvas) {
  const dense = devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * dense), Math.round(canvas.clientHeight * dense)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {number} perMm canvas units per mm
 * @param {number} dense canvas units per CSS pixel
 */
function drawScaleBar(pen, perMm, dense) {
  const { width, height } = pen.canvas;
  const length = roundLength(width / 3 / perMm);
  if (!length) return;
  const [x, y, long] = [12 * dense, height - 12 * dense, length * perMm];
  pen.font = `${12 * dense}px sans-serif`;
  pen.lineWidth = 3 * dense;
  pen.strokeStyle = "#000";
  pen.fillStyle = "#000";
  pen.fillRect(x - dense, y - 2 * dense, long + 2 * dense, 5 * dense);
  pen.strokeText(`${length} mm`, x, y - 6 * dense);
  pen.fillStyle = "#fff";
  pen.fillRect(x, y - dense, long, 3 * dense);
  pen.fillText(`${length} mm`, x, y - 6 * dense);
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {number} x
 * @param {number} y
 * @param {number} dense
 */
function drawCross(pen, x, y, dense) {
  for (const [wide, ink] of /** @type {[number, string][]} */ ([[3, "#000"], [1, "#fff"]])) {
    pen.lineWidth = wide * dense;
    pen.strokeStyle = ink;
    pen.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      pen.moveTo(x + 5 * dense * dx, y + 5 * dense * dy);
      pen.lineTo(x + 13 * dense * dx, y + 13 * dense * dy);
    }
    pen.stroke();
  }
}
