// Keyboard: components say which keys they know; the help overlay lists them.

import { useLayoutEffect, useRef } from "preact/hooks";

const layers = []; // the newest component is asked first
let prefix = "";
let prefixTimer = 0;

/**
 * useKeys({"n": [handler, "next step"], "g o": [handler, "overview"]}, "Step"). A key is as KeyboardEvent.key gives it
 * ("J" is shift and j); two with a blank between are pressed one after the other. Keys rest while somebody types into a
 * field (but for Escape), and with Ctrl, Alt or Meta. A handler that returns false leaves the key to the ones below it.
 */
export function useKeys(bindings, title = "") {
  const layer = useRef({ bindings, title });
  layer.current.bindings = bindings;
  layer.current.title = title;
  // Before it is painted: who sees a row may press a key for it.
  useLayoutEffect(() => {
    const own = layer.current;
    layers.push(own);
    return () => layers.splice(layers.indexOf(own), 1);
  }, []);
}

/** [{title, keys: [{key, help}]}] of what is on the page now; keys without a help text are not listed. */
export function knownKeys() {
  const sections = new Map();
  for (const { bindings, title } of layers) {
    const keys = sections.get(title) ?? [];
    for (const [key, [, help]] of Object.entries(bindings)) {
      if (help && !keys.some((known) => known.key === key)) keys.push({ key, help });
    }
    if (keys.length) sections.set(title, keys);
  }
  return [...sections].map(([title, keys]) => ({ title, keys }));
}

function isTyping(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

function isPlainControl(target) {
  // Enter and blank on a focused link or button are that element's own.
  return target instanceof HTMLElement && target.closest("a, button, summary") !== null;
}

function run(key, event) {
  for (const { bindings } of [...layers].reverse()) {
    const binding = bindings[key];
    if (binding && binding[0](event) !== false) return true;
  }
  return false;
}

function startsSequence(key) {
  return layers.some(({ bindings }) => Object.keys(bindings).some((known) => known.startsWith(key + " ")));
}

function onKeyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (isTyping(event.target) && event.key !== "Escape") return;
  if ((event.key === "Enter" || event.key === " ") && isPlainControl(event.target)) return;
  clearTimeout(prefixTimer);
  const sequence = prefix ? prefix + " " + event.key : "";
  prefix = "";
  if (sequence && run(sequence, event)) {
    event.preventDefault();
    return;
  }
  if (startsSequence(event.key)) {
    prefix = event.key;
    prefixTimer = setTimeout(() => (prefix = ""), 1200);
    return;
  }
  if (run(event.key, event)) event.preventDefault();
}

addEventListener("keydown", onKeyDown);
