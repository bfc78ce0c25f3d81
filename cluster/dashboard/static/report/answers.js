// The answers of an exported report: those that are in the file, and those that can be made of what is in it.

import { parseFilter } from "shoal/report/filter_parser.js";
import { passes, sorted } from "shoal/report/filter_rows.js";

const PREVIEW_CHARACTERS = 160;

/** Answers of the whole run, whatever part of it was asked for. */
const WHOLE_RUN = /\/(timeline|ledger\/groups)$/;

const tables = new Map();

/** The answer of `report` (a Map of address -> answer) to an address; undefined where it has none. Throws FilterError. */
export function answerOf(report, url) {
  const exact = report.get(url);
  const [base, query = ""] = url.split("?");
  const params = new URLSearchParams(query);
  if (/\/runs\/[^/]+\/rollouts$/.test(base) && report.has(base)) return rolloutTable(tableOf(report, base), params);
  if (exact !== undefined) return exact;
  if (base.endsWith("/overview")) return narrowed(report.get(base), params);
  return WHOLE_RUN.test(base) ? report.get(base) : rolloutOf(report, base);
}

/** The rows as objects, made once. */
function tableOf(report, base) {
  if (!tables.has(base)) {
    const { columns, rows, ...rest } = report.get(base);
    const made = rows.map((row) => rowOf(columns, row));
    tables.set(base, { ...rest, rows: made, byAddress: new Map(made.map((row) => [addressOf(row), row])) });
  }
  return tables.get(base);
}

const addressOf = (row) => [row.phase, row.step, row.group_id, row.sample_index].map(encodeURIComponent).join("/");

function rowOf(columns, values) {
  const row = Object.fromEntries(columns.map((name, i) => [name, values[i]]));
  // What people noted is asked for like any other field.
  return { ...row, ...row.annotation, preview: (row.text ?? "").slice(0, PREVIEW_CHARACTERS) };
}

function rolloutTable(table, params) {
  const [filter, sort] = [params.get("filter") ?? "", params.get("sort") ?? ""];
  const tree = parseFilter(filter, table.fields);
  const found = sorted(tree ? table.rows.filter((row) => passes(row, tree)) : table.rows, sort, table.fields);
  const offset = Number(params.get("offset") ?? 0);
  const rows = found.slice(offset, offset + Number(params.get("limit") ?? 100));
  const inReport = { rows: table.rows.length, of: table.num_rollouts, filter: table.filter };
  return { rows, total: found.length, means: meansOf(found), offset, sort, filter, fields: table.fields, elapsed_ms: 0, in_report: inReport };
}

/** Means of reward, correct and length over the rows that have one. */
function meansOf(rows) {
  const mean = (name) => {
    const known = rows.map((row) => row[name]).filter((value) => value !== null && value !== undefined);
    return known.length ? known.reduce((sum, value) => sum + Number(value), 0) / known.length : null;
  };
  return Object.fromEntries(["reward", "correct", "length"].map((name) => [name, mean(name)]));
}

/** A completion that is in the table and has no page of its own: its text, and no tokens. */
function rolloutOf(report, base) {
  const [, run, address] = /^(.*\/runs\/[^/]+)\/rollouts\/(.+)$/.exec(base) ?? [];
  if (!run || !report.has(`${run}/rollouts`)) return undefined;
  const { rows, byAddress } = tableOf(report, `${run}/rollouts`);
  const row = byAddress.get(address);
  if (!row) return undefined;
  const siblings = rows.filter((one) => one.phase === row.phase && one.step === row.step && one.group_id === row.group_id);
  return { ...row, siblings, tokens: null, prompt_tokens: null, prompt_text: null, detail: "", score_s: null, reward_worker: "", previous: null, next: null };
}

/** The overview of the steps from `from` to `to`. */
function narrowed(overview, params) {
  const bound = (name, otherwise) => (/^\d+$/.test(params.get(name) ?? "") ? Number(params.get(name)) : otherwise);
  const [from, to] = [bound("from", 0), bound("to", Infinity)];
  if (!overview || (from === 0 && to === Infinity)) return overview;
  const kept = (steps) => steps.map((step, i) => [step, i]).filter(([step]) => step >= from && step <= to).map(([, i]) => i);
  const [of, evaluated] = [kept(overview.x.step), kept(overview.evaluations.step)];
  const cut = (series, places) => series.map((line) => ({ ...line, values: places.map((i) => line.values[i]) }));
  return {
    ...overview,
    x: Object.fromEntries(Object.entries(overview.x).map(([name, values]) => [name, of.map((i) => values[i])])),
    charts: overview.charts.map((chart) => ({ ...chart, series: cut(chart.series, of) })),
    evaluations: { step: evaluated.map((i) => overview.evaluations.step[i]), series: cut(overview.evaluations.series, evaluated) },
  };
}
