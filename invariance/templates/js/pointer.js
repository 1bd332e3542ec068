/** Mouse, pen and fingers on a pane. */

/**
 * @typedef {object} Hands what a pointer can do
 * @property {(x: number, y: number, width: number, height: number) => void} point
 * @property {(dx: number, dy: number) => void} shade change the window, by the way in CSS pixels
 * @property {(dx: number, dy: number, width: number, height: number) => void} move
 * @property {(factor: number, x: number, y: number, width: number, height: number) => void} zoom
 * @property {() => void} fit
 * @property {() => boolean} moves whether a drag moves the image rather than its window
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Hands} hands
 */
function listenToPointer(canvas, hands) {
  /** @type {Map<number, { x: number, y: number }>} */
  const down = new Map();
  const at = (/** @type {MouseEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const size = () => /** @type {[number, number]} */ ([canvas.clientWidth, canvas.clientHeight]);
  const gap = () => {
    const [a, b] = [...down.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    hands.point(at(event).x, at(event).y, ...size());
  });
  canvas.addEventListener("pointermove", (event) => {
    const [here, before] = [at(event), down.get(event.pointerId)];
    if (!before) return hands.point(here.x, here.y, ...size());
    if (down.size === 2) {
      const earlier = gap();
      down.set(event.pointerId, here);
      if (earlier > 0) hands.zoom(gap() / earlier, here.x, here.y, ...size());
      return;
    }
    down.set(event.pointerId, here);
    const [dx, dy] = [here.x - before.x, here.y - before.y];
    if (hands.moves() || event.shiftKey || event.buttons & 6) hands.move(dx, dy, ...size());
    else hands.shade(dx, dy);
  });
  for (const kind of /** @type {const} */ (["pointerup", "pointercancel"])) {
    canvas.addEventListener(kind, (event) => down.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => hands.fit());
  canvas.addEventListener(
    "wheel",
    (event) => {
      // A wheel over the page scrolls it, unless the reader is at work in the viewer.
      if (!event.ctrlKey && !canvas.closest(".viewer")?.contains(document.activeElement)) return;
      event.preventDefault();
      const { x, y } = at(event);
      hands.zoom(Math.exp(-event.deltaY / 400), x, y, ...size());
    },
    { passive: false },
  );
}
