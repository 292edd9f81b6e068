// What the reader has chosen lies in the page's address, so that a link, or the page written anew, shows the same.

const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");

/* A node whose state is a text, got and set so. What it is at first goes without saying. */
function keep(node, key, get, set) {
  node.dataset.key = key;
  node.kept = { get, set, first: get() };
  return node;
}

// Of a field or a choice; `event` is what a reader's own change of it causes.
function kept(control, key, event) {
  return keep(control, key, () => control.value, (value) => {
    const former = control.value;
    control.value = value;
    if (control.value !== value) control.value = former; // an option that is no more
    else control.dispatchEvent(new Event(event));
  });
}

const keepers = (root) => [...root.querySelectorAll("[data-key]")];

function stateOf(root) {
  const state = new URLSearchParams();
  for (const { dataset, kept } of keepers(root)) if (kept.get() !== kept.first) state.set(dataset.key, kept.get());
  return state;
}

function restore(root, state) {
  for (const { dataset, kept } of keepers(root)) {
    const wanted = state.get(dataset.key) ?? kept.first;
    if (wanted !== kept.get()) kept.set(wanted);
  }
}

/* Where the page is scrolled to, as the section at the window's top and how far into it: what is written above it later,
   or another width, leaves that where it is. */
function placeOf(root) {
  const above = [...root.querySelectorAll("section")].filter((one) => one.getBoundingClientRect().top <= 1);
  const top = Math.round(-(above.at(-1) ?? root).getBoundingClientRect().top);
  const into = above.length ? top : Math.round(scrollY);
  return scrollY < 1 ? "" : `${above.length ? titleOf(above.at(-1)) : ""}+${into}`;
}

const titleOf = (section) => slug(section.querySelector("h2").textContent);

function goTo(root, place) {
  const [, title, into] = place.match(/^(.*)\+(-?\d+)$/) ?? ["", "", "", 0];
  const section = [...root.querySelectorAll("section")].find((one) => titleOf(one) === title);
  scrollTo(0, (section ? section.getBoundingClientRect().top + scrollY : 0) + Number(into || 0));
}

// What is no part of a view that one would send to somebody: the field that is written in, and how far regions are scrolled.
function transient(root) {
  const focused = document.activeElement;
  const { selectionStart, selectionEnd } = focused;
  const regions = [...root.querySelectorAll(".scroll, .tall, pre")].filter((one) => one.scrollLeft || one.scrollTop);
  return {
    focus: focused.dataset?.key ? [focused.dataset.key, selectionStart, selectionEnd] : null,
    regions: regions.map((one) => [one.getAttribute("aria-label"), one.scrollLeft, one.scrollTop]),
  };
}

function restoreTransient(root, { focus, regions = [] }) {
  for (const [name, x, y] of regions) {
    [...root.querySelectorAll(".scroll, .tall, pre")].find((one) => one.getAttribute("aria-label") === name)?.scrollTo(x, y);
  }
  const focused = focus && keepers(root).find(({ dataset }) => dataset.key === focus[0]);
  focused?.focus({ preventScroll: true });
  if (focused && focus[1] != null) focused.setSelectionRange(focus[1], focus[2]);
}

