// What the page does: choose a network, fold and unfold, zoom, search.

const pane = document.getElementById("graph");
const state = { networks: {}, shown: "", zoom: 1, fitted: true, lit: new Set(), turn: 0 };
const current = () => state.networks[state.shown];

async function loadElk() {
  const packed = Uint8Array.from(atob(document.getElementById("elk").textContent), (character) => character.charCodeAt(0));
  const source = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  return new window.ELK();
}

async function show(focus) {
  const network = current(), turn = ++state.turn;
  drawLayers(network, document.getElementById("layers"), state.lit, toggle);
  const laid = await (await state.elk).layout(elkGraph(network));
  if (turn !== state.turn) return;
  const svg = drawGraph(network, laid);
  pane.replaceChildren(svg);
  state.size = [laid.width, laid.height];
  svg.style.setProperty("--natural", `${laid.width}px`);
  if (state.fitted) fit(); else zoom(state.zoom);
  light();
  if (focus) pane.querySelector(`[data-id="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  document.body.dataset.ready = String(turn);
}

function zoom(value) {
  state.zoom = Math.min(Math.max(value, 0.05), 4);
  const svg = pane.querySelector("svg");
  svg.setAttribute("width", state.size[0] * state.zoom);
  svg.setAttribute("height", state.size[1] * state.zoom);
}

function fit() {
  state.fitted = true;
  const wide = (pane.clientWidth - 4) / state.size[0];
  zoom(Math.min(1, Math.max(wide, 0.45)));
}

function scale(factor) {
  state.fitted = false;
  const middle = [pane.scrollLeft + pane.clientWidth / 2, pane.scrollTop + pane.clientHeight / 2];
  const before = state.zoom;
  zoom(state.zoom * factor);
  pane.scrollTo(middle[0] * state.zoom / before - pane.clientWidth / 2, middle[1] * state.zoom / before - pane.clientHeight / 2);
}

function toggle(item) {
  const { open } = current();
  if (open.has(item.id)) open.delete(item.id); else open.add(item.id);
  show(item.id);
}

function light() {
  let first = null;
  for (const drawn of pane.querySelectorAll(".node")) {
    const item = current().items.get(drawn.dataset.id);
    const lit = item.node && item.kind === "module" && state.lit.has(item.node.site);
    drawn.classList.toggle("lit", Boolean(lit));
    first ||= lit ? drawn : null;
  }
  return first;
}

async function search(text) {
  const said = document.getElementById("matches");
  said.className = "";
  state.lit = new Set();
  if (!text.trim()) said.textContent = "";
  else try {
    const sites = selectSites(current().data, current().nodes, text);
    state.lit = new Set(sites);
    said.textContent = `${sites.length} site${sites.length === 1 ? "" : "s"}`;
    const before = new Set(current().open);
    sites.forEach((site) => current().reveal(site));
    if (current().count() > MOST_VISIBLE) {
      current().open = before;
      sites.slice(0, 1).forEach((site) => current().reveal(site));
    }
  } catch (error) {
    said.textContent = error.message;
    said.className = "wrong";
  }
  await show();
  light()?.scrollIntoView({ block: "center", inline: "center" });
}

function choose(name) {
  state.shown = name;
  for (const button of document.querySelectorAll("#views button")) button.setAttribute("aria-pressed", String(button.dataset.view === name));
  const marks = { new: "new", changed: "changed", cut: "cut", frozen: "frozen", heat: "moved, the darker the further" };
  const used = new Set();
  for (const node of current().nodes.values()) {
    if (node.status) used.add(node.status);
    if (node.frozen === "all") used.add("frozen");
    if (node.heat) used.add("heat");
  }
  document.getElementById("legend").innerHTML = Object.entries(marks).filter(([mark]) => used.has(mark))
    .map(([mark, text]) => `<span><i class="${mark}"></i>${text}</span>`).join("");
  const text = document.getElementById("selector").value;
  if (text.trim()) search(text); else show();
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const names = Object.keys(data);
  if (!names.length) return;
  state.elk = loadElk();
  for (const name of names) state.networks[name] = new Network(data[name]);
  const views = document.getElementById("views");
  if (names.length > 1) for (const name of names) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.dataset.view = name;
    button.addEventListener("click", () => choose(name));
    views.append(button, " ");
  }
  document.getElementById("more").addEventListener("click", () => {
    if (current().setAll(true)) show();
    else document.getElementById("matches").textContent = `more than ${MOST_VISIBLE} modules: unfold parts of it`;
  });
  document.getElementById("less").addEventListener("click", () => { current().setAll(false); show(); });
  document.getElementById("larger").addEventListener("click", () => scale(1.25));
  document.getElementById("smaller").addEventListener("click", () => scale(0.8));
  document.getElementById("fit").addEventListener("click", fit);
  let waiting;
  document.getElementById("selector").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(event.target.value), 150);
  });
  const toggled = (target) => {
    const drawn = target.closest?.(".node.folds");
    if (drawn) toggle(current().items.get(drawn.dataset.id));
    return Boolean(drawn);
  };
  pane.addEventListener("click", (event) => toggled(event.target));
  pane.addEventListener("keydown", (event) => {
    if (["Enter", " "].includes(event.key) && toggled(event.target)) event.preventDefault();
    else if (event.key === "+") scale(1.25);
    else if (event.key === "-") scale(0.8);
    else if (event.key === "0") fit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement?.tagName !== "INPUT") {
      event.preventDefault();
      document.getElementById("selector").focus();
    }
  });
  pane.addEventListener("wheel", (event) => {
    if (event.ctrlKey) { event.preventDefault(); scale(event.deltaY < 0 ? 1.1 : 0.9); }
  }, { passive: false });
  window.addEventListener("resize", () => { if (state.fitted && state.size) fit(); });
  choose(names.at(-1));
}

start();
