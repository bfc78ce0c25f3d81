// Timeline: what every actor did and when; who waited for whom.

import { isReport } from "shoal/frame/api.js";
import { Gantt } from "shoal/timeline/canvas.js";
import { clampView, panView, stepView, zoomView } from "shoal/timeline/model.js";
import { useKeys } from "shoal/frame/keys.js";
import { usePacedApi } from "shoal/frame/paced.js";
import { replaceParams } from "shoal/frame/route.js";
import { Legend, SpanPanel, StepTimes, Waits } from "shoal/timeline/panels.js";
import { timelinePath, useTimeline } from "shoal/timeline/window.js";
import { Button, Empty, Loading, Panel, Problem, fmt, html, useMemo, useRef, useState } from "shoal/parts/ui.js";

const ZOOM = 0.6;
const PAN = 0.2;

export default function TimelinePage({ run, route, frame }) {
  const live = frame?.info?.status === "live";
  const timeline = useTimeline(run, route, live);
  const [hovered, setHovered] = useState(null);
  const [pinned, setPinned] = useState(null);
  const depths = useRef(new Map());
  const { extent, windows, view, setView } = timeline;
  const data = useCompleted(timeline.data, timeline.whole, extent);
  const actions = useActions({ extent, view, setView, windows });
  useKeys(actions.keys, "Timeline");
  if (!data) {
    return html`<div class="page timeline"><${Problem} error=${timeline.error} />${timeline.error ? null : html`<${Loading} index=${frame?.index} />`}</div>`;
  }
  if (!data.lanes.length) {
    return html`<div class="page timeline"><${Empty} title="No spans yet." data-testid="timeline-empty">
      Actors write what they did to events.jsonl as the run goes on.<//></div>`;
  }
  const selected = route.params.span === undefined ? null : Number(route.params.span);
  const other = route.params.with === undefined ? null : Number(route.params.with);
  const [start] = extent;
  const path = route.params.path === "1" ? data.critical : null;
  const following = !route.params.all && !route.params.from && !route.params.to;
  const shared = { steps: windows, selected, highlight: hovered ?? pinned, onSelect: (span) => replaceParams({ span: span?.id ?? null }) };
  return html`<div class="page timeline">
    <${Problem} error=${timeline.error} />
    <${Panel} title="Timeline" help="One lane for each actor. The bar beside a name is how it spent the time that is shown."
        actions=${html`<${Toolbar} ...${{ run, windows, view, actions, other, start, live, path, following }} />`}>
      <${Gantt} ...${shared} data=${data} view=${view} path=${path} origin=${start} depths=${depths.current} name=${describe(data, view, start)}
        onView=${setView} onReset=${actions.whole} />
      ${other !== null ? html`<${SecondStep} ...${{ run, step: other, windows, view, extent, depths: depths.current, shared }} />` : null}
      <div class="timeline-foot"><${Legend} lanes=${data.lanes} stops=${data.stops} />
        <span class="muted">click a span for its groups · wheel zooms · drag pans · shift-drag measures · double click shows all</span></div>
    <//>
    <div class="timeline-below">
      <${Waits} waits=${data.waits} window=${data.waits_window ?? [data.from, data.to]} whole=${[data.from, data.to]} stops=${data.stops} pinned=${pinned} onHover=${setHovered} onPin=${setPinned} />
      <${SpanPanel} run=${run} id=${selected} origin=${start} onClose=${() => replaceParams({ span: null })} />
    </div>
    <${StepTimes} critical=${data.critical ?? []} view=${view} step=${actions.current} onStep=${actions.toStep} />
  </div>`;
}

// The answer about a part of the run, with what only the answer about the whole run can know: the paths of the steps that
// began before it.
function useCompleted(data, whole, extent) {
  return useMemo(() => {
    if (!data || data === whole || !whole?.extent) return data;
    const told = new Map([...(data.critical ?? []), ...(whole.critical ?? [])].map((each) => [each.step, each]));
    return { ...data, extent, critical: [...told.values()].sort((a, b) => a.step - b.step) };
  }, [data, whole, extent]);
}

function describe(data, view, start) {
  const [from, to] = [view.from - start, view.to - start].map((value) => value.toFixed(1));
  return `${data.lanes.length} lanes from ${from} to ${to} seconds. Plus and minus zoom, arrow keys pan, n and p go from step to step.`;
}

// What buttons and keys do to the window.
function useActions({ extent, view, setView, windows }) {
  const ready = Boolean(extent && view);
  const middle = ready ? (view.from + view.to) / 2 : 0;
  const zoom = (factor) => ready && setView(zoomView(view, extent, factor, middle));
  const pan = (share) => ready && setView(panView(view, extent, share * (view.to - view.from)));
  const whole = () => ready && setView(clampView({ from: extent[0], to: extent[1] }, extent));
  const toStep = (step) => {
    const found = ready ? stepView(windows, step, extent) : null;
    if (found) setView(found);
  };
  const current = ready ? currentStep(windows, view) : null;
  const turn = (by) => {
    if (!ready || !windows.length) return;
    const index = windows.findIndex((each) => each.step === current);
    const next = windows[Math.min(windows.length - 1, Math.max(0, index < 0 ? (by > 0 ? 0 : windows.length - 1) : index + by))];
    toStep(next.step);
  };
  const keys = {
    "+": [() => zoom(ZOOM), "zoom in"],
    "=": [() => zoom(ZOOM), ""],
    "-": [() => zoom(1 / ZOOM), "zoom out"],
    ArrowLeft: [() => pan(-PAN), "earlier"],
    ArrowRight: [() => pan(PAN), "later"],
    0: [whole, "the whole run"],
    n: [() => turn(1), "next step"],
    p: [() => turn(-1), "previous step"],
    Escape: [() => replaceParams({ span: null }), "let go of the span"],
  };
  const follow = () => replaceParams({ from: null, to: null, last: null, all: null });
  return { zoom, whole, toStep, turn, follow, current, keys };
}

// The step that the window shows, if it shows one: its middle lies in it and it is no longer than three of them.
function currentStep(windows, view) {
  const middle = (view.from + view.to) / 2;
  const found = windows.find((each) => each.end >= middle);
  return found && view.to - view.from < 3 * (found.end - found.start) ? found.step : null;
}

function Toolbar({ run, windows, view, actions, other, start, live, path, following }) {
  const choose = (event) => (event.currentTarget.value === "" ? actions.whole() : actions.toStep(Number(event.currentTarget.value)));
  const compare = (event) => replaceParams({ with: event.currentTarget.value || null });
  const options = windows.map((each) => html`<option key=${each.step} value=${each.step}>${each.step}</option>`);
  return html`<div class="toolbar">
    <span class="window num" data-testid="window">${(view.from - start).toFixed(1)} – ${(view.to - start).toFixed(1)} s
      <span class="muted"> (${fmt.seconds(view.to - view.from)})</span></span>
    <label>step <select data-testid="pick-step" value=${actions.current ?? ""} onChange=${choose}>
      <option value="">all</option>${options}</select></label>
    <label>beside <select data-testid="pick-other" value=${other ?? ""} onChange=${compare}>
      <option value="">none</option>${options}</select></label>
    <${Button} active=${path !== null} aria-pressed=${path !== null} data-testid="path" onClick=${() => replaceParams({ path: path ? null : 1 })}
      title="The chain of work that each step had to wait for: making anything else faster makes no step shorter">Critical path<//>
    <${Button} onClick=${() => actions.zoom(ZOOM)} aria-label="zoom in" data-testid="zoom-in">+<//>
    <${Button} onClick=${() => actions.zoom(1 / ZOOM)} aria-label="zoom out" data-testid="zoom-out">−<//>
    <${Button} onClick=${actions.whole} data-testid="whole">All<//>
    ${live ? html`<${Button} onClick=${actions.follow} active=${following} data-testid="follow" title="the last steps, as they come">Follow<//>` : null}
    ${isReport ? null : html`<a class="button" href=${`./api/runs/${encodeURIComponent(run)}/trace.json`} download=${`${run}.trace.json`}
      title="The whole timeline as a trace: open it at ui.perfetto.dev" data-testid="perfetto">Perfetto</a>`}
  </div>`;
}

// Another step on the same scale, under the one above: what took longer?
function SecondStep({ run, step, windows, view, extent, depths, shared }) {
  const from = stepView(windows, step, extent)?.from ?? null;
  const window = from === null ? null : { from, to: from + view.to - view.from };
  const { data } = usePacedApi(window ? timelinePath(run, window.from, window.to) : null, ["events"]);
  if (window === null) return html`<${Empty} title=${`Step ${step} has not been trained.`} />`;
  return html`<div class="second-step" data-testid="second-step">
    <h3>Beside it: step ${step}, on the same scale</h3>
    ${data ? html`<${Gantt} ...${shared} data=${data} view=${window} origin=${window.from} depths=${depths} still
      name=${`step ${step}`} onView=${() => {}} onReset=${() => {}} />` : null}
  </div>`;
}
