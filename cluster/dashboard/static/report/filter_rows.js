// Which rows of an exported report pass a filter, and in which order: as index/index_query.py has it. A comparison with
// what is absent is false; `!=`, `!~` and `!` are the exact opposites of `=`, `~` and nothing.

const FLAGS = {
  truncated: (row) => row.finish === "length",
  trained: (row) => row.advantage !== null,
  disagreed: (row) => row.disagreed,
  correct: (row) => row.correct === true,
  bookmarked: (row) => row.bookmarked,
};

const BEHIND = 2 ** 30; // more than any step

const COMPARE = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
};

const lower = (text) => text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()); // A-Z alone, as the index has it

/** A value of a row by the name of its field; numbers as the index keeps them, in 32 bits. */
function valueOf(row, field) {
  const value = field.startsWith("reward.") ? row.components[field.slice("reward.".length)] : row[field];
  if (typeof value === "boolean") return value ? 1 : 0;
  return typeof value === "number" ? Math.fround(value) : (value ?? null);
}

/** Whether the row passes the tree of a filter. */
export function passes(row, node) {
  switch (node.kind) {
    case "and":
      return node.parts.every((part) => passes(row, part));
    case "or":
      return node.parts.some((part) => passes(row, part));
    case "not":
      return !passes(row, node.part);
    case "flag":
      return FLAGS[node.field](row);
    case "between": {
      const value = valueOf(row, node.field);
      return value !== null && value >= Math.fround(node.low) && value <= Math.fround(node.high);
    }
    default:
      return compares(row, node);
  }
}

function compares(row, { field, operator, value }) {
  if (operator.startsWith("!")) return !compares(row, { field, operator: operator === "!=" ? "=" : "~", value });
  const own = valueOf(row, field);
  if (value === null) return own === null;
  if (own === null) return false;
  if (operator === "~") return lower(String(own)).includes(lower(value));
  return COMPARE[operator](own, typeof value === "number" ? Math.fround(value) : value);
}

/** The rows sorted by "key", "-key" or "" (order of dispatch): equal ones in order of dispatch, absent ones at the end. */
export function sorted(rows, sort, fields) {
  const descending = sort.startsWith("-");
  const name = sort.replace(/^[-+]+/, "").trim();
  if (!name) return descending ? [...rows].reverse() : rows;
  const field = fields.find((one) => one.name === name || one.aliases.includes(name))?.name ?? name;
  // By step: training first, whichever way.
  const behind = (row) => (field === "step" && row.phase !== "train" ? (descending ? -BEHIND : BEHIND) : 0);
  const keyed = rows.map((row) => ({ row, key: field === "step" ? row.step + behind(row) : valueOf(row, field) }));
  keyed.sort((a, b) => {
    if (a.key === b.key) return 0;
    if (a.key === null) return 1;
    if (b.key === null) return -1;
    return (a.key < b.key ? -1 : 1) * (descending ? -1 : 1);
  });
  return keyed.map(({ row }) => row);
}
