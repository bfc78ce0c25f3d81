// The address is the state: #/r/RUN/PAGE/PART/...?param=value. Works from file:// too.

import { useEffect, useState } from "preact/hooks";

const RUNLESS = new Set(["runs", "compare"]);
const listeners = new Set();

/** "#/r/q2/step/train/4?sort=variance" -> {page, run, parts, params}; an address that means nothing is the list of runs. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const words = path.split("/").filter(Boolean).map(decode);
  const params = Object.fromEntries(new URLSearchParams(query));
  if (words[0] === "r" && words.length > 1) {
    return { run: words[1], page: words[2] || "overview", parts: words.slice(3), params };
  }
  return { run: null, page: words[0] || "runs", parts: words.slice(1), params };
}

function decode(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word; // a stray % in an address somebody typed
  }
}

/**
 * The address of a page of `run` (the one being shown unless named); params that are null or "" are left out.
 *
 * @param {string} page
 * @param {unknown[]} [parts]
 * @param {Record<string, any> | null} [params]
 * @param {string | null} [run]
 */
export function href(page, parts = [], params = {}, run = parse(location.hash).run) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params ?? {})) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  const words = RUNLESS.has(page) || !run ? [page === "runs" ? "" : page, ...parts] : ["r", run, page, ...parts];
  const tail = query.toString();
  return "#/" + words.map((word) => encodeURIComponent(String(word))).join("/") + (tail ? "?" + tail : "");
}

/** The address of a group or a rollout from its parts as the API gives them ("train/4/GID" or {phase, step, group_id}). */
export function addressParts(address) {
  if (typeof address === "string") return address.split("/").map(decode);
  const parts = [address.phase, address.step, address.group_id];
  return address.sample_index === undefined ? parts : [...parts, address.sample_index];
}

/** Goes to a page, as a click on its link would. */
export function go(page, parts, params, run) {
  goTo(href(page, parts, params, run));
}

export function goTo(target) {
  if (target === location.hash) return;
  location.hash = target;
}

/** Changes params of this page without a new entry in the history; null takes one away. */
export function replaceParams(patch) {
  const { page, run, parts, params } = parse(location.hash);
  replaceWith(href(page, parts, { ...params, ...patch }, run));
}

/** Puts another address in the place of this one. */
export function replaceWith(target) {
  if (target === location.hash) return;
  history.replaceState(null, "", target);
  for (const notify of listeners) notify();
}

/** {page, run, parts, params}, anew whenever the address changes. */
export function useRoute() {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const notify = () => setHash(location.hash);
    listeners.add(notify);
    addEventListener("hashchange", notify);
    notify();
    return () => {
      listeners.delete(notify);
      removeEventListener("hashchange", notify);
    };
  }, []);
  return useParsed(hash);
}

function useParsed(hash) {
  const [cached, setCached] = useState(() => ({ hash, route: parse(hash) }));
  if (cached.hash === hash) return cached.route;
  const next = { hash, route: parse(hash) };
  setCached(next);
  return next.route;
}
