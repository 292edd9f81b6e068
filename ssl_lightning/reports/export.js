// What a table shows, for other programs: as cells.csv and report.tex beside the page are written.

const LATEX = {
  "\\": "\\textbackslash{}",
  ...Object.fromEntries([..."&%$#_{}"].map((mark) => [mark, `\\${mark}`])),
  "~": "\\textasciitilde{}",
  "^": "\\textasciicircum{}",
  "±": "$\\pm$",
  [MISSING]: "--",
};

const deviationOf = (cell) => (Array.isArray(cell) ? cell[3] : undefined);

// A text that a spreadsheet would compute has an apostrophe before it.
const noFormula = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

function csv(columns, rows) {
  const means = columns.map((_, i) => rows.some((cells) => deviationOf(cells[i]) !== undefined));
  const values = (cell) => (Array.isArray(cell) ? String(cell[1] ?? "") : cell === MISSING ? "" : noFormula(cell));
  const head = columns.flatMap(([name], i) => (means[i] ? [name, `${name} s.d.`] : [name]));
  const lines = rows.map((cells) =>
    cells.flatMap((cell, i) => (means[i] ? [values(cell), String(deviationOf(cell) ?? "")] : [values(cell)])),
  );
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [head, ...lines].map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
}

function latex(columns, rows, caption) {
  const escaped = (text) => [...text.split(/\s+/).filter(Boolean).join(" ")].map((mark) => LATEX[mark] ?? mark).join("");
  const line = (texts) => `    ${texts.join(" & ")} \\\\`;
  const cell = (one) => (Array.isArray(one) && one[2] ? `\\textbf{${escaped(textOf(one))}}` : escaped(textOf(one)));
  const lines = [
    "\\begin{table}",
    "  \\centering",
    `  \\caption{${escaped(caption)}}`,
    `  \\begin{tabular}{${columns.map(([, numeric]) => (numeric ? "r" : "l")).join("")}}`,
    "    \\toprule",
    line(columns.map(([name]) => escaped(name))),
    "    \\midrule",
    ...rows.map((cells) => line(cells.map(cell))),
    "    \\bottomrule",
    "  \\end{tabular}",
    "\\end{table}",
  ];
  return `${lines.join("\n")}\n`;
}

function save(file, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

/* Buttons that save the rows that `shown` gives, in their order. */
function exports(name, columns, shown) {
  const button = (label, ending, type, text) => {
    const made = make("button", { type: "button", "aria-label": `${name} as ${label}` }, label);
    made.addEventListener("click", () => save(`${slug(name)}.${ending}`, type, text()));
    return made;
  };
  return make(
    "div",
    { class: "exports" },
    button("CSV", "csv", "text/csv", () => csv(columns, shown())),
    button("LaTeX", "tex", "text/x-tex", () =>
      `% \\usepackage{booktabs}\n${latex(columns, shown(), `${name}: ${report.heading}`)}`),
  );
}

