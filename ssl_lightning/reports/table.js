// Tables

function scrollable(name, table) {
  return make("div", { class: "scroll", role: "region", "aria-label": name, tabindex: "0" }, table);
}

const textOf = (cell) => (Array.isArray(cell) ? cell[0] : cell);

function keyOf(cell) {
  if (Array.isArray(cell)) return cell[1];
  return cell === MISSING || cell === "" ? null : cell;
}

function compared(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last, either way
  return direction * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
}

// Names of columns are known by how they begin, but for case, signs and spaces: `knn` is `k-NN %`.
const bare = (name) => name.toLowerCase().replace(/[^a-z0-9/]/g, "");

const COMPARISONS = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
};

// What a word of a filter asks of a row: that its number compares so, or that some cell has the word.
function asked(word, columns) {
  const [, name, sign, number] = word.match(/^(.+?)(<=|>=|<|>|=)(-?[\d.]+)$/) ?? [];
  const names = columns.map(([column, numeric]) => (numeric ? bare(column) : null));
  const wanted = name && bare(name);
  let column = wanted ? names.indexOf(wanted) : -1;
  if (wanted && column < 0) column = names.findIndex((found) => found?.startsWith(wanted));
  if (column < 0 || Number.isNaN(Number(number))) return ({ text }) => text.includes(word);
  return ({ cells }) => keyOf(cells[column]) !== null && COMPARISONS[sign](keyOf(cells[column]), Number(number));
}

const searchField = (placeholder) =>
  make("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder });

const wordsOf = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);

/* A table that is sorted by its heads and filtered by words, all of which must hold of a row: it occurs in some cell,
   or, as `linear>90`, compares a number. `cellOf(column, text, row)` makes a cell. */
function sortable(name, { columns, rows }, cellOf, rowOf = () => make("tr", {})) {
  const entries = rows.map((cells) => {
    const row = rowOf(cells);
    cells.forEach((cell, i) => {
      const made = cellOf(columns[i][0], textOf(cell));
      if (columns[i][1]) made.classList.add("number");
      if (Array.isArray(cell) && cell[2]) made.classList.add("strong");
      row.append(made);
    });
    return { cells, row, text: cells.map(textOf).join("\n").toLowerCase() };
  });
  const body = make("tbody", {}, ...entries.map((entry) => entry.row));
  const heads = columns.map(([column, numeric], i) => {
    const button = make("button", { type: "button" }, column);
    const head = make("th", { scope: "col", class: numeric ? "sortable number" : "sortable" }, button);
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const direction = order === "ascending" ? 1 : -1;
      const sorted = [...entries].sort((a, b) => compared(keyOf(a.cells[i]), keyOf(b.cells[i]), direction));
      body.append(...sorted.map((entry) => entry.row));
    });
    return head;
  });

  const count = make("span", { role: "status", class: "faint" });
  const input = searchField("words, linear>90");
  function filter() {
    const conditions = wordsOf(input).map((word) => asked(word, columns));
    for (const entry of entries) entry.row.hidden = !conditions.every((holds) => holds(entry));
    const shown = entries.filter((entry) => !entry.row.hidden).length;
    count.textContent = `${shown} of ${entries.length} rows`;
  }
  input.addEventListener("input", filter);
  filter();
  const table = make("table", { "aria-label": name }, make("thead", {}, make("tr", {}, ...heads)), body);
  return [
    make("div", { class: "tools" }, make("label", {}, "Filter", input), count),
    scrollable(name, table),
  ];
}

function plain(name, heads, rows, style = "") {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const lines = rows.map(([key, ...values]) =>
    make("tr", {}, make("th", { scope: "row" }, key), ...values.map((value) => make("td", { class: "wide" }, value))),
  );
  const table = make("table", { "aria-label": name, class: style }, make("thead", {}, head), make("tbody", {}, ...lines));
  return scrollable(name, table);
}

