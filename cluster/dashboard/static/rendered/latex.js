// LaTeX -> a tree, the part of it that answers are written in: fractions, roots, powers, boxes, symbols. What is not known
// stays as it was written, so that nothing of a completion is lost.

const SYMBOLS = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", varepsilon: "ε", theta: "θ", lambda: "λ", mu: "μ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", varphi: "φ", omega: "ω", Delta: "Δ", Gamma: "Γ", Sigma: "Σ", Omega: "Ω", Theta: "Θ", Lambda: "Λ", Pi: "Π", Phi: "Φ",
  times: "×", cdot: "·", div: "÷", pm: "±", mp: "∓", le: "≤", leq: "≤", ge: "≥", geq: "≥", ne: "≠", neq: "≠", approx: "≈", equiv: "≡", sim: "∼", infty: "∞", sum: "∑", prod: "∏", int: "∫", partial: "∂", nabla: "∇", in: "∈", notin: "∉", subset: "⊂", subseteq: "⊆", cup: "∪", cap: "∩", emptyset: "∅", forall: "∀", exists: "∃", to: "→", rightarrow: "→", Rightarrow: "⇒", implies: "⇒", iff: "⇔", leftarrow: "←", mapsto: "↦", ldots: "…", dots: "…", cdots: "⋯", circ: "∘", degree: "°", angle: "∠", perp: "⊥", parallel: "∥", triangle: "△", therefore: "∴", because: "∵", mid: "|", lfloor: "⌊", rfloor: "⌋", lceil: "⌈", rceil: "⌉", langle: "⟨", rangle: "⟩", quad: "\u2003", qquad: "\u2003\u2003", left: "", right: "", displaystyle: "", limits: "",
};
const WORDS = new Set(["sin", "cos", "tan", "log", "ln", "exp", "max", "min", "gcd", "lcm", "lim", "mod", "det", "dim"]);
const PLAIN = new Set(["text", "mathrm", "textbf", "mathbf", "textit", "operatorname", "mathbb", "mathcal", "mbox"]);
const ESCAPED = { ",": "\u2009", ";": "\u2009", ":": "\u2009", "!": "", " ": " ", "%": "%", "$": "$", "{": "{", "}": "}", "_": "_", "#": "#", "&": "&", "\\": "\n" };
const MAX_DEPTH = 20;

/** LaTeX -> [{kind: text | frac | sqrt | sup | sub | box, ...}]. */
export function latex(text) {
  return sequence({ text, at: 0 }, 0, false);
}

function sequence(source, depth, inBraces) {
  const found = [];
  const put = (text) => {
    if (found.at(-1)?.kind === "text") found.at(-1).text += text;
    else found.push({ kind: "text", text });
  };
  while (source.at < source.text.length) {
    const character = source.text[source.at];
    if (character === "}" && inBraces) break;
    if (character === "{" && depth < MAX_DEPTH) found.push(...argument(source, depth));
    else if ((character === "^" || character === "_") && depth < MAX_DEPTH) {
      source.at += 1;
      found.push({ kind: character === "^" ? "sup" : "sub", parts: argument(source, depth) });
    } else if (character === "\\") command(source, depth, found, put);
    else {
      put(character === "~" ? " " : character);
      source.at += 1;
    }
  }
  return found;
}

/** What stands in braces, or the one thing that comes next. */
function argument(source, depth) {
  while (source.text[source.at] === " ") source.at += 1;
  if (source.text[source.at] === "{") {
    source.at += 1;
    const parts = sequence(source, depth + 1, true);
    source.at += 1; // the brace that ends it, or the end of the text
    return parts;
  }
  const found = [];
  if (source.text[source.at] === "\\") command(source, depth + 1, found, (text) => found.push({ kind: "text", text }));
  else if (source.at < source.text.length) {
    const character = String.fromCodePoint(source.text.codePointAt(source.at));
    found.push({ kind: "text", text: character });
    source.at += character.length;
  }
  return found;
}

function command(source, depth, found, put) {
  const name = /^[a-zA-Z]+/.exec(source.text.slice(source.at + 1, source.at + 41))?.[0];
  if (!name) {
    const character = source.text[source.at + 1] ?? "";
    put(Object.hasOwn(ESCAPED, character) ? ESCAPED[character] : "\\" + character);
    source.at += 1 + character.length;
    return;
  }
  source.at += 1 + name.length;
  if (depth < MAX_DEPTH && ["frac", "dfrac", "tfrac", "binom"].includes(name)) {
    const top = argument(source, depth);
    found.push({ kind: name === "binom" ? "binom" : "frac", top, bottom: argument(source, depth) });
  } else if (depth < MAX_DEPTH && name === "sqrt") {
    const root = source.text[source.at] === "[" ? source.text.slice(source.at + 1, source.text.indexOf("]", source.at)) : "";
    if (root) source.at += root.length + 2;
    found.push({ kind: "sqrt", root, parts: argument(source, depth) });
  } else if (depth < MAX_DEPTH && (name === "boxed" || name === "fbox")) found.push({ kind: "box", parts: argument(source, depth) });
  else if (depth < MAX_DEPTH && PLAIN.has(name)) found.push(...argument(source, depth));
  else if (Object.hasOwn(SYMBOLS, name)) put(SYMBOLS[name]);
  else put(WORDS.has(name) ? name : "\\" + name);
}
