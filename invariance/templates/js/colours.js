/** From HU to colours: one table of 256 colours for each kind of image, between two ends. */

/**
 * @typedef {[number, number]} Ends
 * @typedef {Record<Kind, Uint8Array>} Tables red, green and blue of each colour
 */

/**
 * @param {{ map: string, difference: string }} stored base64
 * @returns {Tables}
 */
function colourTables(stored) {
  const grey = Uint8Array.from({ length: 768 }, (_, n) => Math.floor(n / 3));
  return { ct: grey, map: bytesOf(stored.map), difference: bytesOf(stored.difference) };
}

/**
 * Paint values; what lies outside the range takes the colour of its end.
 * @param {Float32Array} values HU, row by row
 * @param {Uint8Array} table
 * @param {Ends} range HU of the first and the last colour
 * @param {ImageData} into
 */
function paint(values, table, [low, high], into) {
  const pixels = into.data;
  const scale = 255 / Math.max(high - low, 1e-6);
  for (let n = 0; n < values.length; n++) {
    const level = Math.min(255, Math.max(0, Math.round((values[n] - low) * scale))) * 3;
    const at = n * 4;
    pixels[at] = table[level];
    pixels[at + 1] = table[level + 1];
    pixels[at + 2] = table[level + 2];
    pixels[at + 3] = 255;
  }
}

/**
 * A colour bar as wide as the canvas.
 * @param {CanvasRenderingContext2D} pen
 * @param {Uint8Array} table
 * @param {number} left
 * @param {number} top
 * @param {number} width
 * @param {number} height
 */
function drawBar(pen, table, left, top, width, height) {
  const shade = pen.createLinearGradient(left, 0, left + width, 0);
  for (let n = 0; n <= 32; n++) {
    const at = Math.min(255, n * 8) * 3;
    shade.addColorStop(n / 32, `rgb(${table[at]},${table[at + 1]},${table[at + 2]})`);
  }
  pen.fillStyle = shade;
  pen.fillRect(left, top, width, height);
}

/**
 * A HU value for the reader.
 * @param {number} value
 * @param {number} [digits]
 */
function hu(value, digits = 1) {
  return `${value.toFixed(digits).replace("-", "−")}`;
}
