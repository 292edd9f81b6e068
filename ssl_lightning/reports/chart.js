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

