// Doctor: what is wrong with the run, how that is known, what to try; and all that was checked and is well.

import { Chart } from "shoal/charts/chart.js";
import { token, useTheme } from "shoal/parts/colours.js";
import { useKeys } from "shoal/frame/keys.js";
import { usePacedApi } from "shoal/frame/paced.js";
import { go, href } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Badge, Loading, Panel, Problem, fmt, glyph, html, useEffect, useRef } from "shoal/parts/ui.js";

const SEVERITIES = ["error", "warning", "info"];
const SIGNS = { error: "✖", warning: "▲", info: "i" };
const WORDS = { error: "act now", warning: "worth a look", info: "good to know" };

export default function DoctorPage({ run, route, frame }) {
  const { data, error } = usePacedApi(`/runs/${encodeURIComponent(run)}/doctor`, null);
  const list = useRef(null);
  const findings = data ? inOrder(data.findings) : [];
  useKeys({ j: [() => turn(list.current, 1), "next finding"], k: [() => turn(list.current, -1), "previous finding"] }, "Doctor");
  const wanted = route.params.rule;
  useEffect(() => {
    if (wanted && data) document.getElementById(`finding-${wanted}`)?.scrollIntoView({ block: "center" });
  }, [wanted, data === null]);
  if (!data) return html`<div class="page"><${Problem} error=${error} />${error ? null : html`<${Loading} index=${frame?.index} />`}</div>`;
  const serious = findings.filter((each) => each.severity !== "info");
  return html`<div class="page doctor" data-testid="doctor">
    <${Problem} error=${error} />
    ${serious.length ? html`<${Summary} findings=${findings} num=${data.rules.length} />` : html`<${Well} num=${data.rules.length} frame=${frame} />`}
    <div class=${findings.length ? "findings" : "findings none"} ref=${list}>
      ${findings.map((finding, index) => html`<${Finding} key=${`${finding.rule} ${index}`} run=${run} finding=${finding} />`)}
    </div>
    <${Silent} rules=${data.rules} findings=${findings} />
  </div>`;
}

function inOrder(findings) {
  const place = (finding) => SEVERITIES.indexOf(finding.severity);
  return [...findings].sort((a, b) => place(a) - place(b));
}

// Moves the focus among the cards; the browser brings the focused one into view.
function turn(list, by) {
  const cards = [...(list?.querySelectorAll("article") ?? [])];
  if (!cards.length) return false;
  const at = cards.indexOf(document.activeElement);
  cards[at < 0 ? (by > 0 ? 0 : cards.length - 1) : Math.min(cards.length - 1, Math.max(0, at + by))].focus();
  return true;
}

function Summary({ findings, num }) {
  const counts = SEVERITIES.map((severity) => [severity, findings.filter((each) => each.severity === severity).length]);
  return html`<div class="doctor-summary" data-testid="doctor-summary">
    ${counts.filter(([, count]) => count > 0).map(([severity, count]) => html`<${Badge} state=${severity} plain key=${severity}>
      <span class="glyph" aria-hidden="true">${SIGNS[severity]}</span>${count} ${WORDS[severity]}<//>`)}
    <span class="muted">${num} rules were checked; the other ${num - new Set(findings.map((each) => each.rule)).size} are silent.</span>
  </div>`;
}

// What one is pleased to see: a shoal that swims one way.
function Well({ num, frame }) {
  const fish = [[8, 26], [44, 12], [40, 42], [80, 27], [118, 12], [114, 43], [152, 28]];
  const step = frame?.info?.step;
  return html`<section class="panel well" data-testid="doctor-well">
    <svg viewBox="0 0 190 64" width="190" height="64" aria-hidden="true">
      ${fish.map(([x, y]) => html`<path key=${x} transform=${`translate(${x} ${y})`} d="M0 0l8 5c6-8 18-8 25 0c-7 8-19 8-25 0l-8 5z" />`)}
    </svg>
    <div>
      <h2>All is well${step ? ` at step ${step}` : ""}.</h2>
      <p class="muted">${num} rules were checked and none has anything to say that needs you.</p>
    </div>
  </section>`;
}

function Finding({ run, finding }) {
  const { rule, severity, title, since_step: since, evidence, chart, causes, links } = finding;
  return html`<article class=${`panel finding ${severity}`} tabindex="-1" id=${`finding-${rule}`} data-testid="finding" data-rule=${rule} aria-label=${title}>
    <header>
      <span class="glyph" title=${severity} aria-label=${severity}>${SIGNS[severity]}</span>
      <h2><${Text} value=${title} inline /></h2>
      ${since === null || since === undefined
        ? null
        : html`<a class="since" href=${href("step", ["train", since], {}, run)}>since step ${since}</a>`}
      <span class="spring"></span><code class="faint">${rule}</code>
    </header>
    <div class="finding-body">
      <div class="finding-words">
        <p class="evidence"><${Text} value=${evidence} /></p>
        <div class="advice">
          ${causes.length ? html`<div><h3>Likely causes</h3><ol>${causes.map((cause) => html`<li key=${cause}><${Advice} text=${cause} /></li>`)}</ol></div>` : null}
          ${finding.try.length ? html`<div><h3>What to try</h3><ul>${finding.try.map((what) => html`<li key=${what}><${Advice} text=${what} /></li>`)}</ul></div>` : null}
        </div>
        ${links.length
          ? html`<div class="finding-links">${links.map((link) => html`<a class="button" key=${link.label} href=${href(link.page, link.parts ?? [], link.params ?? {}, run)}>${link.label}</a>`)}</div>`
          : null}
      </div>
      ${chart ? html`<${Evidence} run=${run} chart=${chart} />` : null}
    </div>
  </article>`;
}

// A sentence in which `names` of configuration keys are set apart.
function Advice({ text }) {
  return text.split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : html`<${Text} value=${part} />`));
}

// The figure that gave it away, with its threshold as a dashed line.
function Evidence({ run, chart }) {
  useTheme();
  const series = [{ label: chart.title, values: chart.values }];
  if (chart.threshold !== null && chart.threshold !== undefined) {
    series.push({ label: "threshold", values: chart.step.map(() => chart.threshold), dash: [4, 4], width: 1, colour: token("--alarm"), points: false });
  }
  return html`<div class="finding-chart"><${Chart} title=${chart.title} x=${chart.step} series=${series} height=${140} sync="doctor" formatX=${fmt.number}
    onClick=${(index) => go("step", ["train", chart.step[index]], {}, run)} data-testid="finding-chart" /></div>`;
}

function Silent({ rules, findings }) {
  const loud = new Set(findings.map((finding) => finding.rule));
  const silent = rules.filter((each) => !loud.has(each.rule));
  return html`<${Panel} title=${`Checked and silent (${silent.length})`} data-testid="silent-rules">
    <ul class="silent">
      ${silent.map((each) => html`<li key=${each.rule}><span class="glyph" aria-hidden="true">${glyph("ok")}</span>
        <span class="silent-rule">${each.rule.replaceAll("_", " ")}</span><span class="muted">${each.help}</span></li>`)}
    </ul>
  <//>`;
}
