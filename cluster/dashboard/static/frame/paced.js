// Answers that cost the server some work, fetched anew no more often than a busy machine can spare it.

import { concerns, useApi, useChanges } from "shoal/frame/api.js";
import { useEffect, useRef } from "shoal/parts/ui.js";

const SHARE = 1 / 25; // of the time, at most, in which the server works on one answer
const SHORTEST_MS = 300;
const LONGEST_MS = 5000;
// Below these an event is on the screen within two seconds, whatever the share: [an answer took less than, pause at most]
const QUICK = [[100, 600], [400, 1200]];

/** Milliseconds to leave the server in peace after an answer that took `took`. */
export function pauseAfter(took) {
  const most = QUICK.find(([below]) => took < below)?.[1] ?? LONGEST_MS;
  return Math.min(most, Math.max(SHORTEST_MS, took / SHARE - took));
}

/**
 * As useApi, for what is expensive: between two fetches it waits 24 times as long as an answer takes, 0.3 to 5 s.
 *
 * @param {string | null} path
 * @param {string[] | null} [sources]
 */
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
    if (answer.data) pace.current.pause = pauseAfter(took);
  }, [answer.data]);
  useChanges((change) => {
    const now = pace.current;
    if (now.timer || !path || !concerns(change, path, sources)) return;
    now.timer = setTimeout(() => {
      now.timer = 0;
      now.begun = performance.now();
      answer.refresh();
    }, Math.max(0, now.begun + now.pause - performance.now()));
  });
  return answer;
}
