// Pages

// Of a page that is written anew while runs train.
const liveness = ({ every, written }) =>
  `. Written at ${new Date(1000 * written).toLocaleTimeString()}; looks for news every ${every} s.`;

const FEW = 16; // numbers that stand open beside pictures

function overview() {
  // Long words break after an equals sign first.
  const breakable = (text) => text.split(/(?<==)/).flatMap((part, i) => (i ? [make("wbr", {}), part] : [part]));
  const cell = (column, text) =>
    ["variant", "progress"].includes(column) ? make("td", { class: "wide" }, ...breakable(text)) : make("td", {}, text);
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
    report.runs.map((run) => run.config),
  );
  const picture = ({ name, source, size, narrow, narrow_size }) => {
    const [width, height] = size, [narrowWidth, narrowHeight] = narrow_size; // nothing moves when they have been read
    const image = make("img", { src: source, width, height, alt: `Plot: ${name}. The comparison has its numbers.` });
    const other = { media: "(max-width: 40rem)", srcset: narrow, width: narrowWidth, height: narrowHeight };
    return make("figure", {}, make("picture", {}, make("source", other), image));
  };
  const about = [...new Set(report.figures.map((figure) => figure.about))];
  const plots = about.map((title, i) => {
    const pictures = report.figures.filter((figure) => figure.about === title).map(picture);
    const group = make("div", { class: "plots" }, ...pictures);
    return about.length > 1 ? folded(title, title, i === 0, group) : group;
  });
  const logged = report.runs.some((run) => run.curves.length);
  return make(
    "div",
    {},
    make("h1", { tabindex: "-1" }, report.heading),
    make("p", { class: "faint" }, report.summary, report.live ? liveness(report.live) : ""),
    ...(report.comparison.rows.length ? [section("Comparison", ...ofCells("Comparison", report.comparison))] : []),
    make("p", { class: "faint explanation" }, report.explanation),
    ...report.further.map(({ title, table, explanation }) =>
      section(title, ...ofCells(title, table), make("p", { class: "faint explanation" }, explanation)),
    ),
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
    ...(report.generality.rows.length
      ? [
          section(
            "Universality and transfer",
            ...ofCells("Universality and transfer", report.generality),
            make("p", { class: "faint explanation" }, report.explanation_of_generality),
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

// Heads and rows of a table of metrics.
function measured({ metrics, untrained }) {
  const compared = Object.keys(untrained).length > 0;
  const rows = Object.entries(metrics).map(([name, value]) => (compared ? [name, value, untrained[name] ?? MISSING] : [name, value]));
  return [compared ? ["metric", "trained", "untrained"] : ["metric", "value"], rows];
}

const pair = (...figures) => make("div", { class: "pair" }, ...figures);

// An evaluation: its metrics, and beside them its pictures, each with that of the untrained encoder where there is one.
function evaluated(made) {
  const name = `Evaluation: ${made.protocol}`;
  const untrained = new Map(made.pictures.map((picture) => [picture.title, picture]));
  const others = new Map(made.pictures.map((picture) => [picture, untrained.get(`${picture.title}, untrained`)]));
  const second = new Set(others.values());
  const figures = made.pictures
    .filter((picture) => !second.has(picture))
    .map((picture) => (others.get(picture) ? pair(drawing(picture), drawing(others.get(picture))) : drawing(picture)));
  const pictures = make("div", { class: "pictures" }, ...figures);
  const [heads, rows] = measured(made);
  const table = plain(name, heads, rows);
  const numbers = rows.length > FEW ? folded(name, `${rows.length} numbers`, false, table) : table;
  return section(name, make("div", { class: "evaluation" }, numbers, pictures));
}

// Pictures that two runs have of the same evaluation, side by side.
function pairs(run, other) {
  return run.evaluations.flatMap(({ protocol, digest, pictures }) => {
    const same = other.evaluations.filter((made) => made.digest === digest).flatMap((made) => made.pictures);
    const found = pictures
      .map((picture) => [picture, same.find(({ kind, title }) => kind === picture.kind && title === picture.title)])
      .filter(([, theirs]) => theirs);
    if (!found.length) return [];
    const shown = found.map(([ours, theirs]) => pair(drawing(ours, "this run"), drawing(theirs, "the other")));
    return [make("h3", {}, `Evaluation: ${protocol}`), make("div", { class: "pictures" }, ...shown)];
  });
}

function difference(run) {
  const select = make(
    "select",
    {},
    make("option", { value: "" }, "choose a run"),
    ...report.runs.filter((other) => other !== run).map((other) => make("option", { value: other.id }, other.id)),
  );
  const result = make("div", { "aria-live": "polite" }), pictures = make("div", {});
  select.addEventListener("change", () => {
    const other = runs.get(select.value);
    pictures.replaceChildren(...(other ? pairs(run, other) : []));
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
  kept(select, "with", "change");
  return [make("div", { class: "tools" }, make("label", {}, "Compare with", select)), result, pictures];
}

function details(run) {
  const tables = [
    ["Metrics", ...measured(run)],
    ["Cost", ["quantity", "value"], Object.entries(run.cost)],
    ["Mask", ["property", "value"], Object.entries(run.mask)],
    ["Environment", ["property", "value"], Object.entries(run.environment)],
  ];
  const short = tables.filter(([, , rows]) => rows.length);
  const drawn = run.evaluations.filter(({ pictures }) => pictures.length);
  for (const made of run.evaluations.filter(({ pictures }) => !pictures.length)) {
    short.push([`Evaluation: ${made.protocol}`, ...measured(made)]);
  }
  const watched = run.curves.filter((curve) => curve.name.startsWith("spectrum/"));
  const training = run.curves.filter((curve) => !watched.includes(curve));
  const charts = (curves) => make("div", { class: "curves" }, ...curves.map(chart));
  return make(
    "div",
    {},
    make("p", {}, make("a", { href: "#" }, "← All runs")),
    make("h1", { tabindex: "-1" }, run.id),
    make("p", { class: `status ${run.status}` }, [run.status, run.progress].filter(Boolean).join(": ")),
    ...(run.error ? [section("Error", make("pre", { tabindex: "0", role: "region", "aria-label": "Error" }, run.error))] : []),
    ...(short.length
      ? [make("div", { class: "columns" }, ...short.map(([name, heads, rows]) => section(name, plain(name, heads, rows))))]
      : []),
    ...drawn.map(evaluated),
    ...(training.length ? [section("Training", charts(training))] : []),
    ...(watched.length
      ? [section("Spectra", folded("spectra", `${watched.length} curves`, false, charts(watched)))]
      : []),
    section("Difference to another run", ...difference(run)),
    section("Config", plain("Config", ["key", "value"], Object.entries(run.config), "config")),
  );
}

