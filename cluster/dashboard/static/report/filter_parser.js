// The filter language in an exported report, which has no server to ask. The grammar, the sentences and the places of
// errors are those of index/filters.py; a test asks both the same filters.

const MAX_CHARS = 2000;
const MAX_DEPTH = 40;
const MAX_TERMS = 100;
const NAME = /[^\s()&|!<>=~:"]+/y;
const OPERATOR = /<=|>=|!=|!~|<|>|=|~|:/y;
const BARE_VALUE = /[^\s()&|"]+/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/sy;
const NUMBER = /[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?/y;
const SPACE = /\s*/y;

/** A filter that does not parse; `status` as the server's answer has it. */
export class FilterError extends Error {
  status = 400;
}

const shown = (text) => `'${text.length <= 20 ? text : text.slice(0, 20) + "..."}'`;
const isComponent = (name) => name.startsWith("reward.") && name.length > "reward.".length;

/**
 * Text -> a tree of {kind: "and" | "or", parts}, {kind: "not", part}, {kind: "flag", field}, {kind: "between", field, low,
 * high}, {kind: "compare", field, operator, value}; null for an empty filter. `fields` as the table's answer has them.
 */
export function parseFilter(text, fields) {
  if (text.length > MAX_CHARS) throw new FilterError(`the filter has ${text.length} characters, allowed: ${MAX_CHARS}`);
  return new Parser(text, fields).whole();
}

class Parser {
  constructor(text, fields) {
    this.text = text;
    this.at = 0;
    this.terms = 0;
    this.names = fields.map(({ name }) => name);
    this.known = new Map(fields.flatMap((field) => [field.name, ...field.aliases].map((name) => [name, field])));
  }

  whole() {
    this.skip();
    if (this.at === this.text.length) return null;
    const node = this.either(0);
    if (this.at < this.text.length) this.fail(`got ${shown(this.text.slice(this.at))}, expected & or | or the end`);
    return node;
  }

  either(depth) {
    const parts = [this.all(depth)];
    while (this.take("|")) parts.push(this.all(depth));
    return parts.length === 1 ? parts[0] : { kind: "or", parts };
  }

  all(depth) {
    const parts = [this.term(depth)];
    while (this.take("&")) parts.push(this.term(depth));
    return parts.length === 1 ? parts[0] : { kind: "and", parts };
  }

  term(depth) {
    if (depth > MAX_DEPTH) this.fail(`more than ${MAX_DEPTH} parentheses and negations within each other`);
    if (this.take("!")) return { kind: "not", part: this.term(depth + 1) };
    if (this.take("(")) {
      const node = this.either(depth + 1);
      if (!this.take(")")) this.fail("expected )");
      return node;
    }
    this.terms += 1;
    if (this.terms > MAX_TERMS) this.fail(`more than ${MAX_TERMS} comparisons`);
    return this.comparison();
  }

  comparison() {
    const quoted = this.quoted();
    if (quoted !== null) return { kind: "compare", field: "text", operator: "~", value: quoted };
    const start = this.at;
    const name = this.match(NAME);
    if (name === null) {
      const got = this.at < this.text.length ? shown(this.text.slice(this.at)) : "the end";
      return this.fail(`got ${got}, expected a field, a word or a text in quotes`);
    }
    const operator = this.match(OPERATOR);
    const field = this.known.get(name);
    if (operator === null) return this.alone(name, field);
    if (!field && !isComponent(name)) this.fail(`there is no field ${shown(name)}; fields: ${this.names.join(", ")}; to search for it, put it in quotes`, start);
    const full = field ? field.name : name;
    if (field?.type === "flag") this.fail(`${full} is a flag: write ${full} or !${full}`, start);
    return field?.type === "text" ? this.words(full, operator) : this.number(full, operator);
  }

  alone(name, field) {
    if (!field) return { kind: "compare", field: "text", operator: "~", value: name };
    if (field.type === "flag") return { kind: "flag", field: field.name };
    return this.fail(`expected a comparison behind ${name}, for example ${name}${field.type === "number" ? ">0" : "~word"}`);
  }

  number(field, operator) {
    const start = this.at;
    if (operator === "~" || operator === "!~") this.fail(`${field} is a number: ~ is for text`, start);
    if (operator === ":") {
      const low = this.float(field);
      if (this.text[this.at] !== "-") {
        this.skip();
        return { kind: "between", field, low, high: low };
      }
      this.at += 1;
      const high = this.float(field);
      if (low > high) this.fail(`${field}:${low}-${high} holds no number: write the lower one first`, start);
      this.skip();
      return { kind: "between", field, low, high };
    }
    if (this.text.startsWith("none", this.at) && (operator === "=" || operator === "!=")) {
      this.at += "none".length;
      this.endOfValue(start);
      return { kind: "compare", field, operator, value: null };
    }
    const value = this.float(field);
    this.endOfValue(start);
    return { kind: "compare", field, operator, value };
  }

  words(field, operator) {
    const start = this.at;
    if (!["=", "!=", "~", "!~"].includes(operator)) this.fail(`${field} is text: allowed are = != ~ !~`, start);
    let value = this.quoted();
    if (value === null) {
      value = this.match(BARE_VALUE);
      if (value === null) this.fail(`expected a word or a text in quotes behind ${field}${operator}`);
      if (value === "none" && (operator === "=" || operator === "!=")) return { kind: "compare", field, operator, value: null };
    }
    if (field === "text" && (operator === "=" || operator === "!=")) this.fail("text is searched: allowed are ~ and !~", start);
    return { kind: "compare", field, operator, value };
  }

  float(field) {
    NUMBER.lastIndex = this.at;
    const match = NUMBER.exec(this.text);
    if (match) {
      this.at = NUMBER.lastIndex;
      return Number(match[0]);
    }
    return this.fail(`got ${this.at < this.text.length ? shown(this.text.slice(this.at)) : "the end"}, expected a number for ${field}`);
  }

  endOfValue(start) {
    BARE_VALUE.lastIndex = this.at;
    if (BARE_VALUE.test(this.text)) {
      const end = BARE_VALUE.lastIndex;
      this.at = start;
      this.fail(`got ${shown(this.text.slice(start, end))}, expected a number`);
    }
    this.skip();
  }

  quoted() {
    if (this.text[this.at] !== '"') return null;
    const value = this.match(QUOTED, 1);
    if (value === null) this.fail('a text in quotes has no end: expected "');
    return value.replace(/\\(["\\])/g, "$1");
  }

  match(pattern, group = 0) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (!found) return null;
    this.at = pattern.lastIndex;
    this.skip();
    return found[group];
  }

  take(character) {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    this.skip();
    return true;
  }

  skip() {
    SPACE.lastIndex = this.at;
    SPACE.exec(this.text);
    this.at = SPACE.lastIndex;
  }

  /** @returns {never} */
  fail(message, at = this.at) {
    throw new FilterError(`filter, character ${at + 1}: ${message}`);
  }
}
