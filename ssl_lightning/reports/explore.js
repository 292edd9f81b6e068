// Charts of what the reader asks for: any metric of all cells, and curves of all runs.

const BIG = innerWidth < 640 ? { width: 360, height: 260 } : { width: 760, height: 340 }; // so that words can be read

// `key`: by which the address knows it.
function choice(key, label, options, preferred) {
  const select = make("select", {}, ...options.map((option) => make("option", { value: option }, option)));
  select.selectedIndex = Math.max(0, options.indexOf(preferred));
  return [make("label", {}, label, kept(select, `${key}.${slug(label)}`, "change")), select];
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

/* Choices, a filter, and below them the chart of what it leaves. `what`: entries are, {...entryOf, what: {key: text}}, of
   which `lines(entries, ...values of the choices)` are {name, what, points, address?}. */
function explorer(key, what, choices, columns, entries, lines, xLabel, options) {
  const [colourLabel, colour] = choice(key, "colours by", differing(entries.map((entry) => entry.what)));
  const result = make("div", {});
  let meant = entries;
  function redraw() {
    const values = choices.map(([, select]) => select.value);
    const shown = lines(meant, ...values).filter((line) => line.points.length);
    if (!shown.length) return result.replaceChildren(make("p", { class: "faint" }, "Nothing of this was measured."));
    // The same colours in all charts, whatever is left out.
    const all = [...report.cells, ...entries].map((entry) => entry.what[colour.value]);
    const known = [...new Set(all.filter((group) => group !== undefined))];
    const coloured = shown.map((line) => ({ ...line, style: known.indexOf(line.what[colour.value]) }));
    const groups = known.filter((group) => shown.some((line) => line.what[colour.value] === group));
    const about = `${values.join(" against ")}, ${shown.length} line${shown.length > 1 ? "s" : ""}, ` +
      `colours by ${colour.value}: ${groups.join(", ")}`;
    result.replaceChildren(
      make("figure", {}, make("figcaption", {}, values[0]), plot(about, xLabel(...values), coloured, { ...BIG, ...options })),
      legend(groups, (i) => stroke(known.indexOf(groups[i]))),
    );
  }
  for (const control of [...choices.map(([, select]) => select), colour]) control.addEventListener("change", redraw);
  const filter = filterField(key, what, columns, entries, (kept) => {
    meant = kept;
    redraw();
  });
  const tools = [...choices.map(([label]) => label), colourLabel, ...filter];
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
  const names = [...new Set(report.cells.flatMap((cell) => Object.keys(cell.values)))];
  const columns = [...Object.keys(report.cells[0].what).map((key) => [key, false]), ...names.map((name) => [name, true])];
  const entries = report.cells.map(({ what, values }) => {
    const means = names.map((name) => (values[name] ? mean(values[name]) : null));
    return { ...entryOf([...Object.values(what), ...means.map((value) => [worded(value), value])]), what, values };
  });
  function lines(meant, metric, against) {
    const found = new Map();
    for (const { what, values } of meant) {
      const name = Object.values(what).filter((text) => text && text !== MISSING).join(" ");
      if (!found.has(name)) found.set(name, { name, what, points: [] });
      if (!values[metric] || !values[against]) continue;
      found.get(name).points.push([mean(values[against]), mean(values[metric]), deviation(values[metric])]);
    }
    for (const line of found.values()) line.points.sort(([a], [b]) => a - b);
    return [...found.values()];
  }
  const fractions = new Set(report.cells.map(({ values }) => values.fraction[0]));
  const against = fractions.size > 1 ? "fraction" : "train_seconds";
  const choices = [choice("metrics", "Show", names, "linear %"), choice("metrics", "against", names, against)];
  return explorer("metrics", "cells", choices, columns, entries, lines, (metric, against) => against, { marks: true });
}

// What was logged in training: a line a run.
function curves() {
  const { columns, rows } = report.overview, titles = columns.map(([column]) => column);
  const keys = ["method", "dataset", "subset", "variant", "fraction", "seed", "status"].filter((key) => titles.includes(key));
  const names = [...new Set(report.runs.flatMap((run) => run.curves.map(({ name }) => name)))];
  const entries = report.runs.map((run, i) => {
    const what = Object.fromEntries(keys.map((key) => [key, textOf(rows[i][titles.indexOf(key)])]));
    return { ...entryOf(rows[i], run.config), what, run };
  });
  function lines(meant, wanted) {
    return meant.map(({ run, what }) => {
      const curve = run.curves.find(({ name }) => name === wanted);
      const values = curve ? numbers(curve.values) : [];
      const points = curve ? numbers(curve.steps).map((step, i) => [step, values[i], 0]) : [];
      return { name: run.id, what, points, address: addressOf(run.id) };
    });
  }
  const choices = [choice("curves", "Show", names, names.includes("online/val_top1") ? "online/val_top1" : "loss")];
  return explorer("curves", "runs", choices, columns, entries, lines, () => "optimizer step", { whole: true });
}

