// Which part of the run the timeline shows, kept in the address, and the answers that hold it.
//
//   (nothing)       the whole run; of a live one the last steps, sliding with it
//   all=1           the whole of a live run
//   last=30         the last 30 seconds of a live run, sliding with it
//   from=..&to=..   Unix seconds; below 1e8 they are training steps, as the strip above every page gives them

import { clampView, isWhole, stepView, stepWindows } from "shoal/timeline/model.js";
import { usePacedApi } from "shoal/frame/paced.js";
import { replaceParams } from "shoal/frame/route.js";
import { useEffect, useMemo, useRef, useState } from "shoal/parts/ui.js";

const FIRST_UNIX_TIME = 1e8; // no run has this many steps, and none began before 1973
const AT_THE_END = 0.02; // a window that ends this close to the end of a live run (as a share of it) goes on with it
const STEPS_FOLLOWED = 4;
const SLIDES = 4; // a sliding window is asked for anew, from another start, this many times while it passes once
const ADDRESS_PAUSE_MS = 200;
const FETCH_PAUSE_MS = 120;
export const SPAN_LIMIT = 4000;

const numberOf = (text) => (text === undefined || text === "" || !Number.isFinite(Number(text)) ? null : Number(text));

// What the address asks for: {last: seconds}, {from, to}, or null for the whole run. `usual`: seconds of a live run that
// are shown unless something else is asked for.
export function wishOf(params, extent, windows, usual) {
  const last = numberOf(params.last) ?? (params.all || params.from || params.to ? null : usual);
  if (last !== null && last > 0) return { last };
  let [from, to] = [numberOf(params.from), numberOf(params.to)];
  if (from === null && to === null) return null;
  if ((from ?? 0) < FIRST_UNIX_TIME && (to ?? 0) < FIRST_UNIX_TIME) {
    from = from === null ? null : stepView(windows, from, extent)?.from ?? null;
    to = to === null ? null : stepView(windows, to, extent)?.to ?? null;
  }
  const view = { from: from ?? extent[0], to: to ?? extent[1] };
  return view.to > view.from ? view : null;
}

// The params that bring a window back.
export function paramsOf(view, extent, live) {
  const none = { from: null, to: null, last: null, all: null };
  if (isWhole(view, extent)) return live ? { ...none, all: 1 } : none;
  const length = view.to - view.from;
  if (live && extent[1] - view.to < AT_THE_END * length) return { ...none, last: length.toFixed(3) };
  return { ...none, from: view.from.toFixed(3), to: view.to.toFixed(3) };
}

/**
 * @param {string} run
 * @param {number | null} [from]
 * @param {number | null} [to]
 */
export function timelinePath(run, from = null, to = null) {
  const path = `/runs/${encodeURIComponent(run)}/timeline?limit=${SPAN_LIMIT}`;
  return path + (from === null ? "" : `&from=${from.toFixed(3)}`) + (to === null ? "" : `&to=${to.toFixed(3)}`);
}

// {data, whole, extent, windows, view, setView, error}: `data` is the answer that holds `view` (null before the first),
// `whole` the answer about the whole run, `extent` its first and last moment, `windows` its steps as [{step, start, end}].
export function useTimeline(run, route, live) {
  const whole = usePacedApi(timelinePath(run), ["events"]);
  const [held, setHeld] = useState(null); // a window that is moving and not in the address yet
  const [part, setAsked] = useWindowAnswer(run);
  // The answer about the whole of a live run is the older one: what came since is in the other.
  const windows = useMemo(() => stepWindows([whole.data, part.data]), [whole.data, part.data]);
  const usual = useUsual(live, windows);
  const extent = useMemo(() => latest(whole.data?.extent, part.data?.extent), [whole.data, part.data]);
  const wish = extent ? (held ?? wishOf(route.params, extent, windows, usual)) : null;
  const view = useMemo(() => viewOf(wish, extent), [wish?.last, wish?.from, wish?.to, extent]);
  setAsked(wish, view, extent);

  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const setView = (next) => {
    setHeld(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      replaceParams(paramsOf(next, extent, live));
      setHeld(null);
    }, ADDRESS_PAUSE_MS);
  };
  // While the window moves, the whole run stands in for what is not fetched yet: coarse, but never blank.
  const ready = view && part.data?.extent && part.data.from <= view.from + 1e-3 && part.data.to >= view.to - 1e-3;
  return { data: ready && !isWhole(view, extent) ? part.data : whole.data, whole: whole.data, extent, windows, view, setView, error: whole.error ?? part.error };
}

function latest(first, second) {
  if (!first || !second) return first ?? second ?? null;
  return [Math.min(first[0], second[0]), Math.max(first[1], second[1])];
}

function viewOf(wish, extent) {
  if (!extent) return null;
  if (!wish) return { from: extent[0], to: extent[1] };
  return clampView(wish.last ? { from: extent[1] - wish.last, to: extent[1] } : wish, extent);
}

// Seconds of a live run that are shown at first: the time of its last steps. It stays as it was found, so that the scale
// does not change under the eyes.
function useUsual(live, windows) {
  const usual = useRef(null);
  if (!live) return null;
  if (usual.current === null && windows.length > STEPS_FOLLOWED) {
    usual.current = windows.at(-1).end - windows.at(-1 - STEPS_FOLLOWED).end;
  }
  return usual.current;
}

// [the answer about a part of the run, a function that is told in each rendering what is in sight]. It is asked for even
// when the whole run came with every span, since who waited for whom is told of what is in sight; and once the window
// has stopped moving. A sliding window is fetched from a little before it, so that not each of its moves is a question.
/** @returns {[ReturnType<typeof usePacedApi>, (wish: any, view: any, extent: any) => void]} */
function useWindowAnswer(run) {
  const [asked, setAsked] = useState(null); // {from, to}, to null: up to now
  const wanted = useRef(null);
  const answer = usePacedApi(asked ? timelinePath(run, asked.from, asked.to) : null, asked?.to === null ? ["events"] : []);
  useEffect(() => {
    const next = wanted.current;
    if (next?.from === asked?.from && next?.to === asked?.to) return undefined;
    const timer = setTimeout(() => setAsked(next), asked ? FETCH_PAUSE_MS : 0);
    return () => clearTimeout(timer);
  });
  const tell = (wish, view, extent) => {
    const slide = wish?.last ? wish.last / SLIDES : 0;
    if (!view || isWhole(view, extent)) wanted.current = null;
    else if (slide) wanted.current = { from: Math.max(extent[0], Math.floor(view.from / slide) * slide), to: null };
    else wanted.current = { from: view.from, to: view.to };
  };
  return [answer, tell];
}
