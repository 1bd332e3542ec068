/**
 * Images in HU, read back from the text that the page holds (see invariance/reporting/packing.py).
 */

/**
 * @typedef {{ key: string, title: string, kind: Kind, sample: number | null, step: number,
 *   base: string | null, delta: boolean, data: string }} Packed
 * @typedef {"ct" | "map" | "difference"} Kind
 * @typedef {{ key: string, title: string, kind: Kind, sample: number | null, values: Float32Array }} Picture
 */

/**
 * @param {string} text base64
 * @returns {Uint8Array<ArrayBuffer>}
 */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes raw DEFLATE
 * @returns {Promise<Uint8Array>}
 */
async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * The whole numbers of steps of one image.
 * @param {Packed} packed
 * @param {number} width pixels
 * @param {Int16Array | null} base numbers that these are counted from
 * @returns {Promise<Int16Array>}
 */
async function unpacked(packed, width, base) {
  const planes = await inflated(bytesOf(packed.data));
  const count = planes.length / 2;
  const numbers = new Int16Array(count);
  let left = 0;
  for (let n = 0; n < count; n++) {
    const zigzag = planes[n] | (planes[count + n] << 8);
    const value = (zigzag >>> 1) ^ -(zigzag & 1);
    left = packed.delta && n % width ? left + value : value;
    numbers[n] = base ? left + base[n] : left; // an Int16Array wraps round, as the differences did
  }
  return numbers;
}

/**
 * All images of a viewer, with the differences of the CT images from the first.
 * @param {Packed[]} packed
 * @param {number} width pixels
 * @returns {Promise<Map<string, Picture>>}
 */
async function readPictures(packed, width) {
  /** @type {Map<string, Picture>} */
  const found = new Map();
  const first = await unpacked(packed[0], width, null);
  for (const one of packed) {
    const numbers = one === packed[0] ? first : await unpacked(one, width, one.base ? first : null);
    const values = Float32Array.from(numbers, (number) => number * one.step);
    found.set(one.key, { key: one.key, title: one.title, kind: one.kind, sample: one.sample, values });
  }
  const x = found.get(packed[0].key);
  for (const { key, title, kind, sample, values } of [...found.values()]) {
    if (!x || kind !== "ct" || key === x.key) continue;
    const name = `${title.split(",")[0]} − x`;
    const apart = values.map((value, n) => value - x.values[n]);
    found.set(`${key}-x`, { key: `${key}-x`, title: name, kind: "difference", sample, values: apart });
  }
  return found;
}
