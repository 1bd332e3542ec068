/**
 * The viewer: images of one analysis, linked, in HU.
 *
 * It takes over what the macro ``viewer`` of viewer.html.j2 wrote.
 */

/**
 * @param {ViewerData} data
 * @returns {Record<Kind, Ends>} what is black and white at first, HU
 */
function firstEnds({ window, top, difference }) {
  return { ct: [...window], map: [0, top], difference: [-difference, difference] };
}

class Viewer {
  /**
   * @param {HTMLElement} root
   * @param {ViewerData} data
   * @param {Map<string, Picture>} pictures
   */
  constructor(root, data, pictures) {
    this.root = root;
    this.data = data;
    this.pictures = pictures;
    const [height, width] = data.shape;
    const tall = data.spacing ? data.spacing[0] / data.spacing[1] : 1;
    this.view = new View({ width, height, tall });
    this.tables = colourTables(data.colours);
    if (data.focus) {
      this.view.zoomBy(data.focus.zoom);
      this.view.moveTo(data.focus.column, data.focus.row);
    }
    this.from = choices(pictures);
    this.samples = Math.max(0, ...[...pictures.values()].map((one) => one.sample || 0));
    this.sample = 1;
    this.flickered = false;
    this.moves = false;
    this.opacity = 0.5;
    this.chosen = data.chosen || ["x", this.samples ? SAMPLE : "denoised", "std"];
    /** @type {{ column: number, row: number } | null} */
    this.cursor = null;
    /** @type {Layout} */
    this.layout = root.clientWidth < 700 ? "one" : "side";
    /** @type {Record<Kind, Ends>} */
    this.ranges = firstEnds(data);
    /** @type {Place[]} */
    this.places = [];
    this.waiting = false;
    this.timer = 0;
    this.over = new Pane("", element("p"));
    this.lay(this.layout);
    listenToControls(this);
    new ResizeObserver(() => this.show()).observe(find(root, ".panes"));
  }

  /** @param {Layout} layout */
  lay(layout) {
    this.layout = layout;
    this.places = lay(layout, this.from, this.chosen, () => this.show());
    const panes = find(this.root, ".panes");
    panes.dataset.layout = layout;
    panes.style.setProperty("--shape", String(this.data.shape[1] / (this.data.shape[0] * this.view.shape.tall)));
    panes.replaceChildren(...this.places.map(({ pane }) => pane.root));
    for (const { pane } of this.places) listenToPointer(pane.canvas, this.hands(pane));
    for (const button of buttonsOf(this.root, "layout")) {
      button.setAttribute("aria-pressed", String(button.dataset.layout === layout));
    }
    find(this.root, ".opacity").hidden = layout !== "overlay";
    this.show();
  }

  /**
   * The picture behind a choice, with the sample that is on.
   * @param {string} key
   * @param {boolean} swapped whether x takes its place
   */
  picture(key, swapped) {
    const named = swapped ? "x" : key === SAMPLE ? `sample${this.sample}` : key === APART ? `sample${this.sample}-x` : key;
    const found = this.pictures.get(named);
    if (!found) throw new Error(`there is no picture ${named}`);
    return found;
  }

  /** Draw everything, once, before the next frame. */
  show() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    const mm = this.data.spacing ? this.data.spacing[1] : null;
    for (const place of this.places) {
      const key = place.slot === null ? place.key : this.chosen[place.slot];
      const follows = place.slot === null ? key === SAMPLE : place.slot === 1 || this.layout === "overlay";
      const picture = this.picture(key, this.flickered && follows);
      place.pane.hold(picture, this.tables, this.ranges[picture.kind], this.view.shape);
      place.pane.draw(this.view, mm, this.cursor, this.onTop());
      if (place.slot === null && place.key === SAMPLE) find(place.pane.root, ".head").textContent = picture.title;
    }
    this.tell();
  }

  onTop() {
    if (this.layout !== "overlay" || this.flickered) return null;
    const picture = this.picture(this.chosen[2], false);
    this.over.hold(picture, this.tables, this.ranges[picture.kind], this.view.shape);
    return { sheet: this.over.sheet, opacity: this.opacity };
  }

  /** What is on, and the values under the cursor. */
  tell() {
    const slider = /** @type {HTMLInputElement} */ (find(this.root, ".sample input"));
    slider.value = String(this.sample);
    find(this.root, ".sample output").textContent = `${this.sample} of ${this.samples}`;
    find(this.root, ".flicker").setAttribute("aria-pressed", String(this.flickered));
    const [place, values] = [find(this.root, ".place"), find(this.root, ".values")];
    if (!this.cursor) return;
    const { column, row } = this.cursor;
    const mm = this.data.spacing;
    const far = mm ? `, ${hu((column + 0.5) * mm[1])} mm right, ${hu((row + 0.5) * mm[0])} mm down` : "";
    place.textContent = `column ${column}, row ${row}${far}`;
    const listed = this.from.map(({ key }) => this.picture(key, false));
    values.replaceChildren(
      ...listed.flatMap(({ key, title, kind, values: all }) => [
        element("dt", {}, kind === "ct" ? title.split(",")[0] : title),
        element("dd", { "data-key": key }, `${hu(all[row * this.data.shape[1] + column], kind === "map" ? 2 : 1)} HU`),
      ]),
    );
  }

  /**
   * @param {number} column
   * @param {number} row
   */
  point(column, row) {
    const [height, width] = this.data.shape;
    const inside = column >= 0 && row >= 0 && column < width && row < height;
    if (inside) this.cursor = { column: Math.floor(column), row: Math.floor(row) };
    this.show();
  }

  /**
   * @param {Kind} kind
   * @param {Ends} range
   */
  setRange(kind, range) {
    this.ranges[kind] = range;
    this.show();
  }

  /**
   * Drag right for more contrast range, down for a darker image; maps and differences only know their end.
   * @param {Kind} kind
   * @param {number} dx
   * @param {number} dy
   */
  shade(kind, dx, dy) {
    const [low, high] = this.ranges[kind];
    if (kind !== "ct") {
      const end = Math.min(5000, Math.max(0.05, high * Math.exp((dx + dy) / 200)));
      return this.setRange(kind, [kind === "map" ? 0 : -end, end]);
    }
    const width = Math.min(8000, Math.max(2, (high - low) * Math.exp(dx / 200)));
    const centre = (low + high) / 2 + (dy * (high - low)) / 300;
    this.setRange(kind, [centre - width / 2, centre + width / 2]);
  }

  /**
   * @param {Pane} pane
   * @returns {Hands}
   */
  hands(pane) {
    const place = (/** @type {[number, number, number, number]} */ ...at) => this.view.place(...at);
    return {
      point: (...at) => this.point(place(...at).column, place(...at).row),
      shade: (dx, dy) => this.shade(pane.picture ? pane.picture.kind : "ct", dx, dy),
      move: (dx, dy, width, height) => {
        const { across, down } = this.view.scale(width, height);
        this.view.moveTo(this.view.column - dx / across, this.view.row - dy / down);
        this.show();
      },
      zoom: (factor, ...at) => {
        this.view.zoomBy(factor, place(...at));
        this.show();
      },
      fit: () => this.fit(),
      moves: () => this.moves,
    };
  }

  fit() {
    this.view.fit();
    this.show();
  }

  /** Everything as it was at first. */
  restart() {
    this.ranges = firstEnds(this.data);
    this.fit();
  }

  /** @param {number} factor */
  zoom(factor) {
    const { cursor } = this;
    this.view.zoomBy(factor, cursor ? { column: cursor.column + 0.5, row: cursor.row + 0.5 } : undefined);
    this.show();
  }

  /** @param {number} number */
  preset(number) {
    if (this.data.presets[number]) this.setRange("ct", [...this.data.presets[number].limits]);
  }

  /** @param {number} number */
  setSample(number) {
    if (!this.samples) return;
    this.sample = ((number - 1 + this.samples) % this.samples) + 1;
    this.flickered = false;
    this.show();
  }

  flicker() {
    this.flickered = !this.flickered;
    this.show();
  }

  full() {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void this.root.requestFullscreen();
  }

  /** @returns {Keys} */
  keys() {
    return {
      sample: (by) => this.setSample(this.sample + by),
      flicker: () => this.flicker(),
      cursor: (columns, rows) => {
        const at = this.cursor || { column: Math.floor(this.view.column), row: Math.floor(this.view.row) };
        this.point(at.column + columns, at.row + rows);
      },
      move: (columns, rows) => {
        const step = this.data.shape[1] / this.view.zoom / 10;
        this.view.moveTo(this.view.column + columns * step, this.view.row + rows * step);
        this.show();
      },
      zoom: (factor) => this.zoom(factor),
      fit: () => this.fit(),
      preset: (number) => this.preset(number),
      layout: (layout) => this.lay(layout),
      full: () => this.full(),
    };
  }

  /** Flicker by itself, slowly enough to harm nobody. */
  blink() {
    const on = !this.timer;
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.flicker(), 600) : 0;
    find(this.root, ".blink").setAttribute("aria-pressed", String(on));
  }
}

for (const found of document.querySelectorAll("[data-viewer]")) {
  const root = /** @type {HTMLElement} */ (found);
  /** @type {ViewerData} */
  const data = readStored(root.dataset.viewer || "");
  const told = find(root, ".told");
  if (typeof DecompressionStream === "undefined") {
    told.textContent = "This browser is too old for the viewer; the figure at the end of the page shows the same images.";
  } else {
    readPictures(data.images, data.shape[1]).then(
      (pictures) => {
        told.textContent = data.said;
        find(root, ".work").hidden = false;
        new Viewer(root, data, pictures);
        root.dataset.ready = "yes";
      },
      (error) => (told.textContent = `The images of this page cannot be read: ${error.message}`),
    );
  }
}
