// Answers of the server: fetched, kept while they are fetched anew, and fetched anew when the stream says so.
// In an exported report the answers are in the page and there is no server.

import { useEffect, useRef, useState } from "preact/hooks";
import { answerOf } from "shoal/report/answers.js";

const report = readReport();

function readReport() {
  const element = document.getElementById("report");
  return element ? new Map(Object.entries(JSON.parse(element.textContent))) : null;
}

/** True in an exported report: nothing but the embedded answers is there. */
export const isReport = report !== null;

const STILL_OPENING = 503; // what a run is answered with whose files are being read for the first time

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The path with its query in order and without empty parameters, so that one question has one address. */
export function canonical(path) {
  const [base, query = ""] = path.split("?");
  const pairs = [...new URLSearchParams(query)].filter(([, value]) => value !== "" && value !== "null" && value !== "undefined");
  pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const tail = new URLSearchParams(pairs).toString();
  return (base.startsWith("/api/") ? base : "/api" + (base.startsWith("/") ? "" : "/") + base) + (tail ? "?" + tail : "");
}

/** Whether there is an answer to `path`: always but in a report, which has a part of them. */
export function isThere(path) {
  return !report || answerOf(report, canonical(path)) !== undefined;
}

function fromReport(url) {
  const found = report ? answerOf(report, url) : undefined;
  if (found === undefined) throw new ApiError("This is not part of the exported report; the running dashboard has it.", 404);
  return found;
}

/**
 * The answer to GET `path` ("/runs/q2/overview?points=400", with or without /api); ApiError with the server's sentence.
 *
 * @param {string} path
 * @param {{signal?: AbortSignal}} [options]
 */
export async function get(path, { signal } = {}) {
  const url = canonical(path);
  if (isReport) return fromReport(url);
  let response;
  try {
    response = await fetch("." + url, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new ApiError("The dashboard does not answer. Is it still running?", 0);
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(body?.error ?? `The dashboard answered ${response.status} to ${url}.`, response.status);
  return body;
}

/**
 * POSTs JSON to `path`; the answer, or an ApiError with the server's sentence.
 *
 * @param {string} path
 * @param {unknown} value
 */
export async function post(path, value) {
  let response;
  try {
    response = await fetch("." + canonical(path), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });
  } catch {
    throw new ApiError("The dashboard does not answer. Is it still running?", 0);
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(body?.error ?? `The dashboard answered ${response.status}.`, response.status);
  return body;
}

// ---- the stream -----------------------------------------------------------------------------------------------------

const subscribers = new Set();
const watchers = new Set();
let stream = null;
let streamRun = undefined;
let streamState = isReport ? "report" : "connecting";
let missed = false; // whether there was a time in which nothing was listened to

/** Listens to the changes of `run` (null: of every run). One stream for the page. */
export function listen(run) {
  if (isReport || streamRun === run) return;
  streamRun = run;
  connect();
}

// A browser gives a server six connections for all tabs together: one that nobody sees leaves them to the others.
document.addEventListener("visibilitychange", () => {
  if (streamRun !== undefined) connect();
});

function connect() {
  stream?.close();
  stream = null;
  if (document.hidden) {
    missed = true;
    return;
  }
  const run = streamRun;
  const source = new EventSource("./api/stream" + (run ? "?run=" + encodeURIComponent(run) : ""));
  stream = source;
  source.addEventListener("open", () => {
    // Whatever happened while we were away is not told again: ask for everything once.
    if (missed || streamState === "lost") for (const subscriber of subscribers) subscriber(null);
    missed = false;
    setStreamState("open");
  });
  source.addEventListener("error", () => {
    setStreamState("lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => source === stream && connect(), 3000);
  });
  source.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    for (const subscriber of subscribers) subscriber(change);
  });
}

function setStreamState(state) {
  streamState = state;
  for (const watcher of watchers) watcher(state);
}

/** "open", "connecting", "lost", or "report" in an exported file. */
export function useStreamState() {
  const [state, setState] = useState(streamState);
  useEffect(() => {
    setState(streamState);
    watchers.add(setState);
    return () => watchers.delete(setState);
  }, []);
  return state;
}

/** Calls `handler(change)` for every change that the stream tells; null after a time in which it told none. */
export function useChanges(handler) {
  const latest = useRef(handler);
  latest.current = handler;
  useEffect(() => {
    const subscriber = (change) => latest.current(change);
    subscribers.add(subscriber);
    return () => subscribers.delete(subscriber);
  }, []);
}

// ---- answers as state -----------------------------------------------------------------------------------------------

/**
 * The answer to `path`, fetched anew when the stream names one of `sources` (null: any) for its run.
 *
 * {data, error, loading, stale, refresh}: `data` stays while it is fetched anew, also while another path is on its way
 * (`stale` is true then), so that nothing on the page jumps. A null path asks nothing.
 *
 * @param {string | null} path
 * @param {string[] | null} [sources]
 * @returns {{path: string | null, data: any, error: any, loading: boolean, stale: boolean, refresh: () => void}}
 */
export function useApi(path, sources = []) {
  const [state, setState] = useState({ path: null, data: null, error: null, loading: Boolean(path) });
  const fetcher = useRef(null);
  useEffect(() => {
    if (!path) return undefined;
    fetcher.current = makeFetcher(path, setState);
    fetcher.current.now();
    return () => {
      fetcher.current.stop();
      fetcher.current = null;
    };
  }, [path]);
  useChanges((change) => {
    if (fetcher.current && concerns(change, path, sources)) fetcher.current.soon();
  });
  const stale = state.path !== path;
  return { ...state, loading: state.loading || (Boolean(path) && stale), stale, refresh: () => fetcher.current?.now() };
}

/** Whether the answer to `path`, made of `sources` (null: any), may be another one after the change (null: after anything). */
export function concerns(change, path, sources) {
  if (change === null) return true;
  const run = /\/runs\/([^/?]+)/.exec(path)?.[1];
  if (run && decodeURIComponent(run) !== change.run) return false;
  return sources === null || change.changed.some((name) => sources.includes(name));
}

/**
 * Fetches one path, one request at a time. Between two it waits twice as long as an answer takes (0.15 to 1 s), so that
 * a page that is open costs a busy machine little and still shows an event within two seconds.
 */
function makeFetcher(path, setState) {
  const control = new AbortController();
  let busy = false;
  let again = false;
  let timer = 0;
  let pause = 150;
  async function now() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    const begun = performance.now();
    try {
      const data = await get(path, { signal: control.signal });
      if (!control.signal.aborted) setState({ path, data, error: null, loading: false });
    } catch (error) {
      if (control.signal.aborted) return;
      if (error instanceof ApiError && error.status === STILL_OPENING) {
        // No error: a large run is being read for the first time, and answers as soon as its files are.
        setState((old) => ({ path, data: old.path === path ? old.data : null, error: null, loading: true }));
        again = true;
      } else {
        // What was read before stays in sight when it is of the same path: a server that restarts blanks no page.
        setState((old) => ({ path, data: old.path === path ? old.data : null, error, loading: false }));
      }
    }
    busy = false;
    pause = Math.min(1000, Math.max(150, 2 * (performance.now() - begun)));
    if (again) soon();
    again = false;
  }
  function soon() {
    if (busy) again = true;
    else if (!timer) {
      timer = setTimeout(() => {
        timer = 0;
        now();
      }, pause);
    }
  }
  function stop() {
    control.abort();
    clearTimeout(timer);
  }
  return { now, soon, stop };
}
