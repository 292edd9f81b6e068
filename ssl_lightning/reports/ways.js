// Ways between pages: a run's is made when it is opened, the overview stays as it was left.

const main = document.querySelector("main");
const home = overview();
const LATER = 200; // ms after which scrolling is noted
const QUIET = 5000; // ms without a touch, after which a page may be loaded anew
let focused = document.body; // in the overview
let addressOfHome = "#";
let opened = null; // the run whose page is shown
let seen = null; // the address that what is shown is noted in: another one is that of a page to come
let waiting = 0;
let noted = ""; // last, so that nothing is noted twice

function remember() {
  clearTimeout(waiting);
  if (location.hash !== seen) return;
  const chosen = stateOf(main), place = placeOf(main.firstElementChild);
  if (place) chosen.set("at", place);
  const whole = [...(opened ? [addressOf(opened.id).slice(1)] : []), ...(chosen.size ? [chosen] : [])].join("&");
  if (!opened) addressOfHome = `#${whole}`;
  const address = whole ? `#${whole}` : location.pathname + location.search;
  const state = { home: addressOfHome, ...transient(main) };
  if (JSON.stringify([state, address]) === noted) return; // browsers slow down pages that note too much
  noted = JSON.stringify([state, address]);
  history.replaceState(state, "", address);
  seen = location.hash;
}

function rememberLater() {
  clearTimeout(waiting);
  waiting = setTimeout(remember, LATER);
}

function show() {
  clearTimeout(waiting);
  seen = null;
  noted = "";
  const state = new URLSearchParams(location.hash.slice(1));
  const former = history.state ?? {};
  if (home.isConnected) focused = document.activeElement;
  const back = opened && !home.isConnected;
  opened = runs.get(state.get("run")) ?? null;
  addressOfHome = opened ? (former.home ?? addressOfHome) : location.hash || "#";
  document.title = opened ? opened.id : report.heading;
  const page = opened ? details(opened) : home;
  if (page !== home || !home.isConnected) main.replaceChildren(page);
  if (opened) page.querySelector("a").href = addressOfHome;
  restore(page, state);
  goTo(page, state.get("at") ?? "");
  if (opened) page.querySelector("h1").focus({ preventScroll: true });
  else if (back) focused.focus({ preventScroll: true });
  restoreTransient(page, former);
  history.replaceState({ ...former, home: addressOfHome }, "");
  seen = location.hash;
}

addEventListener("change", remember);
for (const event of ["input", "toggle", "focusin", "scroll"]) addEventListener(event, rememberLater, { capture: true, passive: true });
for (const event of ["click", "pagehide"]) addEventListener(event, remember, { capture: true }); // before it leads elsewhere
addEventListener("hashchange", show);
history.scrollRestoration = "manual";
show();

// A page that is written anew while runs train is loaded anew, but not under the reader's hands.
if (report.live) {
  const due = Date.now() + 1000 * report.live.every;
  let touched = 0;
  for (const event of ["pointerdown", "keydown", "wheel", "touchmove", "scroll"]) {
    addEventListener(event, () => (touched = Date.now()), { capture: true, passive: true });
  }
  setInterval(() => {
    const now = Date.now();
    if (now < due || now - touched < QUIET || document.hidden || !getSelection().isCollapsed) return;
    remember();
    location.reload();
  }, 500);
}
