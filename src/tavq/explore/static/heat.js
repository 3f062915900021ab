// Maps of numbers over a grid, in colours that the colour-blind can tell apart.

import { html, useEffect, useRef } from "./vendor/htm-preact.js";

// Blue to orange through grey (both ends of Okabe and Ito's palette); and one dark-to-bright scale of cividis' colours.
const BLUE = [0, 114, 178];
const MIDDLE = [236, 236, 236];
const ORANGE = [213, 94, 0];
const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

const mix = (first, second, t) => first.map((value, i) => Math.round(value + (second[i] - value) * t));

/** Colour of a value from -1 to 1. */
function divergingColour(value) {
  const t = Math.min(1, Math.abs(value));
  return mix(MIDDLE, value < 0 ? BLUE : ORANGE, t);
}

/** Colour of a value from 0 to 1. */
function sequentialColour(value) {
  const place = Math.min(1, Math.max(0, value)) * (CIVIDIS.length - 1);
  const i = Math.min(CIVIDIS.length - 2, Math.floor(place));
  return mix(CIVIDIS[i], CIVIDIS[i + 1], place - i);
}

function extent(grid) {
  let largest = 0;
  for (const row of grid) for (const value of row) largest = Math.max(largest, Math.abs(value));
  return largest;
}

/** A grid of values on a canvas, one pixel a cell, stretched by CSS. */
export function HeatCanvas({ grid, diverging = false, scale = null, opacity = 1, label }) {
  const canvas = useRef(null);
  const largest = scale ?? extent(grid);
  useEffect(() => {
    const context = canvas.current.getContext("2d");
    const image = context.createImageData(grid[0].length, grid.length);
    grid.flat().forEach((value, i) => {
      const relative = largest === 0 ? 0 : value / largest;
      const alpha = diverging ? Math.min(1, Math.abs(relative)) : 1;
      image.data.set([...(diverging ? divergingColour(relative) : sequentialColour(relative)), Math.round(255 * opacity * alpha)], 4 * i);
    });
    context.putImageData(image, 0, 0);
  }, [grid, diverging, largest, opacity]);
  return html`<canvas ref=${canvas} class="heat" width=${grid[0].length} height=${grid.length} role="img" aria-label=${label}></canvas>`;
}

/** A map beside its scale. */
export function HeatMap({ grid, label, unit = "", diverging = false }) {
  const largest = extent(grid);
  const ends = diverging ? [`−${largest.toFixed(2)}`, largest.toFixed(2)] : ["0", largest < 10 ? largest.toFixed(1) : Math.round(largest)];
  return html`<figure class="heat-map"><div class="square"><${HeatCanvas} grid=${grid} diverging=${diverging} label=${label} /></div>
    <${Scale} diverging=${diverging} ends=${ends} unit=${unit} /></figure>`;
}

export function Scale({ diverging, ends, unit = "" }) {
  return html`<figcaption class="scale-of-heat"><span>${ends[0]}</span>
    <i class=${diverging ? "diverging" : "sequential"} aria-hidden="true"></i><span>${ends[1]}${unit ? ` ${unit}` : ""}</span></figcaption>`;
}
