// Series on their way to a chart: smoothing, and the x axis in steps, tokens or time.

/** Exponential moving average with `weight` on what was, corrected for its start; nulls stay and are skipped. */
export function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0;
  let norm = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return null;
    sum = weight * sum + (1 - weight) * value;
    norm = weight * norm + (1 - weight);
    return sum / norm;
  });
}

/** x of the API ({step, time_s, tokens}) -> the chosen axis, ascending and without gaps, as a chart needs it. */
export function axisOf(x, axis) {
  const values = { step: x.step, tokens: x.tokens, time: x.time_s }[axis] ?? x.step;
  let last = 0;
  return values.map((value) => (last = Math.max(last, value ?? last)));
}

/** [least, greatest] of all values of some lists, null left out: the x axis of charts side by side; undefined of none. */
export function extentOf(lists) {
  let found;
  for (const x of lists.flat()) if (x !== null && x !== undefined) found = found ? [Math.min(found[0], x), Math.max(found[1], x)] : [x, x];
  return found;
}

/** Where `steps` (of evaluations: steps done before) lie on the axis, between what is known of the steps around. */
export function atSteps(steps, x, axis) {
  if (axis === "step") return steps;
  const along = axisOf(x, axis);
  return steps.map((step) => {
    // An evaluation before step s stands where step s - 1 ended.
    const after = x.step.findIndex((known) => known >= step - 1);
    if (step <= 0 || after < 0) return step <= 0 ? 0 : (along.at(-1) ?? 0);
    return along[after];
  });
}
