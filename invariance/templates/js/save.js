/** Handing files and text on to the reader. */

/**
 * Offer something as a file.
 * @param {string} name
 * @param {Blob} blob
 */
function saveFile(name, blob) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/**
 * One line of a CSV file. A cell that a spreadsheet would run as a formula is marked as text.
 * @param {readonly (string | number | null)[]} cells
 * @returns {string}
 */
function csvLine(cells) {
  const one = (/** @type {string | number | null} */ cell) => {
    if (cell === null) return "";
    if (typeof cell === "number") return String(cell);
    const safe = /^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return cells.map(one).join(",");
}

/**
 * Offer rows as a CSV file.
 * @param {string} name
 * @param {readonly (readonly (string | number | null)[])[]} rows
 */
function saveCsv(name, rows) {
  saveFile(name, new Blob([rows.map(csvLine).join("\r\n") + "\r\n"], { type: "text/csv" }));
}
