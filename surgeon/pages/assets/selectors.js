// Selectors as surgeon's recipes have them, resolved on the tree of a page. surgeon/graph/sites.py is the original.

function splitTerms(selector) {
  const terms = [];
  let depth = 0, current = "";
  for (let at = 0; at < selector.length; at++) {
    const rest = selector.slice(at).trimStart().replace(/^!/, "");
    if (!current.trim() && rest.startsWith("re:")) {
      terms.push(selector.slice(at).trim());
      return terms.filter(Boolean);
    }
    const character = selector[at];
    depth += ("[{(".includes(character) ? 1 : 0) - ("]})".includes(character) ? 1 : 0);
    if (character === "," && depth === 0) {
      terms.push(current.trim());
      current = "";
    } else current += character;
  }
  return [...terms, current.trim()].filter(Boolean);
}

// A pattern of one name: * and ? and [abc] as Python's fnmatch reads them.
function nameMatches(name, pattern) {
  let text = "";
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at];
    const end = character === "[" ? pattern.indexOf("]", at + 2) : -1;
    if (character === "*") text += ".*";
    else if (character === "?") text += ".";
    else if (end > 0) {
      text += "[" + pattern.slice(at + 1, end).replace(/\\/g, "\\\\").replace(/^!/, "^") + "]";
      at = end;
    } else text += character.replace(/[\\^$.|+(){}\[\]]/g, "\\$&");
  }
  return new RegExp(`^(?:${text})$`, "s").test(name);
}

function segmentsOf(path) {
  const parts = path.match(/(?:\{[^}]*\}|\[[^\]]*\]|[^.\[{])+|\[[^\]]*\]/g) || [];
  return parts.flatMap((part) => part.match(/(?:\{[^}]*\}|[^\[{])+|\[[^\]]*\]/g) || []);
}

function alternativesOf(segment) {
  const parsed = segment.match(/^([^{]*)\{([^}]*)\}(.*)$/s);
  if (!parsed) return [segment];
  return parsed[2].split(",").flatMap((option) => alternativesOf(parsed[1] + option.trim() + parsed[3]));
}

function pick(names, index) {
  const text = index.slice(1, -1).trim();
  const numbers = text.split(":").map((part) => (part.trim() ? Number(part) : null));
  if (numbers.some((number) => number !== null && !Number.isInteger(number))) throw Error(`[${text}] is not an index`);
  if (numbers.length === 1) {
    const name = names.at(numbers[0]);
    if (name === undefined) throw Error(`[${text}] is out of range: there are ${names.length}`);
    return [name];
  }
  const step = numbers[2] ?? 1;
  const size = names.length;
  const bound = (value, low, high) => Math.min(Math.max(value < 0 ? value + size : value, low), high);
  const picked = [];
  if (step > 0) {
    const end = numbers[1] === null ? size : bound(numbers[1], 0, size);
    for (let at = numbers[0] === null ? 0 : bound(numbers[0], 0, size); at < end; at += step) picked.push(names[at]);
  } else if (step < 0) {
    const end = numbers[1] === null ? -1 : bound(numbers[1], -1, size - 1);
    const start = numbers[0] === null ? size - 1 : bound(numbers[0], -1, size - 1);
    for (let at = start; at > end; at += step) picked.push(names[at]);
  }
  return picked;
}

function walk(nodes, site, segments, out) {
  const node = nodes.get(site);
  if (!segments.length) {
    if (site) out.push(site);
    return;
  }
  const [head, ...rest] = segments;
  const children = node.children || [];
  const inside = (child) => child.same ?? child.site;
  if (head.startsWith("[")) {
    if (children.length) for (const name of pick(children.map((child) => child.name), head)) {
      walk(nodes, inside(children.find((child) => child.name === name)), rest, out);
    }
  } else if (head === "**") {
    walk(nodes, site, rest, out);
    for (const child of children) walk(nodes, inside(child), segments, out);
  } else {
    for (const child of children) {
      if (alternativesOf(head).some((pattern) => nameMatches(child.name, pattern))) walk(nodes, inside(child), rest, out);
    }
    if (head.includes(".")) for (const path of alternativesOf(head)) walk(nodes, site, [...segmentsOf(path), ...rest], out);
  }
}

function matchTerm(drawing, nodes, term) {
  const names = [...nodes.keys()];
  if (term === ".") return [""];
  if (term.startsWith("type:")) {
    const matches = (name) => (drawing.classes[name] || [name]).some((base) => nameMatches(base, term.slice(5)));
    return names.filter((name) => matches(nodes.get(name).class));
  }
  if (term.startsWith("re:")) {
    const expression = new RegExp(`^(?:${term.slice(3)})$`);
    return names.filter((name) => name && expression.test(name));
  }
  const out = [];
  if (!term.startsWith("@")) {
    walk(nodes, "", segmentsOf(term), out);
    return out;
  }
  const parsed = term.match(/^@(\w+)(\[[^\]]*\])?(?:\.(.+))?$/s);
  if (!parsed) throw Error(`${term} is not a role`);
  let sites = drawing.roles[parsed[1]] || [];
  if (parsed[2] && sites.length) sites = pick(sites, parsed[2]);
  if (!parsed[3]) return sites;
  for (const site of sites) walk(nodes, site, segmentsOf(parsed[3]), out);
  return out.filter((site) => !sites.includes(site));
}

// The sites that a selector names, in the order of the tree. Throws an Error that says what is wrong.
function selectSites(drawing, nodes, selector) {
  const terms = splitTerms(selector);
  const included = new Set(), excluded = new Set();
  for (const term of terms) {
    const matched = matchTerm(drawing, nodes, term.replace(/^!/, "").trim());
    if (!matched.length) throw Error(`no module matches ${term}`);
    for (const site of matched) (term.startsWith("!") ? excluded : included).add(site);
  }
  const all = terms.length && terms.every((term) => term.startsWith("!"));
  return [...nodes.keys()].filter((site) => (all ? site : included.has(site)) && !excluded.has(site));
}
