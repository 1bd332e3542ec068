/** The report's own buttons: figures as CSV, texts to paste; everything is unfolded for print. */

for (const button of document.querySelectorAll("[data-csv]")) {
  button.addEventListener("click", () => {
    /** @type {{ name: string, rows: (string | number | null)[][] }} */
    const { name, rows } = readStored(/** @type {HTMLElement} */ (button).dataset.csv || "");
    saveCsv(`${name}.csv`, rows);
  });
}

for (const found of document.querySelectorAll("[data-copy]")) {
  const button = /** @type {HTMLElement} */ (found);
  const text = find(document, `#${button.dataset.copy}`);
  const told = element("span", { role: "status", class: "copied" });
  button.after(told);
  button.addEventListener("click", async () => {
    getSelection()?.selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent || "");
      told.textContent = "copied";
    } catch {
      told.textContent = "selected; copy it with Ctrl-C";
    }
  });
}

for (const button of document.querySelectorAll("button.wait")) /** @type {HTMLElement} */ (button).hidden = false;

addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
