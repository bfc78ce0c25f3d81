// A canvas that is drawn by a function and drawn anew when what it shows, its width or the theme changes.

import { useEffect, useLayoutEffect, useRef, useState } from "shoal/parts/ui.js";
import { token, useTheme } from "shoal/parts/colours.js";

/** A ref for a <canvas>; `draw(context, width, height, ink)` in CSS pixels, ink(name) being the colour --tk-NAME. */
export function useCanvas(draw, inputs) {
  const ref = useRef(null);
  const theme = useTheme();
  const [size, setSize] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const measure = () => {
      const { clientWidth: width, clientHeight: height } = ref.current;
      setSize((old) => (old.width === width && old.height === height ? old : { width, height }));
    };
    const observer = new ResizeObserver(measure);
    observer.observe(ref.current);
    measure();
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const { width, height } = size;
    if (!width || !height) return;
    const ratio = globalThis.devicePixelRatio || 1;
    ref.current.width = Math.round(width * ratio); // also clears it
    ref.current.height = Math.round(height * ratio);
    const context = ref.current.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw(context, width, height, (name) => token(`--tk-${name}`));
  }, [...inputs, size, theme]);
  return ref;
}
