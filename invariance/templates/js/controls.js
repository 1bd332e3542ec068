/** The viewer's buttons, sliders and keys. */

/**
 * @param {HTMLElement} root
 * @param {string} name of the data attribute that they carry
 * @returns {HTMLElement[]}
 */
function buttonsOf(root, name) {
  return [...root.querySelectorAll(`button[data-${name}]`)].map((b) => /** @type {HTMLElement} */ (b));
}

/** @param {Viewer} viewer */
function listenToControls(viewer) {
  const { root } = viewer;
  const press = (/** @type {string} */ selector, /** @type {() => void} */ act) =>
    find(root, selector).addEventListener("click", act);
  const slider = /** @type {HTMLInputElement} */ (find(root, ".sample input"));
  slider.max = String(Math.max(1, viewer.samples));
  slider.addEventListener("input", () => viewer.setSample(Number(slider.value)));
  find(root, ".sample").hidden = viewer.samples < 2;
  for (const name of [".flicker", ".blink"]) find(root, name).hidden = !viewer.samples && !viewer.data.chosen;
  const opacity = /** @type {HTMLInputElement} */ (find(root, ".opacity input"));
  opacity.addEventListener("input", () => {
    viewer.opacity = Number(opacity.value) / 100;
    viewer.show();
  });
  for (const b of buttonsOf(root, "layout")) {
    b.addEventListener("click", () => viewer.lay(/** @type {Layout} */ (b.dataset.layout)));
  }
  for (const b of buttonsOf(root, "preset")) {
    b.addEventListener("click", () => viewer.preset(Number(b.dataset.preset)));
  }
  press(".flicker", () => viewer.flicker());
  press(".blink", () => viewer.blink());
  press(".closer", () => viewer.zoom(1.5));
  press(".further", () => viewer.zoom(1 / 1.5));
  press(".fit", () => viewer.fit());
  press(".first", () => viewer.restart());
  press(".hand", () => {
    viewer.moves = !viewer.moves;
    find(root, ".hand").setAttribute("aria-pressed", String(viewer.moves));
  });
  press(".full", () => viewer.full());
  find(root, ".full").hidden = !document.fullscreenEnabled;
  press(".save", () => savePanes(viewer.places.map((place) => place.pane), viewer.tables, viewer.data.name));
  listenToKeys(root, viewer.keys());
}
