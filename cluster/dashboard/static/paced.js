// Answers that cost the server some work, fetched anew no more often than a busy machine can spare it.

import { useApi, useChanges } from "shoal/api.js";
import { useEffect, useRef } from "shoal/ui.js";

const SHARE = 1 / 25; // of the time, at most, in which the server works on one answer
const SHORTEST_MS = 1000; // an event is on the screen within two seconds
const LONGEST_MS = 20_000;

/** As useApi, for what is expensive: between two fetches it waits 25 times as long as an answer takes, 1 to 20 s. */
export function usePacedApi(path, sources = []) {
  const answer = useApi(path, []);
  const pace = useRef({ begun: 0, pause: SHORTEST_MS, timer: 0 });
  useEffect(() => {
    pace.current.begun = performance.now();
    return () => {
      clearTimeout(pace.current.timer);
      pace.current.timer = 0;
    };
  }, [path]);
  useEffect(() => {
    const took = performance.now() - pace.current.begun;
    if (answer.data) pace.current.pause = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, took / SHARE - took));
  }, [answer.data]);
  useChanges((change) => {
    const now = pace.current;
    if (now.timer || !path || !(change === null || concerns(change, path, sources))) return;
    now.timer = setTimeout(() => {
      now.timer = 0;
      now.begun = performance.now();
      answer.refresh();
    }, Math.max(0, now.begun + now.pause - performance.now()));
  });
  return answer;
}

function concerns(change, path, sources) {
  const run = /\/runs\/([^/?]+)/.exec(path)?.[1];
  if (run && decodeURIComponent(run) !== change.run) return false;
  return sources === null || change.changed.some((name) => sources.includes(name));
}
