// The page: finds what the address names and draws it inside the frame.

import { Component, Empty, Problem, html, render, useEffect, useState } from "shoal/parts/ui.js";
import { listen, useApi } from "shoal/frame/api.js";
import { restoreTheme } from "shoal/parts/colours.js";
import { HelpOverlay, PlainFrame, RunFrame, useFollow, useFrameKeys } from "shoal/frame/frame.js";
import { href, useRoute } from "shoal/frame/route.js";
import { named } from "shoal/parts/text.js";
import Compare from "shoal/pages/compare.js";
import Config from "shoal/pages/config.js";
import Doctor from "shoal/pages/doctor.js";
import Fleet from "shoal/pages/fleet.js";
import Group from "shoal/pages/group.js";
import Ledger from "shoal/pages/ledger.js";
import Log from "shoal/pages/log.js";
import Metrics from "shoal/pages/metrics.js";
import Overview from "shoal/pages/overview.js";
import Prompt from "shoal/pages/prompt.js";
import Rollout from "shoal/pages/rollout.js";
import Rollouts from "shoal/pages/rollouts.js";
import Runs from "shoal/pages/runs.js";
import Steps from "shoal/pages/steps.js";
import Timeline from "shoal/pages/timeline.js";

const SOURCES_OF_FRAME = null; // anything may change what the frame shows

/**
 * Page -> [component, its title, what is to be seen on it]. The page of a step has its step in its heading, and none here.
 *
 * @type {Record<string, [any, string, string?]>}
 */
const PAGES = {
  overview: [Overview, "Overview", "Is the model learning, is training stable, and where does the time go?"],
  metrics: [Metrics, "Metrics", "Every number that was recorded of the run, each as a chart."],
  steps: [Steps, "Steps"],
  step: [Steps, "Step"],
  rollouts: [Rollouts, "Rollouts", "Every answer that the model wrote: find some by a filter or a word, open one to see it token by token."],
  group: [Group, "Group", "One question and all answers that were sampled for it; the better ones of a group are reinforced, the worse ones discouraged."],
  rollout: [Rollout, "Completion", "One answer: what it was rewarded for, and what each of its tokens contributed to training."],
  prompt: [Prompt, "Prompt", "One question over all steps and runs that asked it: how it fared, and two answers side by side."],
  timeline: [Timeline, "Timeline", "What each process did and when, and who waited for whom."],
  fleet: [Fleet, "Fleet", "The processes of the run: how each is, how fast, and what it holds."],
  ledger: [Ledger, "Ledger", "Every group from the moment a question was given out until it was trained on once, or rejected with a reason."],
  doctor: [Doctor, "Doctor", "What looks wrong in this run, how that is known, and what to try."],
  log: [Log, "Log", "What happened to the run and its processes, and what these were doing when one hung."],
  config: [Config, "Configuration", "What this run was told to do."],
};

/** A page that fails says so and leaves the frame standing. */
class Boundary extends Component {
  componentDidCatch(error) {
    this.setState({ error, name: this.props.name });
    console.error(error);
  }

  render({ name, children }, { error, name: failed }) {
    if (!error || failed !== name) return children;
    return html`<${Problem} error=${"This page cannot be drawn: " + error.message} retry=${() => this.setState({ error: null })} />`;
  }
}

function NotFound({ page }) {
  return html`<${Empty} title=${named(`There is no page "${page}".`)}><a href=${href("runs")}>All runs</a><//>`;
}

function RunPage({ route, openHelp }) {
  const { run, page } = route;
  const { data, error, stale } = useApi(`/runs/${encodeURIComponent(run)}`, SOURCES_OF_FRAME);
  const frame = stale && data?.info.run !== run ? null : data;
  const [Page, title, about] = PAGES[page] ?? [NotFound, "No such page"];
  const hasHeading = Page === Steps;
  useFrameKeys({ run, route, frame, onHelp: openHelp });
  useFollow(route, frame);
  useEffect(() => {
    document.title = `${run} · ${title}`;
  }, [run, title]);
  return html`<${RunFrame} run=${run} route=${route} frame=${frame} error=${error} title=${hasHeading ? null : title} about=${about} onHelp=${openHelp}>
    ${error?.status === 404
      ? html`<${Empty} title="There is no such run."><a href=${href("runs")}>All runs</a><//>`
      : html`<${Boundary} name=${run + page}><${Page} key=${run} run=${run} route=${route} frame=${frame} page=${page} /><//>`}
  <//>`;
}

function PlainPage({ route, openHelp }) {
  const isCompare = route.page === "compare";
  const Page = isCompare ? Compare : route.page === "runs" ? Runs : NotFound;
  useFrameKeys({ run: null, route, frame: null, onHelp: openHelp });
  useEffect(() => {
    document.title = isCompare ? "Compare · shoal" : "shoal";
  }, [isCompare]);
  const known = isCompare || route.page === "runs";
  const about = isCompare ? "Runs side by side: what they were told, what they reached, how they came there." : "Every run below the folders that were named, the newest first.";
  return html`<${PlainFrame} current=${route.page} title=${isCompare ? "Compare" : known ? "Runs" : "No such page"} about=${known ? about : null} onHelp=${openHelp}>
    <${Boundary} name=${route.page}><${Page} run=${null} route=${route} frame=${null} page=${route.page} /><//>
  <//>`;
}

function App() {
  const route = useRoute();
  const [help, setHelp] = useState(false);
  useEffect(() => listen(route.run), [route.run]);
  useEffect(() => scrollTo(0, 0), [route.run, route.page]);
  const openHelp = () => setHelp(true);
  const Shown = route.run ? RunPage : PlainPage;
  return html`<${Shown} route=${route} openHelp=${openHelp} />${help ? html`<${HelpOverlay} onClose=${() => setHelp(false)} />` : null}`;
}

restoreTheme();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
