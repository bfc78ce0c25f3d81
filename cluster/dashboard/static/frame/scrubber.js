// The strip above every page: the reward over the whole run, with marks. Click = that step, drag = a range of steps.

import { Tooltip, fmt, html, sparkPath, useMemo, useRef, useSize, useState } from "shoal/parts/ui.js";

const HEIGHT = 36;
const DRAG_PIXELS = 5;
const MARKS = { checkpoint: ["◆", "checkpoint"], restart: ["↻", "restart"], alert: ["▲", "alert"], eval: ["┃", "evaluation"] };

function place(steps, width) {
  const [first, last] = [steps[0] ?? 0, steps.at(-1) ?? 1];
  const span = Math.max(1, last - first);
  return {
    // What is after the last step (its checkpoint, the evaluation that ends the run) stands on the edge.
    x: (step) => 6 + Math.min(1, Math.max(0, (step - first) / span)) * (width - 12),
    step: (x) => Math.round(Math.min(last, Math.max(first, first + ((x - 6) / (width - 12)) * span))),
  };
}

function nearest(steps, wanted) {
  return steps.reduce((best, step) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), steps[0]);
}

function Mark({ mark, x }) {
  const [sign] = MARKS[mark.kind] ?? ["•"];
  return html`<span class=${"mark " + mark.kind} style=${{ left: `${x}px` }} title=${told(mark.told)} data-testid="mark">${sign}</span>`;
}

const MOST_TOLD = 8;

/** The marks with those that would lie on another of their kind told by that one: 2000 steps may have 1000 of them. */
function thinned(marks, x) {
  const last = {};
  const shown = [];
  for (const mark of marks) {
    const at = x(mark.step);
    const before = last[mark.kind];
    if (before && at - before.at < (mark.kind === "eval" ? 3 : 10)) before.told.push(mark);
    else shown.push((last[mark.kind] = { ...mark, at, told: [mark] }));
  }
  return shown;
}

/** One line for each mark that stands at this place. */
function told(marks) {
  const lines = marks.slice(0, MOST_TOLD).map(({ kind, step, text }) => `${MARKS[kind]?.[1] ?? kind}, step ${step}${text ? ": " + text : ""}`);
  return [...lines, ...(marks.length > MOST_TOLD ? [`and ${marks.length - MOST_TOLD} more`] : [])].join("\n");
}

function usePointer({ toStep, onStep, onRange, steps }) {
  const begun = useRef(null);
  const [drag, setDrag] = useState(null);
  const [hover, setHover] = useState(null);
  const at = (event) => event.clientX - event.currentTarget.getBoundingClientRect().left;
  return {
    drag,
    hover,
    handlers: {
      onPointerDown: (event) => {
        if (event.button !== 0) return;
        begun.current = at(event);
        event.currentTarget.setPointerCapture(event.pointerId);
      },
      onPointerMove: (event) => {
        const x = at(event);
        setHover(nearest(steps, toStep(x)));
        if (begun.current !== null && Math.abs(x - begun.current) >= DRAG_PIXELS) setDrag([begun.current, x].sort((a, b) => a - b));
      },
      onPointerUp: (event) => {
        const x = at(event);
        if (begun.current === null) return;
        if (Math.abs(x - begun.current) >= DRAG_PIXELS) {
          const [low, high] = [toStep(begun.current), toStep(x)].sort((a, b) => a - b);
          onRange(low, high);
        } else onStep(nearest(steps, toStep(x)));
        begun.current = null;
        setDrag(null);
      },
      onPointerCancel: () => {
        begun.current = null;
        setDrag(null);
      },
      onPointerLeave: () => setHover(null),
    },
  };
}

/**
 * steps, reward, marks as the API gives them; `current`: the step in sight, `range`: [from, to] or null.
 *
 * @param {Record<string, any>} props
 */
export function Scrubber({ loaded = true, steps = [], reward = [], marks = [], current = null, range = null, onStep, onRange, onClear }) {
  const [box, { width }] = useSize();
  const scale = useMemo(() => place(steps, Math.max(20, width)), [steps, width]);
  const path = useMemo(() => sparkPath(reward, width, HEIGHT, 6, steps.map(scale.x)), [reward, scale]);
  const shown = useMemo(() => thinned(marks, scale.x), [marks, scale]);
  const kinds = Object.keys(MARKS).filter((kind) => marks.some((mark) => mark.kind === kind));
  const { drag, hover, handlers } = usePointer({ toStep: scale.step, onStep, onRange, steps });
  const onKeyDown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !steps.length) return;
    event.preventDefault();
    const at = current === null ? steps.length - (by > 0 ? 1 : 0) : steps.indexOf(nearest(steps, current));
    onStep(steps[Math.min(steps.length - 1, Math.max(0, at + by))]);
  };
  const band = drag ?? (range ? range.map((step) => scale.x(step)) : null);
  const value = hover === null ? null : reward[steps.indexOf(hover)];
  return html`<div class="scrubber" data-testid="scrubber">
    <div class="scrub-area" ref=${box} ...${steps.length ? handlers : {}} tabindex="0" role="slider" aria-label="Step" onKeyDown=${onKeyDown}
      aria-valuemin=${steps[0] ?? 0} aria-valuemax=${steps.at(-1) ?? 0} aria-valuenow=${current ?? steps.at(-1) ?? 0}>
      <svg width=${width} height=${HEIGHT} aria-hidden="true">
        ${band ? html`<rect class="scrub-range" x=${band[0]} y="0" width=${Math.max(1, band[1] - band[0])} height=${HEIGHT} />` : null}
        <path class="scrub-line" d=${path} />
        ${current !== null && steps.length ? html`<line class="scrub-now" x1=${scale.x(current)} x2=${scale.x(current)} y1="0" y2=${HEIGHT} />` : null}
        ${hover !== null ? html`<line class="scrub-hover" x1=${scale.x(hover)} x2=${scale.x(hover)} y1="0" y2=${HEIGHT} />` : null}
      </svg>
      ${shown.map((mark) => html`<${Mark} mark=${mark} x=${scale.x(mark.step)} key=${mark.kind + mark.step + mark.text} />`)}
    </div>
    <div class="scrub-read">
      ${drag
        ? html`<span>steps ${scale.step(drag[0])}–${scale.step(drag[1])}</span>`
        : hover !== null
        ? html`<span>step ${hover}</span><span class="muted">reward ${fmt.number(value)}</span>`
        : range
          ? html`<span>steps ${range[0]}–${range[1]}</span><button type="button" class="link" onClick=${onClear} data-testid="range-clear">whole run</button>`
          : html`<span class="muted">${!loaded ? "reading …" : steps.length ? `steps ${steps[0]}–${steps.at(-1)}` : "no steps yet"}</span>
            ${kinds.length ? html`<${Tooltip} text=${kinds.map((kind) => `${MARKS[kind][0]} ${MARKS[kind][1]}`).join(", ")}>
              <span class="scrub-legend muted" tabindex="0" role="note" aria-label=${`Marks: ${kinds.map((kind) => MARKS[kind][1]).join(", ")}`}>${kinds.map((kind) => MARKS[kind][0]).join(" ")}</span><//>` : null}`}
    </div>
  </div>`;
}
