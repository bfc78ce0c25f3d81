// The timeline's canvas with the names of its lanes: wheel zooms at the pointer, dragging pans, shift-dragging
// measures, a double click shows everything, a click chooses a span. What is shown is up to the caller (`view`).

import { token, useTheme } from "shoal/parts/colours.js";
import { SpanCard, seconds } from "shoal/timeline/card.js";
import { drawScene, makeFills } from "shoal/timeline/draw.js";
import { KINDS, TOP, hit, layoutLanes, panView, toTime, zoomView } from "shoal/timeline/model.js";
import { Text } from "shoal/parts/text.js";
import { fmt, html, useEffect, useLayoutEffect, useMemo, useRef, useSize, useState } from "shoal/parts/ui.js";

const COLOURS = Object.fromEntries([
  ...Object.keys(KINDS).map((kind) => [kind, `--span-${kind}`]),
  ...["generate", "score", "accumulate", "train", "sync", "save", "eval"].map((kind) => [`${kind}Ink`, `--span-${kind}-ink`]),
  ...["ink", "paper", "muted", "faint", "line", "lane", "step", "accent"].map((name) => [name, `--gantt-${name}`]),
  ["ribbonOdd", "--gantt-ribbon-odd"],
  ["ribbonEven", "--gantt-ribbon-even"],
]);
const DRAG_STARTS_PX = 4;
const ZOOM_PER_PIXEL = 0.002; // of the wheel, in the exponent: a turn of 120 shows a fifth less
const MOST_WHEEL = 1200;

// props: data (an answer of /timeline), view {from, to}, steps [{step, start, end}], origin (time 0 of the axis),
// selected (span id), highlight, path (critical paths to draw, or null), depths (a Map the caller keeps), onView(view), onReset(), onSelect(span or null),
// name (for those who cannot see it), still (true: the window cannot be moved)
export function Gantt(props) {
  const { data, view, steps, origin, selected, highlight, path, depths, name } = props;
  const canvas = useRef(null);
  const [frame, { width }] = useSize();
  const theme = useTheme();
  const [pointer, setPointer] = useState(null); // {left, top (in the window), time, lane, span}
  const [measure, setMeasure] = useState(null);
  const layout = useMemo(() => layoutLanes(data.lanes, depths, data.stops), [data, depths]);
  const paint = useRef(null);

  useLayoutEffect(() => {
    if (!width) return;
    const context = canvas.current.getContext("2d");
    const ratio = sharpen(canvas.current, width, layout.height);
    const colours = Object.fromEntries(Object.entries(COLOURS).map(([name, property]) => [name, token(property)]));
    paint.current = { context, ratio, colours, fills: makeFills(context, colours, ratio) };
  }, [width, layout.height, theme]);

  useLayoutEffect(() => {
    if (!paint.current || !width) return undefined;
    const request = requestAnimationFrame(() =>
      drawScene({
        ...paint.current,
        view,
        width,
        height: layout.height,
        origin,
        extent: data.extent,
        layout,
        versions: data.versions,
        steps,
        hovered: pointer?.span,
        selected,
        highlight,
        measure,
        path,
        pointer: pointer?.time,
      }),
    );
    return () => cancelAnimationFrame(request);
  }, [width, layout, theme, view, steps, origin, data, pointer, selected, highlight, measure, path]);

  const gestures = useGestures({ ...props, frame, width, layout, setPointer, setMeasure });
  return html`<div class="gantt" data-testid="gantt">
    <${LaneNames} layout=${layout} highlight=${highlight} />
    <div class="gantt-plot" ref=${frame} style=${{ height: `${layout.height}px` }} ...${gestures}>
      <canvas
        ref=${canvas}
        class="gantt-canvas"
        tabindex="0"
        role="img"
        aria-label=${name}
        style=${{ height: `${layout.height}px` }}
      />
      ${measure && html`<${MeasureTag} measure=${measure} view=${view} width=${width} />`}
      ${pointer?.span && !measure && html`<${SpanCard} pointer=${pointer} origin=${origin} />`}
    </div>
  </div>`;
}

function LaneNames({ layout, highlight }) {
  return html`<div class="gantt-names" style=${{ height: `${layout.height}px` }}>
    <div class="gantt-ribbon-name">weights</div>
    ${layout.lanes.map(
      (lane) => html`<div
        key=${lane.actor}
        class="gantt-name ${highlight && highlight.actor !== lane.actor && highlight.for !== lane.actor ? "dim" : ""}"
        style=${{ top: `${lane.top}px`, height: `${lane.height}px` }}
        data-testid=${`lane-${lane.actor}`}
      >
        <span class="gantt-actor" title=${lane.actor}><${Text} value=${lane.actor} inline /></span>
        <${Utilisation} shares=${lane.utilisation} />
      </div>`,
    )}
  </div>`;
}

// A bar of what the actor did in the window; what is left is idle.
function Utilisation({ shares }) {
  const parts = Object.keys(KINDS)
    .filter((kind) => shares?.[kind] > 0)
    .map((kind) => [kind, shares[kind]]);
  const busy = parts.reduce((sum, [kind, share]) => (kind === "wait" || kind === "down" ? sum : sum + share), 0);
  const words = parts.map(([kind, share]) => `${kind} ${fmt.percent(share)}`).join(", ") || "idle";
  return html`<span class="utilisation" title=${words} data-testid="utilisation">
    <span class="utilisation-bar" role="img" aria-label=${words}>
      ${parts.map(
        ([kind, share]) => html`<i class="span-${kind}" style=${{ width: `${Math.min(100, 100 * share)}%` }}></i>`,
      )}
    </span>
    <span class="utilisation-number">${fmt.percent(Math.min(1, busy), 0)}</span>
  </span>`;
}

function MeasureTag({ measure, view, width }) {
  const middle = (measure.from + measure.to) / 2;
  const x = ((middle - view.from) / (view.to - view.from)) * width;
  return html`<div class="gantt-measure" data-testid="measure" style=${{ left: `${x}px`, top: `${TOP + 2}px` }}>
    ${seconds(Math.abs(measure.to - measure.from))}
  </div>`;
}

// Gives the canvas one pixel of its own for each pixel of the screen; returns how many there are to a CSS pixel.
function sharpen(canvas, width, height) {
  const ratio = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  return ratio;
}

// The wheel zooms about the pointer, and pans with shift or sideways; `live` has what is shown now.
function useWheel(frame, live, place) {
  useEffect(() => {
    // Not through Preact: only a listener that is not passive may keep the page from scrolling.
    const wheel = (event) => {
      const now = live.current;
      if (now.still || !now.width || event.ctrlKey) return;
      event.preventDefault();
      const { x } = place(event);
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        const pixels = event.deltaX || event.deltaY;
        now.onView(panView(now.view, now.data.extent, (pixels / now.width) * (now.view.to - now.view.from)));
        return;
      }
      // A busy browser hands several turns of the wheel over as one event.
      const factor = Math.exp(Math.max(-MOST_WHEEL, Math.min(MOST_WHEEL, event.deltaY)) * ZOOM_PER_PIXEL);
      now.onView(zoomView(now.view, now.data.extent, factor, toTime(now.view, now.width, x)));
    };
    const element = frame.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
}

// Handlers of the pointer for the plot. A drag is followed on the window, so that it may leave the canvas.
function useGestures({ data, view, width, layout, frame, setPointer, setMeasure, onView, onReset, onSelect, still }) {
  const live = useRef({});
  live.current = { data, view, width, layout, onView, onSelect, still };
  const drag = useRef(null);
  const place = (event) => {
    const box = frame.current.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  useWheel(frame, live, place);

  const moved = (event) => {
    const now = live.current;
    const held = drag.current;
    const { x } = place(event);
    if (!held.going && Math.abs(x - held.x) < DRAG_STARTS_PX) return;
    held.going = true;
    setPointer(null);
    if (held.measures) setMeasure({ from: toTime(now.view, now.width, held.x), to: toTime(now.view, now.width, x) });
    else now.onView(panView(held.view, now.data.extent, ((held.x - x) / now.width) * (held.view.to - held.view.from)));
  };
  const released = (event) => {
    removeEventListener("pointermove", moved);
    removeEventListener("pointerup", released);
    const held = drag.current;
    drag.current = null;
    if (held.going) return;
    setMeasure(null);
    const now = live.current;
    const { x, y } = place(event);
    now.onSelect(hit(now.layout, now.view, now.width, x, y)?.span ?? null);
  };
  return {
    onPointerDown: (event) => {
      if (event.button !== 0) return;
      const { x } = place(event);
      drag.current = { x, view: live.current.view, measures: event.shiftKey || still, going: false };
      addEventListener("pointermove", moved);
      addEventListener("pointerup", released);
    },
    onPointerMove: (event) => {
      if (drag.current || !width) return;
      const { x, y } = place(event);
      setPointer({ left: event.clientX, top: event.clientY, time: toTime(view, width, x), ...hit(layout, view, width, x, y) });
    },
    onPointerLeave: () => setPointer(null),
    onDblClick: () => {
      setMeasure(null);
      onReset();
    },
  };
}
