// Tables

function scrollable(name, table) {
  return make("div", { class: "scroll", role: "region", "aria-label": name, tabindex: "0" }, table);
}

function compared(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last, either way
  return direction * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
}

/* A table that is sorted by its heads and filtered by words, all of which must hold of a row. `cellOf(column, text)`
   makes a cell; `settings`, of each row, can be filtered by, too. */
function sortable(name, { columns, rows }, cellOf, rowOf = () => make("tr", {}), settings = []) {
  let entries = rows.map((cells, at) => {
    const row = rowOf(cells);
    cells.forEach((cell, i) => {
      const made = cellOf(columns[i][0], textOf(cell));
      if (columns[i][1]) made.classList.add("number");
      if (Array.isArray(cell) && cell[2]) made.classList.add("strong");
      row.append(made);
    });
    return { ...entryOf(cells, settings[at]), row };
  });
  const first = [...entries];
  const body = make("tbody", {}, ...entries.map((entry) => entry.row));
  let sorted = ""; // column, after a minus where descending
  function sort(by) {
    sorted = by;
    const descending = by.startsWith("-"), column = columns.findIndex(([title]) => title === by.slice(descending));
    const key = (entry) => keyOf(entry.cells[column]);
    entries = column < 0 ? first : [...entries].sort((a, b) => compared(key(a), key(b), descending ? -1 : 1));
    heads.forEach((head, i) => head.removeAttribute("aria-sort"));
    heads[column]?.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...entries.map((entry) => entry.row));
  }
  const heads = columns.map(([column, numeric]) => {
    const button = make("button", { type: "button" }, column);
    button.addEventListener("click", () => {
      sort(sorted === column ? `-${column}` : column);
      table.dispatchEvent(new Event("change", { bubbles: true }));
    });
    return make("th", { scope: "col", class: numeric ? "sortable number" : "sortable" }, button);
  });
  const table = make("table", { "aria-label": name }, make("thead", {}, make("tr", {}, ...heads)), body);
  keep(table, `${slug(name)}.sort`, () => sorted, sort);

  const filter = filterField(slug(name), "rows", columns, first, (meant) => {
    const shown = new Set(meant);
    for (const entry of first) entry.row.hidden = !shown.has(entry);
  });
  const shown = () => entries.filter(({ row }) => !row.hidden).map(({ cells }) => cells);
  return [make("div", { class: "tools" }, ...filter), scrollable(name, table), exports(name, columns, shown)];
}

function plain(name, heads, rows, style = "") {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const lines = rows.map(([key, ...values]) =>
    make("tr", {}, make("th", { scope: "row" }, key), ...values.map((value) => make("td", { class: "wide" }, value))),
  );
  const table = make("table", { "aria-label": name, class: style }, make("thead", {}, head), make("tbody", {}, ...lines));
  return scrollable(name, table);
}

