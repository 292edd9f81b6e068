"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const MISSING = "–";
const addressOf = (id) => "#run=" + encodeURIComponent(id);
const runs = new Map(report.runs.map((run) => [addressOf(run.id), run]));

// Strings among the children become text, never markup.
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function section(title, ...children) {
  return make("section", {}, make("h2", {}, title), ...children);
}

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

/* A table that is sorted by its heads and filtered by words: each must occur in some cell of a row.
   `cellOf(column, text, row)` makes a cell. */
function sortable(name, { columns, rows }, cellOf, rowOf = () => make("tr", {})) {
  const entries = rows.map((cells) => {
    const row = rowOf(cells);
    cells.forEach((cell, i) => {
      const made = cellOf(columns[i][0], textOf(cell));
      if (columns[i][1]) made.classList.add("number");
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
  const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  function filter() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { row, text } of entries) row.hidden = !words.every((word) => text.includes(word));
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

// Curves

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 420, HEIGHT = 220, LEFT = 58, RIGHT = 24, TOP = 8, BOTTOM = 36;

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const short = (number) => String(Number(number.toPrecision(4)));

// Round numbers within [low, high], about four.
function ticks(low, high) {
  if (low === high) return [low];
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-12); i++) found.push(i * step);
  return found;
}

const numbers = (words) => words.split(" ").map(Number);

function chart(curve) {
  const name = curve.name, steps = numbers(curve.steps), values = numbers(curve.values);
  const first = steps[0], last = steps[steps.length - 1];
  const low = Math.min(...values), high = Math.max(...values);
  const x = (step) => LEFT + ((step - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
  const about = `${name}: ${short(values[0])} at step ${first}, ${short(values[values.length - 1])} at step ${last}, ` +
    `lowest ${short(low)}, highest ${short(high)}`;
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": about });
  for (const value of ticks(low, high)) {
    svg.append(
      draw("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    );
  }
  for (const step of ticks(first, last).filter(Number.isInteger)) {
    svg.append(draw("text", { x: x(step), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(step)));
  }
  svg.append(draw("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "optimizer step"));
  if (steps.length > 1) {
    const points = steps.map((step, i) => `${x(step).toFixed(1)},${y(values[i]).toFixed(1)}`);
    svg.append(draw("polyline", { class: "curve", points: points.join(" ") }));
  } else {
    svg.append(draw("circle", { class: "point", cx: x(first), cy: y(low), r: 3 }));
  }
  return make("figure", {}, make("figcaption", {}, name), svg);
}

// Pages

function overview() {
  const cell = (column, text) => make("td", column === "variant" ? { class: "wide" } : {}, text);
  const ofCells = (name, table) =>
    sortable(name, table, (column, text) =>
      column === "method" ? make("th", { scope: "row" }, text) : cell(column, text),
    );
  const idColumn = report.overview.columns.findIndex(([name]) => name === "id");
  const all = sortable(
    "Runs",
    report.overview,
    (column, text) => {
      if (column === "id") return make("th", { scope: "row", class: "id" }, make("a", { href: addressOf(text) }, text));
      if (column === "status") return make("td", { class: `status ${text}` }, text);
      return column === "error" ? make("td", { class: "wide error" }, text) : cell(column, text);
    },
    (cells) => {
      const row = make("tr", { class: "link" });
      row.addEventListener("click", (event) => {
        if (getSelection().toString() !== "" || event.target.closest("a")) return;
        row.querySelector("a").focus({ preventScroll: true }); // where the reader is when coming back
        location.hash = addressOf(cells[idColumn]);
      });
      return row;
    },
  );
  const plots = report.figures.map(({ name, source }) =>
    make("figure", {}, make("img", { src: source, alt: `Plot: ${name}. The comparison has its numbers.` })),
  );
  return make(
    "div",
    {},
    make("h1", { tabindex: "-1" }, report.heading),
    make("p", { class: "faint" }, report.summary),
    ...(report.comparison.rows.length ? [section("Comparison", ...ofCells("Comparison", report.comparison))] : []),
    make("p", { class: "faint explanation" }, report.explanation),
    ...(plots.length ? [section("Plots", make("div", { class: "plots" }, ...plots))] : []),
    ...(report.times.rows.length
      ? [
          section(
            "Seconds",
            ...ofCells("Seconds", report.times),
            make("p", { class: "faint explanation" }, report.explanation_of_times),
          ),
        ]
      : []),
    section("Runs", ...all),
  );
}

function difference(run) {
  const select = make(
    "select",
    {},
    make("option", { value: "" }, "choose a run"),
    ...report.runs.filter((other) => other !== run).map((other) => make("option", { value: addressOf(other.id) }, other.id)),
  );
  const result = make("div", { "aria-live": "polite" });
  select.addEventListener("change", () => {
    const other = runs.get(select.value);
    if (!other) return result.replaceChildren();
    const keys = [...new Set([...Object.keys(run.config), ...Object.keys(other.config)])];
    const rows = keys
      .filter((key) => run.config[key] !== other.config[key])
      .map((key) => [key, run.config[key] ?? MISSING, other.config[key] ?? MISSING]);
    result.replaceChildren(
      rows.length
        ? plain("Differences in config", ["key", "this run", "the other"], rows, "config")
        : make("p", {}, "Their configs are the same."),
    );
  });
  return [make("div", { class: "tools" }, make("label", {}, "Compare with", select)), result];
}

function details(run) {
  const trained = Object.keys(run.untrained).length > 0;
  const metrics = Object.entries(run.metrics).map(([name, value]) =>
    trained ? [name, value, run.untrained[name] ?? MISSING] : [name, value],
  );
  const tables = [
    ["Metrics", trained ? ["metric", "trained", "untrained"] : ["metric", "value"], metrics],
    ["Cost", ["quantity", "value"], Object.entries(run.cost)],
    ["Mask", ["property", "value"], Object.entries(run.mask)],
    ["Environment", ["property", "value"], Object.entries(run.environment)],
  ];
  const short = tables.filter(([, , rows]) => rows.length);
  return make(
    "div",
    {},
    make("p", {}, make("a", { href: "#" }, "← All runs")),
    make("h1", { tabindex: "-1" }, run.id),
    make("p", { class: `status ${run.status}` }, run.status),
    ...(run.error ? [section("Error", make("pre", { tabindex: "0", role: "region", "aria-label": "Error" }, run.error))] : []),
    ...(short.length
      ? [make("div", { class: "columns" }, ...short.map(([name, heads, rows]) => section(name, plain(name, heads, rows))))]
      : []),
    ...(run.curves.length ? [section("Training", make("div", { class: "curves" }, ...run.curves.map(chart)))] : []),
    section("Difference to another run", ...difference(run)),
    section("Config", plain("Config", ["key", "value"], Object.entries(run.config), "config")),
  );
}

// Ways between them: a run's page is made when it is opened, the overview stays as it was left.

const main = document.querySelector("main");
const home = overview();
let left = { y: 0, focused: document.body };

function show() {
  const run = runs.get(location.hash);
  if (run) {
    if (home.isConnected) left = { y: scrollY, focused: document.activeElement };
    main.replaceChildren(details(run));
    document.title = run.id;
    scrollTo(0, 0);
    main.querySelector("h1").focus({ preventScroll: true });
  } else if (!home.isConnected) {
    main.replaceChildren(home);
    document.title = report.heading;
    scrollTo(0, left.y);
    left.focused.focus();
  }
}

history.scrollRestoration = "manual";
addEventListener("hashchange", show);
show();
