// Pages

const FEW = 16; // numbers that stand open beside pictures

function overview() {
  const cell = (column, text) => make("td", column === "variant" ? { class: "wide" } : {}, text);
  const ofCells = (name, table) =>
    sortable(name, table, (column, text) =>
      ["method", "metric"].includes(column) ? make("th", { scope: "row" }, text) : cell(column, text),
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
  const picture = ({ name, source, narrow }) => {
    const image = make("img", { src: source, alt: `Plot: ${name}. The comparison has its numbers.` });
    return make("figure", {}, make("picture", {}, make("source", { media: "(max-width: 40rem)", srcset: narrow }), image));
  };
  const about = [...new Set(report.figures.map((figure) => figure.about))];
  const plots = about.map((title, i) => {
    const pictures = report.figures.filter((figure) => figure.about === title).map(picture);
    const group = make("div", { class: "plots" }, ...pictures);
    return about.length > 1 ? folded(title, i === 0, group) : group;
  });
  const logged = report.runs.some((run) => run.curves.length);
  return make(
    "div",
    {},
    make("h1", { tabindex: "-1" }, report.heading),
    make("p", { class: "faint" }, report.summary),
    ...(report.comparison.rows.length ? [section("Comparison", ...ofCells("Comparison", report.comparison))] : []),
    make("p", { class: "faint explanation" }, report.explanation),
    ...report.further.map(({ title, table }) => section(title, ...ofCells(title, table))),
    ...report.differences.map(({ title, table, uncertainty }, i) =>
      section(
        title,
        ...ofCells(title, table),
        make("p", { class: "faint explanation" }, uncertainty),
        ...(i + 1 < report.differences.length ? [] : [make("p", { class: "faint explanation" }, report.explanation_of_differences)]),
      ),
    ),
    ...(report.transfer.rows.length
      ? [
          section(
            "Transfer",
            ...ofCells("Transfer", report.transfer),
            make("p", { class: "faint explanation" }, report.explanation_of_transfer),
          ),
        ]
      : []),
    ...report.agreement.map(({ title, table }, i) =>
      section(
        title,
        ...ofCells(title, table),
        ...(i + 1 < report.agreement.length ? [] : [make("p", { class: "faint explanation" }, report.explanation_of_agreement)]),
      ),
    ),
    ...(plots.length ? [section("Plots", ...plots)] : []),
    ...(report.cells.length ? [section("Any metric", metrics())] : []),
    ...(logged ? [section("Curves of all runs", curves())] : []),
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
      ...sideBySide(run, other),
    );
  });
  return [make("div", { class: "tools" }, make("label", {}, "Compare with", select)), result];
}

// A further one of the run's encoder: pictures, and numbers, folded where they are many.
function evaluation({ protocol, metrics, untrained, pictures }) {
  const name = `Evaluation: ${protocol}`, rows = Object.entries(metrics);
  const table = Object.keys(untrained).length
    ? plain(name, ["metric", "trained", "untrained"], rows.map(([key, value]) => [key, value, untrained[key] ?? MISSING]))
    : plain(name, ["metric", "value"], rows);
  return section(
    name,
    ...(pictures.length ? [make("div", { class: "pictures" }, ...pictures.map(picture))] : []),
    rows.length > FEW && pictures.length ? folded(`${rows.length} numbers`, false, table) : table,
  );
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
  const watched = run.curves.filter((curve) => curve.name.startsWith("spectrum/"));
  const training = run.curves.filter((curve) => !watched.includes(curve));
  const charts = (curves) => make("div", { class: "curves" }, ...curves.map(chart));
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
    ...run.evaluations.map(evaluation),
    ...(training.length ? [section("Training", charts(training))] : []),
    ...(watched.length
      ? [section("Spectra", folded(`${watched.length} curves`, false, charts(watched)))]
      : []),
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
