/** The part of the image that all panes show: one zoom and one centre, linked. */

/**
 * @typedef {{ width: number, height: number, tall: number }} Shape pixels, and how tall a pixel is over its width
 */

class View {
  /** @param {Shape} shape */
  constructor(shape) {
    this.shape = shape;
    this.zoom = 1;
    this.column = shape.width / 2;
    this.row = shape.height / 2;
  }

  /** Show all of it. */
  fit() {
    [this.zoom, this.column, this.row] = [1, this.shape.width / 2, this.shape.height / 2];
  }

  /**
   * Canvas units per image column and per row.
   * @param {number} width of the canvas
   * @param {number} height of the canvas
   */
  scale(width, height) {
    const { shape } = this;
    const across = this.zoom * Math.min(width / shape.width, height / (shape.height * shape.tall));
    return { across, down: across * shape.tall };
  }

  /**
   * The place in the image under a place on the canvas; whole numbers are the edges of pixels.
   * @param {number} x
   * @param {number} y
   * @param {number} width of the canvas
   * @param {number} height of the canvas
   */
  place(x, y, width, height) {
    const { across, down } = this.scale(width, height);
    return { column: this.column + (x - width / 2) / across, row: this.row + (y - height / 2) / down };
  }

  /**
   * Zoom by a factor so that a place of the image stays where it is.
   * @param {number} factor
   * @param {{ column: number, row: number }} [about]
   */
  zoomBy(factor, about = { column: this.column, row: this.row }) {
    const before = this.zoom;
    this.zoom = Math.min(64, Math.max(1, before * factor));
    const kept = before / this.zoom;
    this.moveTo(about.column + (this.column - about.column) * kept, about.row + (this.row - about.row) * kept);
  }

  /**
   * @param {number} column
   * @param {number} row
   */
  moveTo(column, row) {
    const { width, height } = this.shape;
    const [marginX, marginY] = [width / 2 / this.zoom, height / 2 / this.zoom];
    this.column = Math.min(width - marginX, Math.max(marginX, column));
    this.row = Math.min(height - marginY, Math.max(marginY, row));
  }
}

/**
 * The longest round length that fits into a room, in mm.
 * @param {number} mm the room
 */
function roundLength(mm) {
  return [200, 100, 50, 20, 10, 5, 2, 1, 0.5].find((length) => length <= mm) || 0;
}
