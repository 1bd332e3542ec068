/**
 * A table of any length that sorts by a click on its heads, is searched, and is saved as CSV.
 *
 * It takes over what the macro ``sortable_table`` wrote. Only one leaf of its rows stands in the page at a
 * time, so ten thousand rows open as fast as a hundred. The strips of the same table (strip.js) show the
 * rows that the search leaves.
 */

/**
 * @typedef {{ key: string, title: string, unit: string, number: boolean }} Column
 * @typedef {{ columns: Column[], rows: (string | number | null)[][], links: (string | null)[], name: string }} TableData
 * @typedef {(kept: number[]) => void} Listener
 */

const LEAF = 25;

/** @type {Map<string, { data: TableData, listeners: Listener[] }>} */
const tables = new Map();

/**
 * The rows of a table by its id, read once.
 * @param {string} id
 */
function tableOf(id) {
  let found = tables.get(id);
  if (!found) tables.set(id, (found = { data: readStored(`${id}-data`), listeners: [] }));
  return found;
}

/** @param {Column} column */
const headOf = (column) => column.title + (column.unit ? ` [${column.unit}]` : "");

/**
 * Numbers by size, words by the alphabet; what is not known comes last, either way round.
 * @param {number[]} kept
 * @param {TableData} data
 * @param {number} by
 * @param {number} sign 1 for rising, -1 for falling
 */
function sorted(kept, data, by, sign) {
  const collator = new Intl.Collator(undefined, { numeric: true });
  return kept.slice().sort((a, b) => {
    const [left, right] = [data.rows[a][by], data.rows[b][by]];
    if (left === null || right === null) return Number(left === null) - Number(right === null) || a - b;
    const order =
      typeof left === "number" && typeof right === "number"
        ? left - right
        : collator.compare(String(left), String(right));
    return sign * order || a - b;
  });
}

/**
 * @param {TableData} data
 * @param {number} row
 */
function rowElement(data, row) {
  const line = element("tr");
  data.columns.forEach((column, at) => {
    const value = data.rows[row][at];
    const cell = element("td", column.number ? { class: "figure" } : {});
    const link = at === 0 ? data.links[row] : null;
    if (value === null) cell.append(element("span", { class: "na" }, "not available"));
    else if (link) cell.append(element("a", { href: link }, String(value)));
    else cell.append(typeof value === "number" ? written(value) : value);
    line.append(cell);
  });
  return line;
}

/** @param {HTMLElement} root */
function startTable(root) {
  const { data, listeners } = tableOf(root.dataset.table || "");
  const body = find(root, "tbody");
  const [search, count] = [find(root, "input"), find(root, ".count")];
  const [back, on, place] = [find(root, ".back"), find(root, ".on"), find(root, ".leaf")];
  const heads = Array.from(root.querySelectorAll("thead th"));
  const words = data.rows.map((row) => row.filter((v) => typeof v === "string").join(" ").toLowerCase());
  let kept = data.rows.map((_, row) => row);
  let [leaf, by, sign] = [0, -1, 1];

  const show = () => {
    const last = Math.max(0, Math.ceil(kept.length / LEAF) - 1);
    leaf = Math.min(leaf, last);
    const order = by < 0 ? kept : sorted(kept, data, by, sign);
    body.replaceChildren(...order.slice(leaf * LEAF, (leaf + 1) * LEAF).map((row) => rowElement(data, row)));
    count.textContent = kept.length === data.rows.length ? `${kept.length} rows` : `${kept.length} of ${data.rows.length} rows`;
    place.textContent = `page ${leaf + 1} of ${last + 1}`;
    back.toggleAttribute("disabled", leaf === 0);
    on.toggleAttribute("disabled", leaf === last);
    find(root, ".pager").hidden = last === 0;
    heads.forEach((head, at) =>
      head.setAttribute("aria-sort", at !== by ? "none" : sign > 0 ? "ascending" : "descending"),
    );
  };
  heads.forEach((head, at) =>
    find(head, "button").addEventListener("click", () => {
      [sign, by, leaf] = [by === at ? -sign : 1, at, 0];
      show();
    }),
  );
  search.addEventListener("input", () => {
    const asked = /** @type {HTMLInputElement} */ (search).value.toLowerCase().split(/\s+/);
    kept = data.rows.map((_, row) => row).filter((row) => asked.every((word) => words[row].includes(word)));
    leaf = 0;
    show();
    listeners.forEach((tell) => tell(kept));
  });
  back.addEventListener("click", () => (leaf--, show()));
  on.addEventListener("click", () => (leaf++, show()));
  find(root, ".csv").addEventListener("click", () => {
    const order = by < 0 ? kept : sorted(kept, data, by, sign);
    saveCsv(`${data.name}.csv`, [data.columns.map(headOf), ...order.map((row) => data.rows[row])]);
  });
  find(root, ".tools").hidden = false;
  show();
}

for (const root of document.querySelectorAll("[data-table]")) startTable(/** @type {HTMLElement} */ (root));
