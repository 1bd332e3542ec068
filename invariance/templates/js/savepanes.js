/** The panes as one picture to keep. */

/**
 * Offer what the panes show as one picture.
 * @param {Pane[]} panes
 * @param {Tables} tables
 * @param {string} name
 */
function savePanes(panes, tables, name) {
  const [{ width, height }, gap, room] = [panes[0].canvas, 12, 44];
  const columns = Math.min(4, panes.length);
  const sheet = document.createElement("canvas");
  sheet.width = columns * (width + gap) + gap;
  sheet.height = Math.ceil(panes.length / columns) * (height + room + gap) + gap;
  const pen = sheet.getContext("2d");
  if (!pen) return;
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pen.font = "14px sans-serif";
  panes.forEach((pane, n) => {
    const [x, y] = [gap + (n % columns) * (width + gap), gap + Math.floor(n / columns) * (height + room + gap)];
    const title = pane.picture ? pane.picture.title : "";
    pen.drawImage(pane.canvas, x, y + 20);
    pen.fillStyle = "#1a1d21";
    pen.fillText(title, x, y + 14, width);
    pen.fillText(pane.ends.textContent || "", x + width / 2 + 8, y + height + 37, width / 2 - 8);
    if (pane.picture) drawBar(pen, tables[pane.picture.kind], x, y + height + 27, width / 2, 10);
  });
  sheet.toBlob((blob) => blob && saveFile(`${name}.png`, blob));
}
