// Curves

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320, HEIGHT = 190; // of a chart in a narrow column: as many pixels there, so that its words can be read
const LEFT = 58, RIGHT = 24, TOP = 8, BOTTOM = 36;

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const short = (number) => String(Number(number.toPrecision(4)));

// Round numbers within [low, high], about four.
function ticks(low, high) {
  if (!(high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high)))) return [low]; // steps would be lost in rounding
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-12); i++) found.push(i * step);
  return found;
}

const least = (values) => values.reduce((a, b) => Math.min(a, b));
const most = (values) => values.reduce((a, b) => Math.max(a, b));
const numbers = (words) => words.split(" ").map(Number);

// How many lines are told apart: by colour, then by dashes too.
const COLOURS = 8, DASHES = 4;
const styleOf = (i) => `c${i % COLOURS} d${Math.floor(i / COLOURS) % DASHES}`;

/* Lines of points [x, y, deviation of y, or 0] over one pair of axes. A line has a `name`, shown where the pointer is,
   and a number for its `style`, or is `faint`; `address`: of a page that a click opens. With `marks`, points are seen
   one by one. */
function plot(about, xLabel, lines, { marks = false, whole = false, width = WIDTH, height = HEIGHT, yLabel = "" } = {}) {
  const points = lines.flatMap((line) => line.points);
  const xs = points.map(([x]) => x), lows = points.map(([, y, d]) => y - d), highs = points.map(([, y, d]) => y + d);
  const first = least(xs), last = most(xs), low = least(lows), high = most(highs);
  const x = (value) => (LEFT + (first === last ? 0.5 : (value - first) / (last - first)) * (width - LEFT - RIGHT)).toFixed(1);
  const y = (value) => (height - BOTTOM - ((value - low) / (high - low || 1)) * (height - TOP - BOTTOM)).toFixed(1);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": about });
  for (const value of ticks(low, high)) {
    svg.append(
      draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      draw("text", { x: LEFT - 6, y: Number(y(value)) + 4, "text-anchor": "end" }, short(value)),
    );
  }
  for (const value of ticks(first, last).filter((value) => !whole || Number.isInteger(value))) {
    svg.append(draw("text", { x: x(value), y: height - BOTTOM + 16, "text-anchor": "middle" }, short(value)));
  }
  svg.append(draw("text", { x: (LEFT + width - RIGHT) / 2, y: height - 4, "text-anchor": "middle" }, xLabel));
  if (yLabel) {
    const middle = -(TOP + height - BOTTOM) / 2;
    svg.append(draw("text", { x: middle, y: 12, transform: "rotate(-90)", "text-anchor": "middle" }, yLabel));
  }
  for (const { name, points, style, faint, address } of lines) {
    const group = draw("g", { class: `line ${faint ? "faint d1" : styleOf(style)}` }, draw("title", {}, name));
    if (points.length > 1) {
      const corners = points.map(([at, value]) => `${x(at)},${y(value)}`).join(" ");
      group.append(draw("polyline", { class: "curve", points: corners }));
    }
    for (const [at, value, deviation] of (marks && !faint) || points.length === 1 ? points : []) {
      if (deviation) {
        group.append(draw("line", { class: "curve", x1: x(at), x2: x(at), y1: y(value - deviation), y2: y(value + deviation) }));
      }
      group.append(draw("circle", { class: "point", cx: x(at), cy: y(value), r: 3.5 }));
    }
    svg.append(address ? draw("a", { href: address, tabindex: "-1" }, group) : group);
  }
  return svg;
}

function chart({ name, steps, values }) {
  const at = numbers(steps), reached = numbers(values), last = at.length - 1;
  const low = Math.min(...reached), high = Math.max(...reached);
  const about = `${name}: ${short(reached[0])} at step ${at[0]}, ${short(reached[last])} at step ${at[last]}, ` +
    `lowest ${short(low)}, highest ${short(high)}`;
  const points = at.map((step, i) => [step, reached[i], 0]);
  const svg = plot(about, "optimizer step", [{ name, points, style: 0 }], { whole: true });
  return make("figure", {}, make("figcaption", {}, name), svg);
}

