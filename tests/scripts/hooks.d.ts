// Preact's hooks, but for a value that begins as nothing: a script cannot say there what it will hold, so it may hold
// anything. Values that begin as something keep their type.
import type { Dispatch, MutableRef, StateUpdater } from "./node_modules/preact/hooks/src/index.js";

export * from "./node_modules/preact/hooks/src/index.js";
export function useRef(initial?: null): { current: any };
export function useRef<T>(initial: T): MutableRef<T>;
export function useState(initial?: null): [any, Dispatch<StateUpdater<any>>];
export function useState<T>(initial: T | (() => T)): [T, Dispatch<StateUpdater<T>>];
