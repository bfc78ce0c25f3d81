// Line charts (uPlot): one crosshair over all charts of a page, threshold bands, click on a step, brush a range.

import uPlot from "uplot";
import { Help, fmt, html, useEffect, useMemo, useRef, useState } from "shoal/parts/ui.js";
import { ChartTable, IN_NUMBER, said, shownValue } from "shoal/charts/chart_values.js";
import { Text } from "shoal/parts/text.js";
import { series as seriesColour, token, useTheme } from "shoal/parts/colours.js";

const BAND_OPACITY = { watch: 0.07, alarm: 0.09, ok: 0.05 };
const DRAG_PIXELS = 4;
const STACK_OPACITY = 0.35;

function faded(colour, opacity) {
  const [r, g, b] = colour.match(/\d+(\.\d+)?/g);
  return `rgba(${r}, ${g}, ${b}, ${opacity})`;
}

function clean(values, scale) {
  return values.map((value) => (value === null || value === undefined || Number.isNaN(value) || (scale === "log" && value <= 0) ? null : value));
}

/** Bands that touch the range of the data: a threshold far away would press the curve flat. */
function drawBands(plot, bands) {
  const { left, top, width, height } = plot.bbox;
  const { min, max } = plot.scales.y;
  if (min === undefined || min === null) return;
  for (const { from, to, state } of bands) {
    const low = Math.max(min, from ?? min);
    const high = Math.min(max, to ?? max);
    if (low >= high) continue;
    const upper = Math.max(top, plot.valToPos(high, "y", true));
    const lower = Math.min(top + height, plot.valToPos(low, "y", true));
    const colour = token(state === "alarm" ? "--alarm" : state === "watch" ? "--watch" : "--ok");
    plot.ctx.fillStyle = faded(colour, BAND_OPACITY[state] ?? 0.06);
    plot.ctx.fillRect(left, upper, width, lower - upper);
    const edge = from !== null && from !== undefined && from > min ? lower : upper;
    plot.ctx.fillStyle = faded(colour, 0.55);
    plot.ctx.fillRect(left, edge, width, 1);
  }
}

function axes(unit, formatX) {
  const common = {
    stroke: token("--muted"),
    font: "11px system-ui, sans-serif",
    grid: { stroke: token("--grid"), width: 1 },
    ticks: { show: false },
  };
  return [
    { ...common, size: 24, gap: 4, space: 64, grid: { show: false }, values: (_, splits) => splits.map((x) => formatX(x)) },
    { ...common, grid: { ...common.grid, filter: wholeDecades }, size: 46, gap: 6, space: 28, values: (_, splits) => splits.map((y) => (y === null ? "" : axisValue(y, unit, digitsOf(splits)))) },
  ];
}

/** Lines of a log axis at the powers of ten alone, where there are some: nine lines a decade hide the curve. */
function wholeDecades(plot, splits) {
  if (plot.scales.y.distr !== 3) return splits;
  const decades = splits.filter(isPowerOfTen).length;
  return decades > 1 ? splits.map((y) => (isPowerOfTen(y) ? y : null)) : splits;
}

function isPowerOfTen(value) {
  return value > 0 && Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
}

/** Significant digits that tell the lines of an axis apart: 0.9999 and 1.0001 are not both "1". */
function digitsOf(splits) {
  const known = splits.filter((y) => y !== null && y !== 0);
  const step = Math.min(...known.slice(1).map((y, i) => Math.abs(y - known[i])));
  const largest = Math.max(...known.map(Math.abs));
  if (!(step > 0) || !Number.isFinite(step) || !Number.isFinite(largest)) return 3;
  return Math.min(8, Math.max(3, Math.ceil(Math.log10(largest / step) - 1e-9) + 1));
}

function axisValue(value, unit, digits = 3) {
  return IN_NUMBER.has(unit) ? fmt.withUnit(value, unit).replace(" ", "\u202f") : fmt.number(value, digits);
}

function fromZero(_, low, high) {
  return [0, high > 0 ? high * 1.08 : 1];
}

/** The range of the values with room around; flat lines get a range too, since 0 height shows nothing. */
function linearRange(_, low, high) {
  if (low === null || low === undefined) return [0, 1];
  const pad = high > low ? (high - low) * 0.08 : Math.abs(high) * 0.1 || 0.5;
  return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
}

function logRange(_, low, high) {
  if (low === null || low === undefined || low <= 0) return [0.1, 1];
  const [from, to] = low === high ? [low / 2, high * 2] : [low / 1.25, high * 1.25];
  return [oneDigit(from, Math.floor), oneDigit(to, Math.ceil)];
}

/** 0.0592 -> 0.05 with Math.floor: a log axis begins and ends at a number that can be read. */
function oneDigit(value, round) {
  const size = 10 ** Math.floor(Math.log10(value));
  return round(value / size + (round === Math.floor ? 1e-9 : -1e-9)) * size;
}

function options(spec, size, handlers) {
  const { series, scale, bands, unit, sync, formatX } = spec;
  const stacked = series.some((line) => line.role === "stack");
  return {
    ...size,
    legend: { show: false },
    padding: [8, 10, 0, 0],
    scales: {
      x: {
        time: false,
        range: (_, low, high) => {
          const [from, to] = handlers.current.domain ?? [low, high];
          return from === to ? [from - 0.5, to + 0.5] : [from, to];
        },
      },
      y: scale === "log" ? { distr: 3, range: logRange } : { range: spec.range ? () => spec.range : stacked ? fromZero : linearRange },
    },
    bands: fills(series),
    axes: axes(unit, formatX),
    series: [
      {},
      ...series.map((line, i) => lineOptions(line, i)),
    ],
    cursor: {
      y: false,
      points: { size: 6 },
      // The crosshair stands on a step, not between two: what it shows is of that step.
      move: (plot, left, top) => [left < 0 ? left : plot.valToPos(plot.data[0][plot.posToIdx(left)], "x"), top],
      drag: { x: true, y: false, setScale: false, dist: DRAG_PIXELS },
      // Only the crosshair is shared: a click or a brush is of one chart.
      sync: sync ? { key: sync, scales: ["x", null], setSeries: false, filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } } : undefined,
    },
    hooks: {
      drawClear: [(plot) => drawBands(plot, bands)],
      setCursor: [(plot) => handlers.current.onCursor(plot.cursor.idx ?? null)],
      setSelect: [(plot) => handlers.current.onBrush(plot)],
    },
  };
}

function colourOf(line, i) {
  return line.colour ?? seriesColour(i);
}

function lineOptions(line, i) {
  const isBound = line.role === "low" || line.role === "high";
  const colour = colourOf(line, i);
  return {
    stroke: isBound ? faded(rgbOf(seriesColour(0)), 0.25) : colour,
    width: isBound ? 1 : (line.width ?? 1.5),
    dash: line.dash,
    spanGaps: line.spanGaps ?? false,
    fill: line.role === "stack" && i === 0 ? faded(rgbOf(colour), STACK_OPACITY) : undefined,
    points: { show: isBound ? false : (line.points ?? isSparse), size: 5, fill: colour },
  };
}

/** What lies between two lines: a mean's spread, and the layers of a stack. uPlot counts series from 1. */
function fills(series) {
  const found = [];
  const low = series.findIndex((line) => line.role === "low");
  const high = series.findIndex((line) => line.role === "high");
  if (low >= 0 && high >= 0) found.push({ series: [high + 1, low + 1], fill: faded(rgbOf(seriesColour(0)), 0.12) });
  series.forEach((line, i) => {
    if (line.role === "stack" && i > 0) found.push({ series: [i + 1, i], fill: faded(rgbOf(colourOf(line, i)), STACK_OPACITY) });
  });
  return found;
}

function rgbOf(hex) {
  return hex.startsWith("#") ? `rgb(${[1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join(", ")})` : hex;
}

/** What is drawn: the values, those of a stack on top of the ones before. */
function plotted(series, scale) {
  let below = null;
  return series.map((line) => {
    if (line.role !== "stack") return clean(line.values, scale);
    const base = below;
    below = line.values.map((value, i) => (base === null ? value : value === null && base[i] === null ? null : (value ?? 0) + (base[i] ?? 0)));
    return below;
  });
}

/** A few points, or points among gaps, are drawn as points: a line through one is invisible. */
function isSparse(plot, index) {
  const known = plot.data[index].reduce((sum, value) => sum + (value !== null && value !== undefined ? 1 : 0), 0);
  return known <= 16;
}

function Legend({ series, unit, valueRefs, single }) {
  return html`<div class="chart-legend">
    ${series.map((line, i) => line.role === "low" || line.role === "high" ? null : html`<span class="chart-key" key=${line.label}>
      ${single ? null : html`<i class="swatch" style=${{ background: colourOf(line, i) }}></i><span class="chart-name"><${Text} value=${line.label} inline /></span>`}
      <b ref=${(element) => void (valueRefs.current[i] = element)}></b></span>`)}
  </div>`;
}

function lastKnown(values) {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null && values[i] !== undefined) return i;
  return -1;
}

/** Writes the values at the crosshair (else the last ones) into the legend, past Preact: this runs on every movement. */
function showValues({ spec, elements, place, index }) {
  const { x, series, unit, formatX, xLabel } = spec;
  series.forEach((line, i) => {
    const at = index ?? lastKnown(line.values);
    if (elements[i]) elements[i].textContent = at < 0 ? "–" : shownValue(line.values[at], unit);
  });
  if (place) place.textContent = index === null || x[index] === undefined ? "" : `${xLabel} ${formatX(x[index])}`;
}

/**
 * x [n] ascending; series [{label, values [n], role?, colour?, width?, dash?, spanGaps?}], role "low" and "high" for the
 * bounds of a spread, "stack" for layers; bands [{from, to, state}]; scale "linear" or "log". domain [low, high]: the x
 * axis, where it is not that of the values: charts of one page have one. `sync`: charts of the same name share the crosshair. onClick(index): a click on the plot;
 * onRange(low, high): a brush over it, in x. The height is the same with and without data.
 */
export function Chart({ title, help, x, series, bands = [], scale = "linear", unit = "", height: wanted, range, domain, sync = "run", xLabel = "step", formatX = fmt.number, onClick, onRange, ...rest }) {
  const theme = useTheme();
  const roomy = useRoomy();
  const height = wanted ?? (roomy ? 196 : 132);
  const box = useRef(null);
  const plot = useRef(null);
  const place = useRef(null);
  const valueRefs = useRef([]);
  const spec = { x, series, bands, scale, unit, sync, xLabel, formatX, range };
  const handlers = useRef({});
  handlers.current = makeHandlers({ spec, plot, place, valueRefs, onClick, onRange, domain });
  const data = useMemo(() => [x, ...plotted(series, scale)], [x, series, scale]);
  // What uPlot is made from anew when it changes; new values alone go in by setData.
  const shape = JSON.stringify([theme, scale, unit, xLabel, height, range, bands, series.map((s) => [s.label, s.colour, s.dash, s.role])]);
  const empty = !data[0].length || data.slice(1).every((values) => values.every((value) => value === null));
  useEffect(() => {
    if (empty) return undefined;
    const host = box.current; // the ref is empty already when the page goes and the observer still speaks
    const size = () => ({ width: Math.max(50, host.clientWidth), height });
    const made = new uPlot(options(spec, size(), handlers), data, host);
    plot.current = made;
    const onUp = clickCatcher(made, handlers);
    const observer = new ResizeObserver(() => made.setSize(size()));
    observer.observe(host);
    return () => {
      observer.disconnect();
      onUp();
      made.destroy();
      plot.current = null;
    };
  }, [shape, empty]);
  const drawn = useRef("");
  const axis = String(domain);
  useEffect(() => {
    if (plot.current && (plot.current.data !== data || drawn.current !== axis)) plot.current.setData(data);
    drawn.current = axis;
    handlers.current.onCursor(plot.current?.cursor.idx ?? null);
  }, [data, shape, axis]);
  const [table, setTable] = useState(false);
  const shown = series.filter((line) => line.role !== "low" && line.role !== "high");
  return html`<figure class="chart" ...${rest}>
    <figcaption>
      <span class="chart-title">${title}${unit && !IN_NUMBER.has(unit) ? html`<span class="chart-unit">${unit}</span>` : null}${help ? html`<${Help} text=${help} />` : null}</span>
      <span class="chart-right"><span class="chart-place" ref=${place}></span>
        ${empty ? null : html`<button type="button" class="chart-as-table" aria-pressed=${table} aria-label=${`${title} as a table`} title="The values as a table"
          onClick=${() => setTable(!table)} data-testid="as-table">≡</button>`}</span>
      <${Legend} series=${series} unit=${unit} valueRefs=${valueRefs} single=${shown.length === 1} />
    </figcaption>
    <${Box} spec=${spec} box=${box} plot=${plot} place=${place} valueRefs=${valueRefs} title=${title} height=${height} empty=${empty} onClick=${onClick} hidden=${table} />
    ${table ? html`<${ChartTable} title=${title} x=${x} xLabel=${xLabel} formatX=${formatX} series=${series} unit=${unit} height=${height} />` : null}
  </figure>`;
}

const WIDE = matchMedia("(min-width: 1900px) and (min-height: 1000px)");

/** Whether the window has room for taller charts. */
function useRoomy() {
  const [roomy, setRoomy] = useState(WIDE.matches);
  useEffect(() => {
    const changed = () => setRoomy(WIDE.matches);
    WIDE.addEventListener("change", changed);
    return () => WIDE.removeEventListener("change", changed);
  }, []);
  return roomy;
}

/** Where the plot is drawn. With the focus in it the arrows move the crosshair, and Enter opens what it stands on. */
function Box({ spec, box, plot, place, valueRefs, title, height, empty, onClick, hidden }) {
  const [at, setAt] = useState(null);
  const last = spec.x.length - 1;
  const index = at === null ? last : Math.min(at, last);
  const show = (to) => {
    setAt(to);
    showValues({ spec, elements: valueRefs.current, place: place.current, index: to });
    const made = plot.current;
    if (made) made.setCursor({ left: to === null ? -10 : made.valToPos(spec.x[to], "x"), top: to === null ? -10 : 1 });
  };
  const onKeyDown = (event) => {
    const to = { ArrowLeft: index - (at === null ? 0 : 1), ArrowRight: index + 1, Home: 0, End: last, PageUp: index - 10, PageDown: index + 10 }[event.key];
    if (to !== undefined && !empty) show(Math.min(last, Math.max(0, to)));
    else if (event.key === "Enter" && at !== null && onClick) onClick(index);
    else if (event.key === "Escape" && at !== null) show(null);
    else return;
    event.preventDefault();
  };
  const what = empty ? { role: "img" } : { role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": last, "aria-valuenow": index, "aria-valuetext": said(spec, index) };
  return html`<div class=${"chart-box" + (onClick ? " pickable" : "")} ref=${box} style=${{ height: `${height}px` }} hidden=${hidden} aria-label=${title}
      onKeyDown=${onKeyDown} onBlur=${() => at !== null && show(null)} ...${what}>
    ${empty ? html`<span class="chart-empty">no values</span>` : null}
  </div>`;
}

function makeHandlers({ spec, plot, place, valueRefs, onClick, onRange, domain }) {
  return {
    domain,
    onCursor: (index) => showValues({ spec, elements: valueRefs.current, place: place.current, index }),
    onBrush: (made) => {
      const { left, width } = made.select;
      if (width < DRAG_PIXELS) return;
      const [low, high] = [made.posToVal(left, "x"), made.posToVal(left + width, "x")];
      made.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      onRange?.(low, high);
    },
    onPick: () => {
      const index = plot.current?.cursor.idx;
      if (index !== null && index !== undefined) onClick?.(index);
    },
  };
}

/** Tells a click from a brush by the way the pointer went; returns what takes the listeners away. */
function clickCatcher(made, handlers) {
  let downX = null;
  const down = (event) => (downX = event.clientX);
  const up = (event) => {
    if (downX !== null && Math.abs(event.clientX - downX) < DRAG_PIXELS) handlers.current.onPick();
    downX = null;
  };
  made.over.addEventListener("mousedown", down);
  made.over.addEventListener("mouseup", up);
  return () => {
    made.over.removeEventListener("mousedown", down);
    made.over.removeEventListener("mouseup", up);
  };
}
