// The graph: which items are visible, where elkjs puts them, and how they are drawn.

const MOST_VISIBLE = 900;
const FIRST_VISIBLE = 26;
const NS = "http://www.w3.org/2000/svg";

function element(name, attributes, ...children) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function short(number) {
  if (!number) return "";
  const units = ["", "k", "M", "G", "T", "P"];
  let unit = 0;
  while (number >= 999.5 && unit + 1 < units.length) { number /= 1000; unit++; }
  return `${number >= 99.5 || unit === 0 ? Math.round(number) : number.toPrecision(number >= 9.95 ? 3 : 2)}${units[unit]}`;
}

const sizes = (shape) => (shape || []).join(" × ");

// A network as a tree of items: modules, runs of equal modules (×12), joins, inputs and outputs.
class Network {
  constructor(data) {
    this.data = data;
    this.nodes = new Map();
    this.items = new Map();
    this.open = new Set([":"]);
    this.joins = new Map();
    for (const [id, label] of Object.entries(data.joins)) {
      const site = id.slice(0, id.lastIndexOf("#"));
      if (!this.joins.has(site)) this.joins.set(site, []);
      this.joins.get(site).push([id, label]);
    }
    this.root = this.module(data.root, null);
    for (const [source, target] of data.edges) for (const end of [source, target]) {
      const again = end.lastIndexOf("~");
      if (again > 0) {
        const first = this.items.get(`${end.slice(0, again)}:`);
        this.add({ ...first, id: end, name: `${first.name}, call ${end.slice(again + 1)}` });
      }
      if (end.startsWith("<") || end.startsWith(">")) this.add({ id: end, name: end.slice(1), kind: "end", parent: this.root });
    }
    for (const [source, target] of data.edges) for (const end of [source, target]) {
      for (let item = this.endpoint(end); item && !item.drawn; item = item.parent) item.drawn = true;
    }
    for (const item of this.items.values()) {
      const apart = item.node && item.node.parameters && !item.node.children && item.node.status && item.node.status !== "kept";
      if (apart || !data.edges.length) for (let up = item; up && !up.drawn; up = up.parent) up.drawn = true;
    }
    this.openAtFirst();
  }

  add(item) {
    if (this.items.has(item.id)) return this.items.get(item.id);
    item.children = [];
    this.items.set(item.id, item);
    if (item.parent) item.parent.children.push(item);
    return item;
  }

  module(node, parent) {
    this.nodes.set(node.site, node);
    const item = this.add({ id: `${node.site}:`, name: node.name || node.class, kind: "module", node, parent });
    const children = (node.children || []).filter((child) => child.same === undefined);
    const starts = new Map((node.groups || []).map(([start, end]) => [node.children[start].site, [start, end]]));
    let group = null, until = -1;
    for (const child of children) {
      const at = node.children.indexOf(child);
      if (at >= until) group = null;
      if (starts.has(child.site)) {
        const [start, end] = starts.get(child.site);
        const last = node.children[end - 1];
        group = this.add({ id: `${child.site}..${last.name}:`, name: `${child.name} – ${last.name}`, kind: "group",
          node: { ...child, heat: Math.max(...node.children.slice(start, end).map((each) => each.heat || 0)),
            more: together(node.children.slice(start, end).map((each) => each.more || [])) },
          copies: end - start, parent: item });
        until = end;
      }
      this.module(child, group || item);
    }
    for (const [id, label] of this.joins.get(node.site) || []) {
      this.add({ id, name: label, kind: "join", parent: item });
    }
    return item;
  }

  endpoint(end) {
    return this.items.get(end) || this.items.get(`${end}:`);
  }

  folds(item) {
    return item.children.some((child) => child.drawn);
  }

  visible(item) {
    let shown = item;
    for (let up = item.parent; up; up = up.parent) if (!this.open.has(up.id)) shown = up;
    return shown;
  }

  shownBelow(item) {
    return item.children.filter((child) => child.drawn);
  }

  count() {
    const below = (item) => this.shownBelow(item).reduce((sum, child) => sum + 1 + (this.open.has(child.id) ? below(child) : 0), 0);
    return below(this.root);
  }

  // Unfold from the root down while the graph stays small; then what surgery changes.
  openAtFirst() {
    let waiting = [this.root];
    while (waiting.length) {
      const next = waiting.shift();
      this.open.add(next.id);
      if (next !== this.root && this.count() > FIRST_VISIBLE) { this.open.delete(next.id); continue; }
      const inner = this.shownBelow(next).filter((item) => item.kind === "module" && this.folds(item));
      waiting.push(...inner.filter((item) => !(item.node.roles || []).includes("@blocks")));
    }
    for (const item of this.items.values()) {
      if (!item.drawn || !item.node || !item.node.status || item.node.status === "kept") continue;
      const added = [];
      if (this.inGroup(item)) continue;
      for (let up = item.parent; up; up = up.parent) if (!this.open.has(up.id)) added.push(up.id);
      added.forEach((id) => this.open.add(id));
      if (this.count() > 2.5 * FIRST_VISIBLE) added.forEach((id) => this.open.delete(id));
    }
  }

  inGroup(item) {
    for (let up = item; up; up = up.parent) if (up.kind === "group") return true;
    return false;
  }

  reveal(site) {
    for (let up = this.items.get(`${site}:`)?.parent; up; up = up.parent) this.open.add(up.id);
  }

  setAll(open) {
    const before = new Set(this.open);
    this.open = new Set([":"]);
    if (!open) return true;
    for (const item of this.items.values()) if (this.folds(item)) this.open.add(item.id);
    if (this.count() <= MOST_VISIBLE) return true;
    this.open = before;
    return false;
  }
}

function lines(item) {
  const node = item.node;
  if (item.kind === "join") return [item.name];
  if (item.kind === "end") return [item.name, item.id.startsWith("<") ? "input" : "output"];
  const kind = node.kind && node.kind !== "head" ? `${node.kind} · ` : "";
  const copies = item.copies ? `${item.copies} × ` : "";
  const parameters = node.parameters ? `  ${short(node.parameters * (item.copies || 1))}` : "";
  const out = [item.name, `${kind}${copies}${node.class}${parameters}`];
  if (node.roles && !item.copies) out[0] += `  ${node.roles.filter((role) => role !== "@norms").join(" ")}`.trimEnd();
  return out;
}

const measurer = document.createElement("canvas").getContext("2d");
function widthOf(text, size) {
  measurer.font = `${size > 12 ? 600 : 400} ${size}px system-ui, sans-serif`;
  return measurer.measureText(text).width;
}

// The further columns of several blocks as one row: what they share, or the least and the most.
function together(rows) {
  return (rows[0] || []).map((_, at) => {
    const texts = [...new Set(rows.map((row) => row[at] || ""))];
    const numbers = texts.map((text) => (text === "" ? NaN : Number(text)));
    if (texts.length < 2 || numbers.some(Number.isNaN)) return texts.length < 2 ? texts[0] : "";
    const extreme = (most) => texts[numbers.indexOf(most(...numbers))];
    return `${extreme(Math.min)} … ${extreme(Math.max)}`;
  });
}

// What elkjs lays out: visible items inside one another, and one edge between each pair that is joined.
function elkGraph(network) {
  const build = (item) => {
    const texts = lines(item);
    const sign = network.folds(item) ? 16 : 0;  // behind the title: folded or not
    const width = Math.max(...texts.map((text, at) => (at ? widthOf(text, 11) : widthOf(text, 13.5) + sign))) + 24;
    const open = network.open.has(item.id) && network.folds(item);
    const made = { id: item.id, width: Math.max(width, 56), height: texts.length > 1 ? 42 : 26 };
    if (!open) return made;
    made.children = network.shownBelow(item).map(build);
    made.layoutOptions = {
      "elk.padding": item === network.root ? "[top=12,left=12,bottom=12,right=12]" : "[top=46,left=14,bottom=14,right=14]",
      "elk.nodeSize.constraints": "MINIMUM_SIZE",
      "elk.nodeSize.minimum": `(${Math.ceil(width)},50)`,
    };
    return made;
  };
  const graph = build(network.root);
  const edges = new Map(), labelled = new Set();
  const isInside = (inner, outer) => { for (let up = inner; up; up = up.parent) if (up === outer) return true; return false; };
  for (const [source, target, shape] of network.data.edges) {
    const from = network.visible(network.endpoint(source)), to = network.visible(network.endpoint(target));
    const id = `${from.id}|${to.id}`;
    if (from === to || edges.has(id) || isInside(from, to) || isInside(to, from)) continue;
    const text = sizes(shape), labels = [];
    if (text && !labelled.has(`${source}${text}`)) {
      labelled.add(`${source}${text}`);
      labels.push({ text, width: widthOf(text, 10) + 6, height: 13 });
    }
    edges.set(id, { id, sources: [from.id], targets: [to.id], labels });
  }
  graph.edges = [...edges.values()];
  graph.layoutOptions = {
    ...graph.layoutOptions,
    "elk.algorithm": "layered",
    "elk.direction": "DOWN",
    "elk.hierarchyHandling": "INCLUDE_CHILDREN",
    "elk.json.edgeCoords": "ROOT",
    "elk.spacing.nodeNode": "22",
    "elk.layered.spacing.nodeNodeBetweenLayers": "16",
    "elk.layered.spacing.edgeNodeBetweenLayers": "8",
    "elk.layered.spacing.edgeEdgeBetweenLayers": "8",
    "elk.spacing.edgeLabel": "1",
    "elk.layered.considerModelOrder.strategy": "NODES_AND_EDGES",
    "elk.layered.nodePlacement.strategy": "NETWORK_SIMPLEX",
    "elk.edgeRouting": "ORTHOGONAL",
  };
  return graph;
}

function drawItem(network, item, placed, x, y, layers) {
  const node = item.node || {};
  const open = Boolean(placed.children), folds = item.kind !== "join" && item.kind !== "end" && network.folds(item);
  const classes = ["node", item.kind, open ? "open" : "", folds ? "folds" : "", node.status && node.status !== "kept" ? node.status : "",
    node.frozen === "all" ? "frozen" : "", node.kind ? "marked" : ""];
  const group = element("g", { class: classes.filter(Boolean).join(" "), transform: `translate(${x},${y})`, "data-id": item.id });
  const title = item.node ? item.node.site || "the network" : item.name;
  const said = [title, ...lines(item).slice(1), sizes(node.shape), node.frozen === "all" ? "frozen" : "",
    node.status && node.status !== "kept" ? node.status : ""].filter(Boolean).join(", ");
  group.append(element("title", {}, said));
  group.append(element("rect", { width: placed.width, height: placed.height, rx: item.kind === "end" ? 13 : 6, class: open ? "shell" : "" }));
  if (node.heat && !open) group.append(element("rect", { width: placed.width, height: placed.height, rx: 6, class: "heat", opacity: 0.12 + 0.6 * node.heat }));
  const texts = element("g", { class: `texts ${node.status === "cut" ? "gone" : ""}`, transform: group.getAttribute("transform"), "pointer-events": "none" });
  lines(item).forEach((text, at) => {
    texts.append(element("text", { x: 11, y: 17 + 16 * at, class: at || item.kind === "join" ? "sub" : "title" }, text));
  });
  layers.texts.append(texts);
  if (folds) {
    group.setAttribute("tabindex", "0");
    group.setAttribute("role", "button");
    group.setAttribute("aria-expanded", String(open));
    group.setAttribute("aria-label", said);
    texts.append(element("text", { x: placed.width - 14, y: 16, class: "sub" }, open ? "−" : "+"));
  }
  layers.nodes.append(group);
  for (const child of placed.children || []) drawItem(network, network.items.get(child.id), child, x + child.x, y + child.y, layers);
}

function drawGraph(network, laid) {
  const svg = element("svg", { viewBox: `0 0 ${laid.width} ${laid.height}`, role: "group" });
  svg.append(element("defs", {}, element("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    element("path", { d: "M0,0 L8,4 L0,8 z", class: "arrow" }))));
  const layers = { nodes: element("g", {}), edges: element("g", {}), texts: element("g", { "aria-hidden": "true" }) };
  for (const child of laid.children || []) drawItem(network, network.items.get(child.id), child, child.x, child.y, layers);
  for (const edge of laid.edges || []) {
    for (const part of edge.sections || []) {
      const points = [part.startPoint, ...(part.bendPoints || []), part.endPoint];
      layers.edges.append(element("path", { class: "edge", d: "M" + points.map((point) => `${point.x},${point.y}`).join(" L"), "marker-end": "url(#arrow)" }));
    }
    for (const label of edge.labels || []) {
      layers.edges.append(element("text", { class: "shape", x: label.x + 3, y: label.y + 10 }, label.text));
    }
  }
  svg.append(layers.nodes, layers.edges, layers.texts);
  return svg;
}
