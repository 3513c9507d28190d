// The table of layers: the same tree as the graph, folded and unfolded with it.

function layerRows(network) {
  const rows = [];
  const visit = (item, depth) => {
    if (item.kind === "module" || item.kind === "group") {
      rows.push([item, depth]);
      if (!network.open.has(item.id)) return;
    }
    const inner = item.children.filter((child) => (child.kind === "module" || child.kind === "group") && !child.id.includes("~"));
    for (const child of inner) visit(child, depth + 1);
  };
  visit(network.root, 0);
  return rows;
}

function drawLayers(network, table, lit, toggle) {
  const head = ["site", "class", "output", "parameters", "bytes", "FLOPs", "state", ...network.data.columns];
  const number = (at) => at > 2 && at < 6;
  const make = (tag, text, className) => {
    const cell = document.createElement(tag);
    cell.textContent = text;
    if (className) cell.className = className;
    return cell;
  };
  const top = document.createElement("tr");
  head.forEach((name, at) => top.append(make("th", name, number(at) ? "number" : "")));
  const body = layerRows(network).map(([item, depth]) => {
    const node = item.node, copies = item.copies || 1;
    const row = document.createElement("tr");
    row.className = [node.status && node.status !== "kept" ? node.status : "", lit.has(node.site) && item.kind === "module" ? "lit" : ""].join(" ").trim();
    const site = document.createElement("td");
    site.style.paddingLeft = `${depth * 1.1}rem`;
    const inner = item.children.some((child) => (child.kind === "module" || child.kind === "group") && !child.id.includes("~"));
    const fold = document.createElement("button");
    fold.type = "button";
    fold.textContent = inner ? (network.open.has(item.id) ? "▾" : "▸") : "";
    fold.hidden = !inner;
    if (inner) {
      fold.setAttribute("aria-expanded", String(network.open.has(item.id)));
      fold.setAttribute("aria-label", `fold ${node.site || "the network"}`);
      fold.addEventListener("click", () => toggle(item));
    } else site.style.paddingLeft = `${depth * 1.1 + 1.3}rem`;
    site.append(fold, make("span", item.kind === "group" ? `${item.name}` : item.name, "site"));
    if (node.roles && item.kind === "module") site.append(make("span", `  ${node.roles.join(" ")}`, "role"));
    const state = [node.status && node.status !== "kept" ? node.status : "", node.frozen === "all" ? "frozen" : node.frozen === "part" ? "partly frozen" : "",
      node.ran || !network.data.edges.length ? "" : "does not run", node.calls > 1 ? `${node.calls} calls` : ""].filter(Boolean).join(", ");
    const values = [item.copies ? `${item.copies} × ${node.class}` : node.class, sizes(node.shape), (node.parameters || 0) * copies,
      (node.bytes || 0) * copies, (node.flops || 0) * copies];
    row.append(site, make("td", values[0]), make("td", values[1]),
      ...values.slice(2).map((value) => make("td", short(value), "number")), make("td", state),
      ...network.data.columns.map((_, at) => make("td", (node.more || [])[at] || "")));
    return row;
  });
  const group = document.createElement("tbody");
  group.append(...body);
  const heading = document.createElement("thead");
  heading.append(top);
  table.replaceChildren(heading, group);
}
