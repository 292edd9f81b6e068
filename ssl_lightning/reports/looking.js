// Pictures of evaluations: of each kind that a file may hold, plain values turned into shapes.

const SIDE = 420; // of pictures that are square

function square(about, ...children) {
  return draw("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": about }, ...children);
}

const label = (x, y, text, attributes = {}) => draw("text", { x, y, "text-anchor": "middle", ...attributes }, text);
const known = (values) => values.filter((value) => value !== null);

// Nine colours are hard to tell apart: after eight, squares stand for discs.
function mark(x, y, r, style, title) {
  const shape = style < COLOURS
    ? draw("circle", { class: "point", cx: x, cy: y, r })
    : draw("rect", { class: "point", x: x - r, y: y - r, width: 2 * r, height: 2 * r });
  return draw("g", { class: `c${style % COLOURS}` }, shape, draw("title", {}, title));
}

const PICTURES = {
  curves({ title, x, y, lines, diagonal }) {
    const shown = lines.map(({ name, x: xs, y: ys }, style) => ({
      name: name || y, style,
      points: xs.map((value, i) => [value, ys[i], 0]).filter((point) => !point.includes(null)),
    }));
    if (!shown.some(({ points }) => points.length)) return [];
    if (diagonal) shown.push({ name: "perfect", style: 15, points: [[0, 0, 0], [1, 1, 0]] });
    const ends = shown.filter(({ points }) => points.length)
      .map(({ name, points }) => `${name} ${short(points[0][1])} to ${short(points[points.length - 1][1])}`);
    const svg = plot(`${title}, ${y} over ${x}: ${ends.join("; ")}`, x, shown, { marks: true });
    return [svg, make("p", { class: "faint" }, `upwards: ${y}`), ...(lines.length > 1 ? [legend(lines.map(({ name }) => name))] : [])];
  },

  points({ title, points, classes, note }) {
    const ends = [0, 1].map((axis) => points.map((point) => point[axis]))
      .map((values) => [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)]);
    const place = ([low, high], value) => (high > low ? 10 + ((value - low) / (high - low)) * (SIDE - 20) : SIDE / 2);
    const names = [...new Set(classes)].sort((a, b) => a - b);
    const styles = new Map(names.map((name, i) => [name, i % (2 * COLOURS)]));
    const marks = points.map(([x, y], i) =>
      mark(place(ends[0], x), SIDE - place(ends[1], y), 3, styles.get(classes[i]), `class ${classes[i]}`));
    const svg = square(`${title}: ${points.length} points of ${names.length} classes`, ...marks);
    const items = names.slice(0, 2 * COLOURS).map((name) =>
      make("li", {}, draw("svg", { viewBox: "0 0 12 12", class: "dot", "aria-hidden": "true" }, mark(6, 6, 5, styles.get(name), "")), `${name}`));
    const more = names.length > items.length ? [make("li", { class: "faint" }, `and ${names.length - items.length} more, in the same colours`)] : [];
    return [svg, make("ul", { class: "legend" }, ...items, ...more), ...(note ? [make("p", { class: "faint" }, note)] : [])];
  },

  matrix({ title, rows, columns, values }) {
    const n = values.length, edge = 34, cell = (SIDE - edge) / n;
    const step = Math.ceil(n / 20); // of labels that fit
    const cells = values.flatMap((row, i) => row.map((value, j) => {
      const at = { x: edge + j * cell, y: edge + i * cell, width: cell, height: cell };
      const hint = draw("title", {}, `${rows} ${i}, ${columns} ${j}: ${(100 * value).toFixed(1)} %`);
      const number = n <= 12 && value >= 0.005
        ? [label(at.x + cell / 2, at.y + cell / 2 + 4, (100 * value).toFixed(0), { class: value > 0.5 ? "inverse" : "" })]
        : [];
      return draw("g", { class: "cell" }, draw("rect", { ...at, "fill-opacity": Math.min(1, value).toFixed(3) }), ...number, hint);
    }));
    const names = values.flatMap((_, i) => i % step ? [] : [
      label(edge + (i + 0.5) * cell, edge - 6, i),
      label(edge - 6, edge + (i + 0.5) * cell + 4, i, { "text-anchor": "end" }),
    ]);
    const diagonal = mean(values.map((row, i) => row[i]));
    const axes = [label((SIDE + edge) / 2, 12, columns), label(-(SIDE + edge) / 2, 10, rows, { transform: "rotate(-90)" })];
    return [square(`${title}: ${n} classes, ${(100 * diagonal).toFixed(1)} % on the diagonal on average`, ...cells, ...names, ...axes)];
  },

  bars({ title, unit, names, values }) {
    const row = 20, left = 8 + 6.6 * names.reduce((most, name) => Math.max(most, name.length), 0), right = 60;
    const most = known(values).reduce((a, b) => Math.max(a, b), 0) || 1;
    const bars = names.flatMap((name, i) => {
      const value = values[i] ?? 0, width = Math.max(0, value / most) * (SIDE - left - right);
      const written = values[i] === null ? MISSING : `${short(value)} ${unit}`;
      return [
        draw("g", { class: "c0" }, draw("rect", { class: "point", x: left, y: i * row + 3, width, height: row - 6 })),
        label(left - 6, i * row + 14, name, { "text-anchor": "end" }),
        label(left + width + 6, i * row + 14, written, { "text-anchor": "start" }),
      ];
    });
    const about = `${title}: ${names.map((name, i) => `${name} ${values[i] === null ? MISSING : short(values[i])}`).join(", ")}`;
    return [draw("svg", { viewBox: `0 0 ${SIDE} ${names.length * row}`, role: "img", "aria-label": about }, ...bars)];
  },

  radar({ title, names, values, untrained }) {
    const middle = SIDE / 2, radius = SIDE / 2 - 90;
    const at = (i, share) => {
      const angle = (2 * Math.PI * i) / names.length - Math.PI / 2;
      return [middle + radius * share * Math.cos(angle), middle + radius * share * Math.sin(angle)];
    };
    const shape = (shares) => shares.map((share, i) => at(i, share ?? 0).map((value) => value.toFixed(1)).join(",")).join(" ");
    const rings = [0.25, 0.5, 0.75, 1].map((share) => draw("polygon", { class: "grid", fill: "none", points: shape(names.map(() => share)) }));
    const labels = names.map((name, i) => {
      const [x, y] = at(i, 1.12);
      const anchor = Math.abs(x - middle) < 20 ? "middle" : x > middle ? "start" : "end";
      const share = (value) => (value === null ? MISSING : `${(100 * value).toFixed(1)} %`);
      const shares = share(values[i]) + (untrained.length ? ` (${share(untrained[i])})` : "");
      return draw("g", {}, label(x, y - 2, name, { "text-anchor": anchor }), label(x, y + 12, shares, { "text-anchor": anchor }));
    });
    const drawn = (shares, classes, name) =>
      draw("g", { class: `line ${classes}` }, draw("title", {}, name), draw("polygon", { class: "curve area", points: shape(shares) }));
    const about = `${title}: ${names.map((name, i) => `${name} ${values[i] === null ? MISSING : short(values[i])}`).join(", ")}`;
    const svg = square(about, ...rings, ...(untrained.length ? [drawn(untrained, "c7 d1", "untrained")] : []), drawn(values, "c0", "trained"), ...labels);
    return [svg, ...(untrained.length ? [make("p", { class: "faint" }, "dashed, in brackets: untrained")] : [])];
  },

  image({ title, png, note }) {
    const image = make("img", { src: `data:image/png;base64,${png}`, alt: note ? `${title}; ${note}` : title });
    return [image, ...(note ? [make("p", { class: "faint" }, note)] : [])];
  },
};

function picture(one) {
  return make("figure", { class: one.kind }, make("figcaption", {}, one.title), ...PICTURES[one.kind](one));
}

// Those of one run beside those of another, where both have them.
function sideBySide(run, other) {
  return run.evaluations.flatMap(({ protocol, pictures }) => {
    const theirs = other.evaluations.find((made) => made.protocol === protocol)?.pictures ?? [];
    const pairs = pictures.map((mine) => [mine, theirs.find(({ kind, title }) => kind === mine.kind && title === mine.title)]).filter(([, found]) => found);
    return pairs.length
      ? [make("h3", {}, protocol), make("div", { class: "pairs" }, ...pairs.flat().map(picture))]
      : [];
  });
}

