// Charts of what the reader asks for: any metric of all cells, and curves of all runs.

const BIG = { width: 760, height: 340 };

function choice(label, options, preferred = 0) {
  const select = make("select", {}, ...options.map((option) => make("option", { value: option }, option)));
  select.selectedIndex = Math.max(0, typeof preferred === "string" ? options.indexOf(preferred) : preferred);
  return [make("label", {}, label, select), select];
}

// Of texts by key, the keys by which the entries differ, or at least the first.
function differing(entries) {
  const keys = Object.keys(entries[0]);
  const found = keys.filter((key) => new Set(entries.map((entry) => entry[key])).size > 1);
  return found.length ? found : keys.slice(0, 1);
}

const stroke = (i) => draw("g", { class: styleOf(i) }, draw("line", { class: "curve", x1: 0, x2: 28, y1: 5, y2: 5 }));

// What lines are called, in the order of their styles, or what is drawn by another `key`.
function legend(names, key = stroke) {
  const items = names.map((name, i) => {
    const mark = draw("svg", { viewBox: "0 0 28 10", class: "key", "aria-hidden": "true" }, key(i));
    return make("li", {}, mark, name);
  });
  return make("ul", { class: "legend" }, ...items);
}

/* Choices, words that lines must have, and below them the chart. `lines(...values of the choices)` are
   {name, what: {key: text}, points, address?}. */
function explorer(name, choices, lines, xLabel, options) {
  const keys = differing(lines(...choices.map(([, select]) => select.value)).map((line) => line.what));
  const [colourLabel, colour] = choice("colours by", keys);
  const input = searchField("words");
  const result = make("div", {});
  function redraw() {
    const values = choices.map(([, select]) => select.value);
    const words = wordsOf(input);
    const has = (line) => words.every((word) => [line.name, ...Object.values(line.what)].some((text) => text.toLowerCase().includes(word)));
    const shown = lines(...values).filter((line) => line.points.length && has(line));
    if (!shown.length) return result.replaceChildren(make("p", { class: "faint" }, "Nothing of this was measured."));
    const groups = [...new Set(shown.map((line) => line.what[colour.value]))];
    const coloured = shown.map((line) => ({ ...line, style: groups.indexOf(line.what[colour.value]) }));
    const about = `${name}: ${values.join(" against ")}, ${shown.length} line${shown.length > 1 ? "s" : ""}, ` +
      `colours by ${colour.value}: ${groups.join(", ")}`;
    result.replaceChildren(
      make("figure", {}, make("figcaption", {}, values[0]), plot(about, xLabel(...values), coloured, { ...BIG, ...options })),
      legend(groups),
    );
  }
  for (const control of [...choices.map(([, select]) => select), colour]) control.addEventListener("change", redraw);
  input.addEventListener("input", redraw);
  redraw();
  const tools = [...choices.map(([label]) => label), colourLabel, make("label", {}, "Filter", input)];
  return make("div", { class: "explorer" }, make("div", { class: "tools" }, ...tools), result);
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// Standard deviation (n − 1); of one value 0, which is not drawn.
function deviation(values) {
  const middle = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  return values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
}

// Metrics of cells: a point a cell, a line through those that differ in the fraction alone.
function metrics() {
  const cells = report.cells;
  const names = [...new Set(cells.flatMap((cell) => Object.keys(cell.values)))];
  function lines(metric, against) {
    const found = new Map();
    for (const { what, values } of cells) {
      const name = Object.values(what).filter((text) => text && text !== MISSING).join(" ");
      if (!found.has(name)) found.set(name, { name, what, points: [] });
      if (!values[metric] || !values[against]) continue;
      found.get(name).points.push([mean(values[against]), mean(values[metric]), deviation(values[metric])]);
    }
    for (const line of found.values()) line.points.sort(([a], [b]) => a - b);
    return [...found.values()];
  }
  const fractions = new Set(cells.map(({ values }) => values.fraction[0]));
  const against = fractions.size > 1 ? "fraction" : "train_seconds";
  const choices = [choice("Show", names, "linear %"), choice("against", names, against)];
  return explorer("Metrics", choices, lines, (metric, against) => against, { marks: true });
}

// What was logged in training: a line a run.
function curves() {
  const columns = report.overview.columns.map(([column]) => column);
  const keys = ["method", "dataset", "subset", "variant", "fraction", "seed", "status"].filter((key) => columns.includes(key));
  const logged = new Map();
  for (const run of report.runs) for (const { name } of run.curves) logged.set(name, (logged.get(name) ?? 0) + 1);
  const described = report.runs.map((run, i) => {
    const row = report.overview.rows[i];
    return { run, what: Object.fromEntries(keys.map((key) => [key, textOf(row[columns.indexOf(key)])])) };
  });
  function lines(wanted) {
    return described.map(({ run, what }) => {
      const curve = run.curves.find(({ name }) => name === wanted);
      const values = curve ? numbers(curve.values) : [];
      const points = curve ? numbers(curve.steps).map((step, i) => [step, values[i], 0]) : [];
      return { name: run.id, what, points, address: addressOf(run.id) };
    });
  }
  const names = [...logged.keys()];
  const choices = [choice("Show", names, names.includes("online/val_top1") ? "online/val_top1" : "loss")];
  return explorer("Curves", choices, lines, () => "optimizer step", { whole: true });
}

