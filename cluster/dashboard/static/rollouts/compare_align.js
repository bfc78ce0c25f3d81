// Curves of several runs on one x axis, each of which has measured at places of its own.

// x values of a run on the axis "step", "tokens" or "time".
export function placesOf(x, axis) {
  return axis === "time" ? x.time_s : x[axis];
}

// The value of a curve at `at`: between two of its points on the line between them, outside of them null.
function valueAt(places, values, at, from) {
  let i = from;
  while (i + 1 < places.length && places[i + 1] <= at) i += 1;
  if (!places.length || at < places[0] || at > places.at(-1)) return [null, i];
  if (places[i] === at || i + 1 >= places.length) return [values[i], i];
  const [before, after] = [values[i], values[i + 1]];
  if (before === null || after === null) return [null, i];
  return [before + ((after - before) * (at - places[i])) / (places[i + 1] - places[i]), i];
}

function known(curve, axis) {
  const places = placesOf(curve.x, axis);
  const kept = places.map((place, i) => [place, curve.values[i]]).filter(([place, value]) => place !== null && value !== null);
  return { places: kept.map(([place]) => place), values: kept.map(([, value]) => value) };
}

// curves [{x, values}] -> {x [n], values: [one array of n for each curve]}: all places of all runs, in order.
export function aligned(curves, axis) {
  const own = curves.map((curve) => known(curve, axis));
  const x = [...new Set(own.flatMap(({ places }) => places))].sort((a, b) => a - b);
  const values = own.map(({ places, values: measured }) => {
    let from = 0;
    return x.map((at) => {
      const [value, index] = valueAt(places, measured, at, from);
      from = index;
      return value;
    });
  });
  return { x, values };
}
