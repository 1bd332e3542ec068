/** Which panes stand in the viewer, and what each shows. */

/**
 * @typedef {"one" | "side" | "overlay" | "all"} Layout
 * @typedef {{ pane: Pane, slot: number | null, key: string }} Place slot: which choice of the reader it follows
 * @typedef {{ shape: [number, number], spacing: [number, number] | null, images: Packed[], window: Ends,
 *   presets: { name: string, limits: Ends }[], top: number, difference: number, chosen: string[] | null,
 *   focus: { column: number, row: number, zoom: number } | null,
 *   colours: { map: string, difference: string }, said: string, name: string }} ViewerData
 */

const SAMPLE = "sample";
const APART = "sample-x";

/**
 * What may be chosen: samples stand once, whichever of them is shown.
 * @param {Map<string, Picture>} pictures
 * @returns {{ key: string, title: string, kind: Kind }[]}
 */
function choices(pictures) {
  /** @type {{ key: string, title: string, kind: Kind }[]} */
  const found = [];
  for (const { key, title, kind, sample } of pictures.values()) {
    if (sample === null) found.push({ key, title, kind });
    else if (sample === 1 && kind === "ct") found.push({ key: SAMPLE, title: "Sample", kind });
    else if (sample === 1) found.push({ key: APART, title: "Sample − x", kind });
  }
  return found;
}

/**
 * A list from which the reader chooses an image.
 * @param {ReturnType<typeof choices>} from
 * @param {string} chosen
 * @param {string} label
 */
function chooser(from, chosen, label) {
  const list = /** @type {HTMLSelectElement} */ (element("select", { "aria-label": label }));
  for (const [kind, name] of [["ct", "Images"], ["difference", "Differences from x"], ["map", "Maps"]]) {
    const group = element("optgroup", { label: name });
    for (const one of from) if (one.kind === kind) group.append(new Option(one.title, one.key));
    if (group.children.length) list.append(group);
  }
  list.value = chosen;
  return list;
}

/**
 * The panes of a layout.
 * @param {Layout} layout
 * @param {ReturnType<typeof choices>} from
 * @param {string[]} chosen the reader's three choices
 * @param {() => void} changed
 * @returns {Place[]}
 */
function lay(layout, from, chosen, changed) {
  if (layout === "all") {
    const of = (/** @type {Kind} */ kind) => from.filter((one) => one.kind === kind);
    const some = [...of("ct"), ...of("difference").filter((one) => one.key === APART || !one.key.endsWith("-x")), ...of("map")];
    return some.map((one) => ({
      pane: new Pane(one.title, element("p", { class: "head" }, one.title)),
      slot: null,
      key: one.key,
    }));
  }
  const slots = { one: [1], side: [0, 1, 2], overlay: [0] }[layout];
  return slots.map((slot) => {
    const head = element("div", { class: "head" });
    for (const of of layout === "overlay" ? [0, 2] : [slot]) {
      const label = layout === "overlay" ? ["Below", "", "On top"][of] : `Image ${slot + 1}`;
      const list = chooser(from, chosen[of], label);
      list.addEventListener("change", () => {
        chosen[of] = list.value;
        changed();
      });
      head.append(list);
    }
    return { pane: new Pane("", head), slot, key: "" };
  });
}
