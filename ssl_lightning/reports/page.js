"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const MISSING = "–";
const addressOf = (id) => "#run=" + encodeURIComponent(id);
const runs = new Map(report.runs.map((run) => [run.id, run]));

// Strings among the children become text, never markup.
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// `name`: by which the address knows that a reader has opened or closed it.
function folded(name, summary, open, ...children) {
  const made = make("details", open ? { open: "" } : {}, make("summary", {}, summary), ...children);
  return keep(made, `${slug(name)}.open`, () => (made.open ? "yes" : "no"), (value) => (made.open = value === "yes"));
}

function section(title, ...children) {
  return make("section", {}, make("h2", {}, title), ...children);
}

