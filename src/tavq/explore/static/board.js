// An image under its grid of codes: hover, keyboard, selection and brush.

import { html, useRef, useState } from "./vendor/htm-preact.js";
import { HeatCanvas } from "./heat.js";
import { Img } from "./parts.js";

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const within = (value, limit) => Math.min(limit - 1, Math.max(0, value));

/** The cells on the line from one cell to another, without the first: a fast pointer skips cells. */
function cellsBetween([row, column], [toRow, toColumn]) {
  const steps = Math.max(Math.abs(toRow - row), Math.abs(toColumn - column), 1);
  return Array.from({ length: steps }, (_, i) => {
    const part = (i + 1) / steps;
    return [Math.round(row + (toRow - row) * part), Math.round(column + (toColumn - column) * part)];
  });
}

/** The rectangle around some cells. */
export function boxAround(cells) {
  const rows = cells.map(([row]) => row);
  const columns = cells.map(([, column]) => column);
  const [row, column] = [Math.min(...rows), Math.min(...columns)];
  return { row, column, height: Math.max(...rows) - row + 1, width: Math.max(...columns) - column + 1 };
}

/**
 * One image with `height` x `width` cells over it.
 *
 * `cursor` is [row, column] or null; `marked` a rectangle {row, column, height, width} or null; `painted` cells as
 * "row,column"; `style` that of the image. `onMove` is called where the cursor moves and with null where it leaves, `onPick` at a click or Enter,
 * `onStroke` with all cells of a stroke instead (a stroke of one cell is a click). With `box` a stroke is the rectangle
 * from its first cell to its last one, and Shift with Enter stretches the marked one to the cursor. With `scrolls` a
 * finger scrolls the page and does not draw.
 */
export function Board({ url, alt, height, width, heat = null, diverging = false, scale = null, cursor, marked = null, painted = null, style = {}, describe, onMove, onPick, onStroke = null, box = false, scrolls = false }) {
  const stroke = useRef(null);
  const [drawn, setDrawn] = useState([]);

  const cellAt = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const row = within(Math.floor(((event.clientY - box.top) / box.height) * height), height);
    return [row, within(Math.floor(((event.clientX - box.left) / box.width) * width), width)];
  };
  const follow = (event) => {
    const cell = cellAt(event);
    onMove(cell);
    if (stroke.current === null) return;
    if (box) {
      stroke.current = [stroke.current[0], cell];
      setDrawn(stroke.current);
      return;
    }
    const known = new Set(stroke.current.map((one) => one.join(",")));
    const added = cellsBetween(stroke.current.at(-1), cell).filter((one) => !known.has(one.join(",")));
    if (added.length > 0) {
      stroke.current = [...stroke.current, ...added];
      setDrawn(stroke.current);
    }
  };
  const begin = (event) => {
    if (onStroke === null || event.button !== 0 || (scrolls && event.pointerType === "touch")) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    stroke.current = [cellAt(event)];
    setDrawn(stroke.current);
  };
  const end = (event) => {
    const cells = stroke.current;
    stroke.current = null;
    setDrawn([]);
    if (cells !== null) onStroke(cells);
    else if (event.type === "pointerup") onPick(cellAt(event));
  };
  const press = (event) => {
    const [row, column] = cursor ?? [0, 0];
    if (event.key in STEPS) {
      const [down, right] = STEPS[event.key];
      onMove([within(row + down, height), within(column + right, width)]);
    } else if (event.key === "Enter" || event.key === " ") {
      if (onStroke !== null) onStroke([...(box && event.shiftKey && marked !== null ? [[marked.row, marked.column]] : []), [row, column]]);
      else onPick([row, column]);
    } else return;
    event.preventDefault();
  };

  const place = ({ row, column, height: rows = 1, width: columns = 1 }) => ({
    top: `${(100 * row) / height}%`, left: `${(100 * column) / width}%`,
    height: `${(100 * rows) / height}%`, width: `${(100 * columns) / width}%`,
  });
  const shown = box && drawn.length > 0 ? boxAround(drawn) : marked;
  const cells = [...(painted ?? []), ...(box ? [] : drawn).map((cell) => cell.join(","))];
  return html`<div class=${onStroke === null || scrolls ? "board" : "board drawn"} tabindex="0" role="application" aria-label=${`${alt}. Arrow keys move over ${height} times ${width} positions, Enter picks one${box ? ", Shift with Enter all up to one" : ""}.`}
    onPointerMove=${follow} onPointerLeave=${() => onMove(null)} onPointerDown=${begin} onPointerUp=${end} onPointerCancel=${end} onKeyDown=${press}>
    <${Img} url=${url} alt=${alt} style=${style} />
    ${heat === null ? null : html`<${HeatCanvas} grid=${heat} diverging=${diverging} scale=${scale} opacity=${0.78} label=${`Map over ${alt}`} />`}
    ${[...new Set(cells)].map((cell) => {
      const [row, column] = cell.split(",").map(Number);
      return html`<i key=${cell} class="painted" style=${place({ row, column })}></i>`;
    })}
    ${shown === null ? null : html`<i class="marked" style=${place(shown)}></i>`}
    ${cursor === null ? null : html`<i class="cursor" style=${place({ row: cursor[0], column: cursor[1] })}></i>`}
    <span class="visually-hidden" aria-live="polite">${cursor === null ? "" : describe(cursor)}</span></div>`;
}
