// What stands around every page of a run: which run, how it is, where one can go.

import { Badge, Button, KeyHint, Problem, Tooltip, fmt, html, useEffect, useLayoutEffect, useRef, useState } from "shoal/parts/ui.js";
import { isReport, useApi, useStreamState } from "shoal/frame/api.js";
import { toggleTheme, useTheme } from "shoal/parts/colours.js";
import { knownKeys, useKeys } from "shoal/frame/keys.js";
import { Nav } from "shoal/frame/nav.js";
import { go, goTo, href, replaceParams, replaceWith } from "shoal/frame/route.js";
import { Scrubber } from "shoal/frame/scrubber.js";
import { Text } from "shoal/parts/text.js";

const PAGES = [
  ["overview", "Overview", "o"],
  ["metrics", "Metrics", "m"],
  ["steps", "Steps", "s"],
  ["rollouts", "Rollouts", "r"],
  ["timeline", "Timeline", "t"],
  ["fleet", "Fleet", "f"],
  ["ledger", "Ledger", "l"],
  ["compare", "Compare", "c"],
  ["doctor", "Doctor", "d"],
  ["log", "Log", "e"],
  ["config", "Config", ","],
];
/** Pages that ask for more than a report holds. */
const SERVED_ONLY = new Set(["metrics", "log"]);
const MANY_RUNS = 12; // beyond, the menu of runs can be searched
const PARENT = { step: "steps", group: "rollouts", rollout: "rollouts", prompt: "rollouts" };
const STATUS = {
  live: ["LIVE", "live"],
  finished: ["finished", "ok"],
  failed: ["failed", "alarm"],
  interrupted: ["interrupted", "watch"],
  stopped: ["stopped", "watch"],
};

/** The status of a run as a badge; a pulsing dot where it is live. */
export function Status({ status, error }) {
  const [word, state] = STATUS[status] ?? [status, "none"];
  return html`<${Badge} state=${state} title=${error || undefined} data-testid="status">${word}<//>`;
}

/** What a screen reader is told without asking: how the run is, and whether the page still hears of it. Steps are not
 *  among it: a run of short ones would never fall silent. */
function Announced({ info }) {
  const connection = useStreamState();
  const words = [
    info.status ? `run ${STATUS[info.status]?.[0].toLowerCase() ?? info.status}` : "reading the run",
    info.status && info.status !== "live" ? `${info.step} steps` : "",
    connection === "lost" ? "the dashboard does not answer" : "",
  ];
  return html`<p class="visually-hidden" role="status" data-testid="announced">${words.filter(Boolean).join(", ")}</p>`;
}

/** First to be reached with Tab: past the header, to what the page is about. */
function SkipLink() {
  const skip = (event) => {
    event.preventDefault(); // the fragment is the page's address
    document.getElementById("content")?.focus();
  };
  return html`<a class="skip" href="#content" onClick=${skip} data-testid="skip">Skip to the content</a>`;
}

function pageHref(page, run) {
  if (page === "compare") return href("compare", [], { runs: run });
  return href(page, [], {}, run);
}

function RunSwitcher({ run, page }) {
  const [open, setOpen] = useState(false);
  const menu = useRef(null);
  const { data } = useApi(open ? "/runs" : null);
  const [wanted, setWanted] = useState("");
  useEffect(() => {
    setWanted("");
    if (!open) return undefined;
    const outside = (event) => menu.current?.contains(event.target) || setOpen(false);
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, [open]);
  useKeys(open ? { Escape: [() => setOpen(false), ""] } : {});
  const target = PARENT[page] ?? page;
  const runs = data?.runs ?? [];
  const found = runs.filter((info) => `${info.run} ${info.status}`.toLowerCase().includes(wanted.toLowerCase()));
  return html`<div class="switcher" ref=${menu}>
    <button type="button" class="switch" aria-expanded=${open} aria-haspopup="true" onClick=${() => setOpen(!open)} data-testid="run-switcher">
      <${Text} value=${run} inline /><span aria-hidden="true" class="muted">▾</span>
    </button>
    ${open
      ? html`<div class="menu" data-testid="run-menu">
          <a href=${href("runs")} onClick=${() => setOpen(false)}>All runs</a>
          ${runs.length > MANY_RUNS
            ? html`<input class="field" type="search" placeholder=${`find among ${runs.length}`} aria-label="Find a run" data-testid="run-menu-find"
                onInput=${(event) => setWanted(event.currentTarget.value)} />`
            : null}
          ${found.map((info) => html`<a key=${info.run} href=${href(target, [], {}, info.run)} onClick=${() => setOpen(false)}
            aria-current=${info.run === run ? "true" : undefined}>
            <${Text} value=${info.run} inline /><span class="muted">${info.status}, step ${fmt.number(info.step)}</span></a>`)}
        </div>`
      : null}
  </div>`;
}

function DoctorCounts({ counts, run }) {
  const { error = 0, warning = 0 } = counts ?? {};
  const nothing = !error && !warning;
  return html`<a class="doctor-counts" href=${href("doctor", [], {}, run)} data-testid="doctor-counts" title="What the doctor found in this run">
    ${nothing ? html`<span class="muted">${counts ? "● nothing found" : ""}</span>` : null}
    ${error ? html`<${Badge} state="error">${error} ${error === 1 ? "problem" : "problems"}<//>` : null}
    ${warning ? html`<${Badge} state="warning">${warning} ${warning === 1 ? "warning" : "warnings"}<//>` : null}
  </a>`;
}

function Progress({ info, eta }) {
  const share = info.steps ? Math.min(1, info.step / info.steps) : null;
  return html`<span class="progress" data-testid="progress">
    <span>step <b>${fmt.number(info.step)}</b>${info.steps ? html`<span class="muted"> / ${fmt.number(info.steps)}</span>` : null}</span>
    ${share === null ? null : html`<span class="progress-bar" aria-hidden="true"><i style=${{ width: `${share * 100}%` }}></i></span>`}
    ${eta && info.status === "live" ? html`<span class="muted">${fmt.seconds(eta)} left</span>` : null}
  </span>`;
}

function ThemeAndHelp({ onHelp }) {
  const theme = useTheme();
  return html`<span class="frame-buttons">
    <button type="button" class="icon" aria-label=${theme === "dark" ? "Light theme" : "Dark theme"} title="Light or dark (d)" onClick=${toggleTheme} data-testid="theme">
      ${theme === "dark" ? "☀" : "☾"}</button>
    <button type="button" class="icon" aria-label="Keyboard help" title="Keyboard (?)" onClick=${onHelp} data-testid="help">?</button>
  </span>`;
}

function Connection() {
  const state = useStreamState();
  if (state === "lost") return html`<${Badge} state="watch" title="The dashboard does not answer; what is shown may be old" data-testid="connection">not connected<//>`;
  return state === "report" ? html`<span class="muted">exported report</span>` : null;
}

function IndexProgress({ index }) {
  if (!index || index.ready) return null;
  return html`<span class="muted" data-testid="indexing" title="The rollouts are being read for the first time; what is read is there already">
    reading rollouts ${fmt.number(index.files_done)} / ${fmt.number(index.files_total)}</span>`;
}

function Problems({ problems }) {
  const [open, setOpen] = useState(false);
  if (!problems?.length) return null;
  return html`<div class="problems" data-testid="problems">
    <button type="button" class="link" aria-expanded=${open} onClick=${() => setOpen(!open)}>▲ ${problems.length === 1 ? "A file" : `${problems.length} files`} could not be read whole</button>
    ${open ? html`<ul>${problems.map(({ file, message }) => html`<li key=${file + message}><code><${Text} value=${file} inline /></code> <${Text} value=${message} /></li>`)}</ul>` : null}
  </div>`;
}

/** The keys that work on this page. */
export function HelpOverlay({ onClose }) {
  const dialog = useRef(null);
  useKeys({ Escape: [onClose, ""], "?": [onClose, ""] });
  // The browser's own dialog: what is behind it takes no focus, and gets it back when the dialog is closed.
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    return () => shown.close();
  }, []);
  const leave = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog class="dialog" aria-label="Keyboard" data-testid="help-overlay" ref=${dialog} onCancel=${leave}
      onClick=${(event) => event.target === event.currentTarget && onClose()}>
    <div class="dialog-body">
      <header><h2>Keyboard</h2><button type="button" class="icon" aria-label="Close" onClick=${onClose}>✕</button></header>
      <div class="key-columns">${knownKeys().map(({ title, keys }) => html`<section key=${title}><h3>${title}</h3>
        <dl>${keys.map(({ key, help }) => html`<dt><${KeyHint} keys=${key} /></dt><dd>${help}</dd>`)}</dl></section>`)}</div>
    </div>
  </dialog>`;
}

/** Keys of every page: `g o` and its like, theme, help, following. */
export function useFrameKeys({ run, route, frame, onHelp }) {
  const jumps = Object.fromEntries(PAGES.map(([page, label, key]) => [
    "g " + key,
    [() => (run ? goTo(pageHref(page, run)) : page === "compare" ? go("compare") : false), label],
  ]));
  useKeys({ ...jumps, "g g": [() => goTo(href("runs")), "all runs"] }, "Go to");
  const follow = () => (run ? toggleFollow(route, frame) : false);
  useKeys({ d: [toggleTheme, "light or dark"], "?": [onHelp, "this help"], ...(run ? { ".": [follow, "follow the live run"] } : {}) }, "Everywhere");
}

const newestStep = (frame) => frame?.scrubber?.steps.at(-1);

function toggleFollow(route, frame) {
  if (route.params.live) return replaceParams({ live: null });
  if (route.page === "overview") return replaceParams({ live: 1, from: null, to: null });
  const newest = newestStep(frame);
  if (newest !== undefined) replaceWith(href("step", ["train", newest], { ...route.params, live: 1 }, route.run));
  return undefined;
}

/** With `live` in the address of a step, its page goes on to each new step. */
export function useFollow(route, frame) {
  const newest = newestStep(frame);
  useEffect(() => {
    if (!route.params.live || route.page !== "step" || newest === undefined) return;
    if (route.parts[0] === "train" && Number(route.parts[1]) < newest) replaceWith(href("step", ["train", newest], route.params, route.run));
  }, [newest, route]);
}

function onRange(route, from, to) {
  if (route.page === "overview") return replaceParams({ from, to, live: null });
  if (route.page === "rollouts") {
    const others = (route.params.filter ?? "").replace(/\s*&?\s*step:\d+-\d+/g, "").replace(/^\s*&\s*/, "").trim();
    return replaceParams({ filter: (others ? others + " & " : "") + `step:${from}-${to}` });
  }
  return go("overview", [], { from, to }, route.run);
}

function rangeOf({ page, params }) {
  if (page === "overview" && (params.from || params.to)) return [Number(params.from ?? 0), Number(params.to ?? params.from)];
  const found = page === "rollouts" && /step:(\d+)-(\d+)/.exec(params.filter ?? "");
  return found ? [Number(found[1]), Number(found[2])] : null;
}

function clearRange(route) {
  if (route.page === "rollouts") {
    const left = route.params.filter.replace(/\s*&?\s*step:\d+-\d+/g, "").replace(/^\s*&\s*/, "").trim();
    return replaceParams({ filter: left || null });
  }
  return replaceParams({ from: null, to: null });
}

function currentStep({ page, parts }) {
  const isHere = ["step", "group", "rollout"].includes(page) && parts[0] === "train" && /^\d+$/.test(parts[1] ?? "");
  return isHere ? Number(parts[1]) : null;
}

function FollowButton({ route, frame }) {
  const active = Boolean(route.params.live);
  return html`<${Tooltip} text="Go on to each new step as it comes (.)">
    <${Button} kind="quiet" active=${active} aria-pressed=${active} onClick=${() => toggleFollow(route, frame)} data-testid="follow">follow<//><//>`;
}

/** The frame of the pages of one run; `frame` is the answer of /api/runs/RUN, null until it is there. */
export function RunFrame({ run, route, frame, error, title, about, onHelp, children }) {
  const info = frame?.info ?? { run, status: "", step: null, steps: null };
  const current = PARENT[route.page] ?? route.page;
  const { steps = [], reward = [], marks = [] } = frame?.scrubber ?? {};
  return html`<div class="frame">
    <header class="top" data-testid="frame">
      <${SkipLink} /><${Announced} info=${info} />
      <div class="top-row">
        <a class="brand" href=${href("runs")} title="All runs">shoal</a>
        <${RunSwitcher} run=${run} page=${route.page} />
        ${frame ? html`<${Status} status=${info.status} error=${info.error} /><${Progress} info=${info} eta=${frame.eta_s} />` : null}
        ${frame || error ? null : html`<span class="muted" data-testid="frame-loading">reading the run …</span>`}
        <${IndexProgress} index=${frame?.index} /><${Connection} />
        <span class="spring"></span>
        <${DoctorCounts} counts=${frame?.doctor} run=${run} />
        ${info.status === "live" && !isReport ? html`<${FollowButton} route=${route} frame=${frame} />` : null}
        <${ThemeAndHelp} onHelp=${onHelp} />
      </div>
      <${Nav} pages=${PAGES.filter(([page]) => !(isReport && SERVED_ONLY.has(page))).map(([page, label]) => [page, label, pageHref(page, run)])} current=${current} />
      <${Scrubber} loaded=${frame !== null && frame !== undefined} steps=${steps} reward=${reward} marks=${marks} current=${currentStep(route)} range=${rangeOf(route)}
        onStep=${(step) => go("step", ["train", step], keptParams(route), run)}
        onRange=${(from, to) => onRange(route, from, to)} onClear=${() => clearRange(route)} />
    </header>
    <main class="main" id="content" tabindex="-1">
      <${PageHead} title=${title} about=${about} />
      <${Problem} error=${error} /><${Problems} problems=${frame?.problems} />
      ${children}
    </main>
  </div>`;
}

/** The page's name and, for who is here the first time, what is to be seen on it. */
function PageHead({ title, about }) {
  if (!title) return null;
  return html`<div class="page-head" data-testid="page-head"><h1>${title}</h1>${about ? html`<p class="muted">${about}</p>` : null}</div>`;
}

function keptParams({ page, params }) {
  return page === "step" ? { ...params, live: null } : {};
}

/** The frame of pages that are of no single run. */
export function PlainFrame({ current, title, about, onHelp, children }) {
  return html`<div class="frame">
    <header class="top" data-testid="frame">
      <${SkipLink} />
      <div class="top-row">
        <a class="brand" href=${href("runs")}>shoal</a><${Connection} /><span class="spring"></span>
        <${ThemeAndHelp} onHelp=${onHelp} />
      </div>
      <${Nav} pages=${[["runs", "Runs", href("runs")], ["compare", "Compare", href("compare")]]} current=${current} />
    </header>
    <main class="main" id="content" tabindex="-1"><${PageHead} title=${title} about=${about} />${children}</main>
  </div>`;
}
