// Pictures of evaluations. Their numbers are null where they were NaN.

const SHAPES = ["M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z", "M-2.8,-2.8h5.6v5.6h-5.6z", "M0,-3.8l3.7,6.2h-7.4z"];
const MOST_NAMED = 20; // classes of a legend
const ruler = document.createElement("canvas").getContext("2d");
ruler.font = "12px system-ui, sans-serif"; // that of their texts

const known = (value) => value !== null;
const worded = (value, unit = "") => (known(value) ? short(value) + unit : MISSING);
const percent = (share) => worded(known(share) ? 100 * share : null, " %");
const within = (share) => Math.min(1, Math.max(0, share));
const hint = (text) => draw("title", {}, text);

const widthOf = (text) => ruler.measureText(text).width;

function cut(text, width) {
  const letters = [...text.slice(0, width)]; // no letter is as thin as one unit
  const fits = (n) => widthOf(`${letters.slice(0, n).join("")}…`) <= width;
  if (text.length <= width && widthOf(text) <= width) return text;
  while (letters.length && !fits(letters.length)) letters.pop();
  return `${letters.join("")}…`;
}

// A text at a point, in two lines where it must and may; what is cut is said where the pointer is.
function label(text, x, y, width, attributes = {}, lines = 1) {
  const words = text.slice(0, 2 * width).split(/(?<=[-_ ])/);
  const ways = words.map((_, i) => [words.slice(0, i).join(""), words.slice(i).join("")].filter(Boolean));
  const longest = (way) => Math.max(...way.map(widthOf));
  const way = lines === 1 || widthOf(text) <= width ? [text] : ways.reduce((a, b) => (longest(b) < longest(a) ? b : a));
  const shown = way.map((part) => cut(part, width));
  const spans = shown.map((part, i) => draw("tspan", { x, y: Number(y) + 13 * (i - (shown.length - 1) / 2) }, part));
  return draw("text", attributes, ...spans, ...(shown.join("") === text ? [] : [hint(text)]));
}

function sheet(about, height, ...children) {
  return draw("svg", { viewBox: `0 0 ${WIDTH} ${height.toFixed(1)}`, role: "img", "aria-label": about }, ...children);
}

// "a 1, b 2" of all, or of the ends where they are many.
function listed(names, values, wordsOf) {
  const order = values.map((_, i) => i).filter((i) => known(values[i]));
  const say = (i) => `${names[i]} ${wordsOf(values[i])}`;
  if (order.length <= MOST_NAMED) return order.map(say).join(", ");
  order.sort((a, b) => values[a] - values[b]);
  return `${order.length} values, lowest ${say(order[0])}, highest ${say(order.at(-1))}`;
}

function drawnCurves({ title, x, y, lines, diagonal }) {
  const shown = lines.map((line, style) => ({
    name: line.name || title,
    style,
    points: line.x.map((at, i) => [at, line.y[i], 0]).filter(([at, value]) => known(at) && known(value)),
  }));
  const all = shown.flatMap(({ points }) => points);
  const reached = all.flatMap(([at, value]) => [at, value]);
  const shares = reached.every((value) => value === within(value));
  const ends = shares ? [0, 1] : [least(reached), most(reached)]; // pictures of two runs have the same axes
  const equal = diagonal ? ends.map((end) => [end, end, 0]) : [];
  const about = shown.filter(({ points }) => points.length).map(({ name, points }) =>
    `${name}: ${short(points[0][1])} at ${short(points[0][0])}, ${short(points.at(-1)[1])} at ${short(points.at(-1)[0])}`);
  const svg = plot(
    `${title}: ${y} against ${x}. ${about.join("; ")}`,
    cut(x, WIDTH - LEFT),
    [{ name: "x = y", points: equal, faint: true }, ...shown].filter(({ points }) => points.length),
    { marks: all.length <= 15 * lines.length, height: 240, yLabel: cut(y, 190) },
  );
  return lines.some(({ name }) => name) ? [svg, legend(lines.map(({ name }) => name))] : [svg];
}

const dot = (i, x, y) =>
  draw("path", { d: SHAPES[Math.floor(i / COLOURS) % SHAPES.length], transform: `translate(${x.toFixed(1)},${y.toFixed(1)})` });

function drawnPoints({ title, points, classes }) {
  const labels = [...new Set(classes)].sort((a, b) => a - b);
  const places = points.map(([x, y], i) => ({ x, y, of: labels.indexOf(classes[i]) })).filter(({ x, y }) => known(x) && known(y));
  const [xs, ys] = [places.map(({ x }) => x), places.map(({ y }) => y)];
  const [wide, high] = [most(xs) - least(xs), most(ys) - least(ys)];
  const margin = 10, scale = (WIDTH - 2 * margin) / (Math.max(wide, high) || 1); // the same for both: a plane
  const height = Math.max(high * scale, WIDTH / 3) + 2 * margin;
  const groups = labels.map((name, i) => draw("g", { class: `dots c${i % COLOURS}` }, hint(`class ${name}`)));
  for (const { x, y, of } of places) {
    const across = WIDTH / 2 + (x - least(xs) - wide / 2) * scale, down = height / 2 - (y - least(ys) - high / 2) * scale;
    groups[of].append(dot(of, across, down));
  }
  const svg = sheet(`${title}: ${places.length} points of ${labels.length} classes`, height, ...groups);
  const key = (i) => draw("g", { class: `c${i % COLOURS}` }, dot(i, 20, 5));
  return [svg, labels.length <= MOST_NAMED
    ? legend(labels.map(String), key)
    : make("p", { class: "faint" }, `${labels.length} classes: the pointer says which.`)];
}

function drawnMatrix({ title, rows, columns, values }) {
  const left = 46, top = 6, n = values.length, size = (WIDTH - left - 1) / n, bottom = top + n * size;
  const numbered = size >= 22, step = [1, 2, 5, 10, 20, 50].find((some) => some * size >= 20);
  const cells = values.flatMap((row, i) => row.map((value, j) => {
    const [x, y] = [left + j * size, top + i * size].map((at) => at.toFixed(2));
    const strength = Math.sqrt(within(value ?? 0)) * (numbered ? 0.5 : 1); // few are seen, numbers can be read on many
    const box = { x, y, width: size.toFixed(2), height: size.toFixed(2), "fill-opacity": strength.toFixed(3) };
    return draw("rect", { class: "heat", ...box }, hint(`${rows} ${i}, ${columns} ${j}: ${percent(value)}`));
  }));
  const across = (i) => left + (i + 0.5) * size, down = (i) => top + (i + 0.5) * size + 4;
  const shares = numbered
    ? values.flatMap((row, i) => row.map((value, j) => [value, across(j), down(i)]))
        .filter(([value]) => value === null || Math.round(100 * value) !== 0)
        .map(([value, x, y]) => {
          const whole = known(value) ? Math.round(100 * value) : MISSING;
          return draw("text", { class: "share", x, y, "text-anchor": "middle" }, whole);
        })
    : [];
  const ticked = values.map((_, i) => i).filter((i) => i % step === 0).flatMap((i) => [
    draw("text", { x: left - 5, y: down(i), "text-anchor": "end" }, i),
    draw("text", { x: across(i), y: bottom + 15, "text-anchor": "middle" }, i),
  ]);
  const middle = (left + WIDTH) / 2;
  const named = [
    label(columns, middle, bottom + 32, WIDTH - left, { "text-anchor": "middle" }),
    label(rows, -(top + bottom) / 2, 12, bottom, { transform: "rotate(-90)", "text-anchor": "middle" }),
  ];
  const frame = draw("rect", { class: "frame", x: left, y: top, width: n * size, height: n * size });
  const diagonal = values.map((row, i) => row[i]).filter(known);
  const average = diagonal.length ? `, on the diagonal ${percent(mean(diagonal))} in the mean` : "";
  const about = `${title}: ${n} by ${n} shares, ${rows} by ${columns}${average}`;
  return [sheet(about, bottom + 38, ...cells, frame, ...shares, ...ticked, ...named)];
}

function drawnBars({ title, unit, names, values }) {
  const room = (texts) => 10 + most(texts.map((text) => widthOf(text.slice(0, 99))));
  const row = 22, left = Math.min(140, room(names)), right = room(values.map((value) => worded(value)));
  const reached = values.filter(known), whole = unit === "%" ? 100 : 0; // pictures of two runs have one scale
  const low = Math.min(0, least(reached)), high = Math.max(whole, most(reached));
  const x = (value) => left + ((value - low) / (high - low || 1)) * (WIDTH - right - left);
  const lines = values.flatMap((value, i) => {
    const y = i * row, [from, to] = [x(0), x(value ?? 0)].sort((a, b) => a - b);
    const box = { x: from.toFixed(1), y: y + 4, width: (to - from).toFixed(1), height: row - 8 };
    return [
      label(names[i], left - 6, y + 15, left - 6, { "text-anchor": "end" }),
      draw("rect", { class: "bar", ...box }, hint(`${names[i]}: ${worded(value)} ${unit}`)),
      draw("text", { class: "value", x: WIDTH, y: y + 15, "text-anchor": "end" }, worded(value)),
    ];
  });
  const zero = draw("line", { class: "grid", x1: x(0), x2: x(0), y1: 0, y2: row * names.length });
  const svg = sheet(`${title}, ${unit}: ${listed(names, values, short)}`, row * names.length, ...lines, zero);
  const tall = { class: "tall", tabindex: "0", role: "region", "aria-label": title };
  return [names.length > MOST_NAMED ? make("div", tall, svg) : svg];
}

function drawnRadar({ title, names, values, untrained }) {
  const radius = 84, middle = WIDTH / 2, height = 2 * radius + 56;
  const at = (i, share) => {
    const angle = (2 * Math.PI * i) / names.length, distance = share * radius;
    return [middle + distance * Math.sin(angle), height / 2 - distance * Math.cos(angle)].map((v) => Number(v.toFixed(1)));
  };
  const polygon = (shares, style) => {
    const corners = shares.map((share, i) => (known(share) ? at(i, within(share)).join() : "")).filter(Boolean);
    return draw("polygon", { class: style, points: corners.join(" ") });
  };
  const rings = [0.25, 0.5, 0.75, 1].map((share) => draw("circle", { class: "ring", cx: middle, cy: height / 2, r: share * radius }));
  const axes = names.flatMap((name, i) => {
    const [x2, y2] = at(i, 1), [x, y] = at(i, 1 + 12 / radius), side = Math.sign(x - middle);
    const room = [x, 90, WIDTH - x][side + 1];
    return [
      draw("line", { class: "grid", x1: middle, y1: height / 2, x2, y2 }),
      label(name, x, y + 4, room, { "text-anchor": ["end", "middle", "start"][side + 1] }, 2),
    ];
  });
  const scale = [0.5, 1].map((share) => draw("text", { class: "scale", x: middle + 3, y: height / 2 - share * radius + 12 }, percent(share)));
  const marks = values.flatMap((share, i) => {
    const [cx, cy] = at(i, within(share ?? 0));
    return known(share) ? [draw("circle", { class: "point", cx, cy, r: 3.5 }, hint(`${names[i]}: ${percent(share)}`))] : [];
  });
  const dashed = COLOURS + 1, compared = untrained.length > 0;
  const line = (style, whose, ...parts) => draw("g", { class: `line ${styleOf(style)}` }, hint(whose), ...parts);
  const before = compared ? [line(dashed, "untrained", polygon(untrained, "curve"))] : [];
  const after = line(0, "trained", polygon(values, "area"), polygon(values, "curve"), ...marks);
  const about = `${title}: ${listed(names, values, percent)}` + (compared ? `. Untrained: ${listed(names, untrained, percent)}` : "");
  const svg = sheet(about, height, ...rings, ...axes, ...before, after, ...scale);
  return compared ? [svg, legend(["trained", "untrained"], (i) => stroke(i * dashed))] : [svg];
}

function drawnImage({ title, png }) {
  const image = make("img", { src: `data:image/png;base64,${png}`, alt: title });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < WIDTH));
  return [image];
}

const DRAWN = { curves: drawnCurves, points: drawnPoints, matrix: drawnMatrix, bars: drawnBars, radar: drawnRadar, image: drawnImage };

// Whether there is anything to draw.
const HAVE = {
  curves: ({ lines }) => lines.some(({ x, y }) => x.some((at, i) => known(at) && known(y[i]))),
  points: ({ points }) => points.some((at) => at.every(known)),
  matrix: ({ values }) => values.length > 0,
  bars: ({ values }) => values.some(known),
  radar: ({ values }) => values.some(known),
  image: () => true,
};

// `whose`: of which of two runs it is.
function drawing(picture, whose = "") {
  const { kind, title, unit, note } = picture;
  const caption = make("figcaption", {}, [whose, unit ? `${title}, ${unit}` : title].filter(Boolean).join(": "));
  const drawn = HAVE[kind](picture) ? DRAWN[kind](picture) : [make("p", { class: "faint" }, "It has no numbers.")];
  return make("figure", { class: "picture", "data-kind": kind }, caption, ...drawn, ...(note ? [make("p", { class: "faint" }, note)] : []));
}

