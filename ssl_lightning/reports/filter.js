// Which rows are meant: words that a row has, and comparisons, as of `ssl-runs`: `method=sim*`, `fraction<0.5`.

// Names of columns are known by how they begin, but for case, signs and spaces: `knn` is `k-NN %`.
const bare = (name) => name.toLowerCase().replace(/[^\p{L}\p{N}/]/gu, "");

const ORDERS = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
};

const textOf = (cell) => (Array.isArray(cell) ? cell[0] : cell);

// What a cell is compared and sorted by; null where it is missing.
function keyOf(cell) {
  if (Array.isArray(cell)) return cell[1];
  return cell === MISSING || cell === "" ? null : cell;
}

// What is searched: `cells`, by columns, and `settings`, texts by dotted keys, of what has some.
const entryOf = (cells, settings = {}) => ({ cells, settings, text: cells.map(textOf).join("\n").toLowerCase() });

// Words, of which one in quotes may have spaces.
const wordsOf = (text) => (text.match(/(?:"[^"]*"?|[^\s"])+/g) ?? []).map((word) => word.replaceAll('"', "")).filter(Boolean);

const numberIn = (text) => (text.trim() === "" ? NaN : Number(text.replace(/%$/, "")));

function pattern(text) {
  const escaped = text.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${escaped}$`, "is");
}

// Numbers of columns that a name may mean: those that it is, or else that it begins.
function columnsNamed(name, columns) {
  const names = columns.map(([column]) => bare(column)), wanted = bare(name);
  const all = names.map((_, i) => i).filter((i) => wanted && names[i].startsWith(wanted));
  const same = all.filter((i) => names[i] === wanted);
  return same.length ? same : all;
}

// Keys of settings that a name is, or ends: `temperature` is `method.temperature`.
function keysNamed(name, entries) {
  const all = [...new Set(entries.flatMap(({ settings }) => Object.keys(settings)))];
  const found = all.filter((key) => key.toLowerCase() === name);
  return found.length ? found : all.filter((key) => key.toLowerCase().endsWith(`.${name}`));
}

// Whether a value compares so. `shown`: its text; a number is equal to what is shown of it, too.
function compares(sign, wanted, key, shown) {
  if (key === null) return false;
  const number = numberIn(wanted);
  if (sign in ORDERS) return ORDERS[sign](typeof key === "number" ? key : numberIn(key), number);
  const equal = typeof key === "number" ? key === number || parseFloat(shown) === number : pattern(wanted).test(key);
  return equal === (sign !== "!=");
}

/* What a word asks of an entry, as a function of it; or what is wrong with the word, in a line. */
function condition(word, columns, entries) {
  const lower = word.toLowerCase();
  const has = ({ text }) => text.includes(lower);
  const [, name, sign, wanted] = lower.match(/^([^<>=!]+)(<=|>=|!=|==?|<|>)(.*)$/s) ?? [];
  if (!name) return has;
  const orders = sign in ORDERS;
  let found = columnsNamed(name, columns);
  if (orders && found.some((i) => columns[i][1])) found = found.filter((i) => columns[i][1]);
  const keys = found.length ? [] : keysNamed(name, entries);
  if (found.length + keys.length === 0) {
    const known = columns.map(([column]) => column).join(", ");
    return entries.some(has) ? has : `${word}: no column begins with ${name}. There are ${known}.`;
  }
  if (found.length + keys.length > 1) {
    return `${word}: ${name} may be ${[...found.map((i) => columns[i][0]), ...keys].join(", ")}. Write more of it.`;
  }
  if (wanted === "") return `${word} compares with nothing: write ${word}1, or a word after =.`;
  if (orders && Number.isNaN(numberIn(wanted))) return `${word}: ${wanted} is no number. Try = or !=.`;
  if (keys.length) return ({ settings }) => compares(sign, wanted, settings[keys[0]] ?? null, "");
  const [column, numeric] = columns[found[0]];
  if (orders && !numeric) return `${word}: ${column} has words, no numbers. Try = or !=.`;
  return ({ cells }) => compares(sign, wanted, keyOf(cells[found[0]]), textOf(cells[found[0]]));
}

/* A field to filter entries by, and what it says of them. `apply` is told which are meant, at once and after each
   change: none where a word is wrong. `what`: entries are. */
function filterField(key, what, columns, entries, apply) {
  const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "words, linear>90, method!=byol" });
  const said = make("span", { role: "status" });
  function filter() {
    const asked = wordsOf(input.value).map((word) => condition(word, columns, entries));
    const wrong = asked.find((one) => typeof one === "string");
    const meant = wrong ? [] : entries.filter((entry) => asked.every((holds) => holds(entry)));
    said.className = wrong ? "wrong" : "faint";
    said.textContent = wrong ?? `${meant.length} of ${entries.length} ${what}`;
    apply(meant);
  }
  input.addEventListener("input", filter);
  filter();
  return [make("label", {}, "Filter", kept(input, `${key}.filter`, "input")), said];
}

