// Which part of the run the timeline shows, kept in the address, and the answers that hold it.
//
//   (nothing)       the whole run, growing with it
//   from=..&to=..   Unix seconds; below 1e8 they are training steps, as the scrubber above every page gives them
//   last=30         the last 30 seconds of a live run, sliding with it

import { useApi } from "shoal/api.js";
import { clampView, isWhole, stepView, stepWindows } from "shoal/gantt_model.js";
import { replaceParams } from "shoal/route.js";
import { useEffect, useMemo, useRef, useState } from "shoal/ui.js";

const FIRST_UNIX_TIME = 1e8; // no run has this many steps, and none began before 1973
const AT_THE_END = 0.02; // a window that ends this close to the end of a live run (as a share of it) goes on with it
const MARGIN = 0.5; // fetched on both sides of a window, as shares of it, so that panning meets no blank
const ADDRESS_PAUSE_MS = 200;
const FETCH_PAUSE_MS = 120;
export const SPAN_LIMIT = 4000;

const numberOf = (text) => (text === undefined || text === "" || !Number.isFinite(Number(text)) ? null : Number(text));

// The window that the address asks for, or null for the whole run.
export function windowOf(params, extent, windows) {
  const last = numberOf(params.last);
  if (last !== null && last > 0) return clampView({ from: extent[1] - last, to: extent[1] }, extent);
  let [from, to] = [numberOf(params.from), numberOf(params.to)];
  if (from === null && to === null) return null;
  if ((from ?? 0) < FIRST_UNIX_TIME && (to ?? 0) < FIRST_UNIX_TIME) {
    from = from === null ? null : stepView(windows, from, extent)?.from;
    to = to === null ? null : stepView(windows, to, extent)?.to;
  }
  const view = { from: from ?? extent[0], to: to ?? extent[1] };
  return view.to > view.from ? clampView(view, extent) : null;
}

// The params that bring a window back.
export function paramsOf(view, extent, live) {
  if (!view || isWhole(view, extent)) return { from: null, to: null, last: null };
  const length = view.to - view.from;
  if (live && extent[1] - view.to < AT_THE_END * length) return { from: null, to: null, last: length.toFixed(3) };
  return { from: view.from.toFixed(3), to: view.to.toFixed(3), last: null };
}

function pathOf(run, view) {
  const path = `/runs/${encodeURIComponent(run)}/timeline?limit=${SPAN_LIMIT}`;
  return view ? `${path}&from=${view.from.toFixed(3)}&to=${view.to.toFixed(3)}` : path;
}

// {data, whole, windows, view, setView, error, loading}: `data` is the answer that holds `view` (null before the first),
// `whole` the answer about the whole run, `windows` its steps as [{step, start, end}].
export function useTimeline(run, route, live) {
  const whole = useApi(pathOf(run, null), ["events"]);
  const windows = useMemo(() => (whole.data ? stepWindows(whole.data.lanes) : []), [whole.data]);
  const [held, setHeld] = useState(null); // a window that is moving and not in the address yet
  const extent = whole.data?.extent;
  const asked = extent ? windowOf(route.params, extent, windows) : null;
  const view = held ?? asked ?? (extent ? { from: extent[0], to: extent[1] } : null);

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

  const finer = useFinerWindow(whole.data, view);
  const part = useApi(finer ? pathOf(run, finer) : null, ["events"]);
  const ready = finer && part.data && covers(part.data, view);
  return {
    data: ready ? part.data : whole.data,
    whole: whole.data,
    windows,
    view,
    setView,
    error: whole.error ?? (finer ? part.error : null),
    loading: whole.loading || (finer && part.loading),
  };
}

function covers(data, view) {
  return data.from <= view.from + 1e-3 && data.to >= view.to - 1e-3;
}

// The window to fetch when the whole run came with its short spans merged; null while that is good enough.
function useFinerWindow(whole, view) {
  const [finer, setFiner] = useState(null);
  useEffect(() => {
    if (!whole?.merged || !view || isWhole(view, whole.extent)) {
      setFiner(null);
      return undefined;
    }
    const length = view.to - view.from;
    const holds = finer && finer.from <= view.from && finer.to >= view.to && finer.to - finer.from < 4 * length;
    if (holds) return undefined;
    const wanted = { from: view.from - MARGIN * length, to: view.to + MARGIN * length };
    const timer = setTimeout(() => setFiner(clampView(wanted, whole.extent)), FETCH_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [whole, view?.from, view?.to]);
  return finer;
}
