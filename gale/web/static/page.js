// Asks /page.json every two seconds and shows it. Rates are of two answers. Whatever comes from elsewhere, names of nodes
// above all, is put in as text and never as markup. Rows are kept by their key and changed in place, so that the focus
// stays where it is, a screen reader is not told everything anew, and text can be selected.
"use strict";

const EVERY_MS = 2000, LATE_MS = 8000, POINTS = 90;
const $ = (id) => document.getElementById(id);
let before = null, now = null, heardMs = 0, timer = 0, asking = null;
const curves = new Map();
const TONE = { routing: "good", joining: "warn", draining: "warn", failed: "bad", banned: "bad", left: "" };
const ROLES = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };

// ---- numbers as people read them

function short(value, unit) {
  const sign = ["", "k", "M", "G", "T"];
  let power = 0;
  while (value >= 999.5 && power < 4) { value /= 1000; power++; }
  const digits = value >= 99.5 || (power === 0 && Number.isInteger(value)) ? 0 : value >= 9.95 ? 1 : 2;
  return `${value.toFixed(digits)} ${sign[power]}${unit}`;
}

function rate(one, other, name, seconds) {
  const grown = one && other ? one[name] - other[name] : NaN;
  return grown >= 0 && seconds > 0 ? grown / seconds : null; // counts begin anew when gale-lb does
}

const flow = (perSecond) => (perSecond === null ? "" : short(perSecond, "/s"));
const moved = (packets, octets) => (packets === null ? "" : `${short(8 * octets, "bit/s")}, ${short(packets, " packets/s").replace("  ", " ")}`);
const when = (ms) => new Date(ms).toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
}

// ---- rows

function rows(body, items, key, columns) {
  const names = [...body.parentNode.querySelectorAll("thead th")].map((head) => head.textContent);
  const kept = new Map([...body.children].map((row) => [row.dataset.key, row]));
  items.forEach((item, place) => {
    const id = String(key(item));
    let row = kept.get(id);
    kept.delete(id);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.key = id;
      columns.forEach((_, column) => {
        const cell = document.createElement(column ? "td" : "th");
        cell.setAttribute("role", column ? "cell" : "rowheader");
        if (!column) cell.scope = "row";
        cell.dataset.name = names[column];
        row.append(cell);
      });
      row.setAttribute("role", "row");
    }
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] || null);
    columns.forEach((fill, column) => put(row.children[column], fill(item, row.children[column])));
  });
  for (const row of kept.values()) row.remove();
}

// A cell's function gives its text, or [text, class], or undefined when it has filled the cell itself.
function put(cell, content) {
  if (content === undefined) return;
  const [text, tone] = Array.isArray(content) ? content : [content, null];
  if (tone === null) {
    if (cell.textContent !== text) cell.textContent = text;
    return;
  }
  const inner = cell.firstElementChild || cell.appendChild(document.createElement("span"));
  if (inner.textContent !== text) inner.textContent = text;
  inner.className = tone;
}

function curve(cell, name, there, back) {
  const points = curves.get(name) || curves.set(name, { there: [], back: [] }).get(name);
  for (const [line, value] of [[points.there, there], [points.back, back]]) {
    if (value !== null && fresh) line.push(value);
    if (line.length > POINTS) line.shift();
  }
  const most = Math.max(...points.there, ...points.back, 1);
  let svg = cell.firstElementChild;
  if (!svg) {
    svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "curve");
    svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 30`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    for (let line = 0; line < 2; line++) svg.append(document.createElementNS(svg.namespaceURI, "polyline"));
    cell.append(svg);
  }
  svg.setAttribute("aria-label", `bits a second in and out; the most was ${short(8 * most, "bit/s")}`);
  [points.there, points.back].forEach((line, place) => svg.children[place].setAttribute("points",
    line.map((value, at) => `${POINTS - line.length + at},${(29 - 28 * value / most).toFixed(1)}`).join(" ")));
}

let fresh = false; // whether the answer has new counts

// ---- what is shown

function wrongs(shown) {
  const cluster = shown.cluster, wrong = [];
  for (const reason of shown.unready) wrong.push(`This load balancer is not fit for clients' traffic: ${reason}`);
  if (!cluster.quorum) wrong.push("No quorum: nothing is decided. Forwarding goes on by the last committed view, less the nodes that are silent here.");
  for (const [part, reason] of Object.entries(shown.troubles)) if (part !== "consensus") wrong.push(`${part}: ${reason}`);
  if (cluster.committed > cluster.generation && !shown.troubles.dataplane && old(shown)) wrong.push(`The kernel holds generation ${cluster.generation}, and ${cluster.committed} is committed.`);
  for (const each of shown.services) if (!each.nodes) wrong.push(`Service ${each.name} has no node: its new clients are turned away.`);
  for (const lb of shown.load_balancers) {
    if (lb.ignored) wrong.push(`${lb.address} is ignored: ${lb.ignored}`);
    else if (lb.differs) wrong.push(`${lb.address} is configured otherwise: ${lb.differs}`);
    if (!lb.heard) wrong.push(`${lb.address} is not heard.`);
  }
  return wrong;
}

const old = (shown) => before !== null && before.cluster.generation === shown.cluster.generation && before.cluster.committed === shown.cluster.committed;

function show(shown) {
  const seconds = before ? shown.clock_s - before.clock_s : 0;
  const was = (list, name) => (before ? before[list].find((each) => each.name === name) : undefined);
  const cluster = shown.cluster, wrong = wrongs(shown);
  $("address").textContent = shown.address;
  $("wrong").hidden = wrong.length === 0;
  const list = $("wrong").querySelector("ul");
  if (list.dataset.said !== wrong.join("\n")) {
    list.dataset.said = wrong.join("\n");
    list.replaceChildren(...wrong.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }
  document.title = wrong.length ? `gale: ${wrong.length} wrong` : "gale";
  const ready = shown.unready.length === 0;
  put($("standing"), [ready ? (wrong.length ? "forwards" : "all is well") : "not ready", ready ? (wrong.length ? "warn" : "good") : "bad"]);

  facts([
    ["leader", cluster.leader || "none"], ["term", String(cluster.term)], ["log index", String(cluster.index)],
    ["generation", String(cluster.generation)], ["version", shown.version],
    ["programs", Object.entries(cluster.interfaces).map(([name, how]) => `${name} ${how}`).join(", ") || "not attached"],
    ["nodes", Object.entries(shown.phases).filter(([, count]) => count).map(([phase, count]) => `${count} ${phase}`).join(", ") || "none"],
  ]);
  rows($("load-balancers"), shown.load_balancers, (lb) => lb.address, [
    (lb) => lb.address + (lb.here ? " (this one)" : ""),
    (lb) => (lb.ignored ? ["ignored", "bad"] : !lb.heard ? ["not heard", "bad"] : [lb.leads ? "leader" : "follower", "good"]),
    (lb) => lb.version,
    (lb) => lb.ignored || (lb.differs ? `configured otherwise: ${lb.differs}` : ""),
  ]);
  rows($("services"), shown.services, (each) => each.name, [
    (each) => `${each.name} (${each.mode}, ${each.protocols.join(" and ")} ${each.port})`,
    (each) => [String(each.nodes), each.nodes ? "good" : "bad"],
    (each) => flow(rate(each, was("services", each.name), "flows", seconds)),
    (each) => moved(rate(each, was("services", each.name), "in_packets", seconds), rate(each, was("services", each.name), "in_bytes", seconds)),
    (each) => (each.mode === "l4" ? moved(rate(each, was("services", each.name), "out_packets", seconds), rate(each, was("services", each.name), "out_bytes", seconds)) : "directly"),
    (each, cell) => curve(cell, each.name, rate(each, was("services", each.name), "in_bytes", seconds), rate(each, was("services", each.name), "out_bytes", seconds)),
  ]);
  rows($("verdicts"), shown.verdicts, (each) => each.name, [
    (each) => each.name,
    (each) => [each.action, each.action === "drop" ? "warn" : ""],
    (each) => flow(rate(each, was("verdicts", each.name), "packets", seconds)),
    (each) => short(each.packets, ""),
    (each) => each.meaning,
  ]);
  phases(shown.phases);
  $("found").textContent = shown.found > shown.nodes.length ? `${shown.found} nodes, ${shown.nodes.length} of them shown` : `${shown.found} nodes`;
  document.body.classList.toggle("watching", !shown.may_order);
  rows($("node-rows"), shown.nodes, (node) => node.name, [
    (node) => `${node.name} ${node.addresses.join(" ")}`,
    (node) => [node.phase + (node.drained ? ", to be drained" : "") + (node.taken_away ? ", taken away here" : ""), node.taken_away ? "bad" : TONE[node.phase]],
    (node) => span(Date.now() - node.since_ms),
    (node) => flow(rate(node, was("nodes", node.name), "flows", seconds)),
    (node) => moved(rate(node, was("nodes", node.name), "in_packets", seconds), rate(node, was("nodes", node.name), "in_bytes", seconds)),
    (node) => String(node.weight),
    (node) => [node.why, node.fails ? `${node.fails} fails` : "", node.banned_until_ms ? `until ${when(node.banned_until_ms)}` : ""].filter(Boolean).join("; "),
    (node, cell) => order(cell, node, shown.may_order),
  ]);
  $("rights").textContent = shown.may_order ? `Orders are given as ${shown.who}.`
    : "This page only shows. Orders: gale-ctl node drain NAME, on any load balancer; or here, over HTTPS, with an operator's certificate ([tls]).";
  rows($("event-rows"), shown.events, (each) => each.sequence, [
    (each) => when(each.time_ms),
    (each) => each.subject,
    (each) => `${each.before} → ${each.after}`,
    (each) => each.cause,
    (each) => each.who,
    (each) => String(each.index || ""),
  ]);
}

function facts(pairs) {
  const list = $("facts");
  pairs.forEach(([name, text], place) => {
    let pair = list.children[place];
    if (!pair) {
      pair = list.appendChild(document.createElement("div"));
      pair.append(document.createElement("dt"), document.createElement("dd"));
    }
    put(pair.firstChild, name);
    put(pair.lastChild, text);
  });
}

function phases(counts) {
  const choice = $("phase");
  if (choice.options.length === 1) for (const phase of Object.keys(counts)) choice.add(new Option(phase, phase));
}

// ---- orders

function order(cell, node, allowed) {
  cell.classList.add("order");
  if (!allowed) return cell.replaceChildren();
  const button = cell.firstElementChild || cell.appendChild(Object.assign(document.createElement("button"), { type: "button" }));
  put(button, node.drained ? "Undrain" : "Drain");
  button.setAttribute("aria-label", `${button.textContent} ${node.name}`);
  button.onclick = () => ask(node.name, !node.drained);
}

function ask(name, drain) {
  const dialog = $("ask");
  $("ask-head").textContent = `${drain ? "Drain" : "Undrain"} ${name}?`;
  $("ask-what").textContent = drain ? "It keeps the flows that it has (l4), and gets no new ones until it is undrained." : "It gets new flows again.";
  $("why").value = "";
  dialog.returnValue = "";
  dialog.onclose = () => { if (dialog.returnValue === "yes") give(name, drain, $("why").value); };
  dialog.showModal();
}

async function give(name, drain, why) {
  $("said").textContent = `${drain ? "Draining" : "Undraining"} ${name}`;
  try {
    const answer = await fetch("/order", {
      method: "POST",
      headers: { "content-type": "application/json", "x-gale-order": "1" },
      body: JSON.stringify({ node: name, drain, why }),
    });
    $("said").textContent = (answer.ok ? "" : "Not done: ") + (await answer.text()).trim();
  } catch (error) {
    $("said").textContent = `Not known whether it was done: ${error.message}`;
  }
  turn();
}

// ---- again and again

async function turn() {
  clearTimeout(timer);
  if (asking) asking.abort();
  const mine = (asking = new AbortController());
  const late = setTimeout(() => mine.abort(), LATE_MS);
  try {
    const wanted = new URLSearchParams({ find: $("find").value, phase: $("phase").value });
    const answer = await fetch(`/page.json?${wanted}`, { signal: mine.signal });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    const shown = await answer.json();
    heardMs = Date.now();
    fresh = !now || shown.clock_s !== now.clock_s;
    if (fresh) before = now;
    now = shown;
    show(shown);
  } catch (error) {
    if (asking !== mine) return; // the next one is under way
  } finally {
    clearTimeout(late);
  }
  if (asking === mine) asking = null;
  tell();
  if (!document.hidden) timer = setTimeout(turn, EVERY_MS);
}

function tell() {
  const silent = Date.now() - heardMs, lost = silent > 2.5 * EVERY_MS;
  document.body.classList.toggle("lost", lost);
  const text = !heardMs ? "asking" : lost ? `gale-lb does not answer: what is shown is ${span(silent)} old` : "live";
  put($("age"), [text, lost ? "bad" : heardMs ? "good" : ""]);
}

for (const part of document.querySelectorAll("table, thead, tbody, thead tr")) part.setAttribute("role", ROLES[part.tagName]);
for (const head of document.querySelectorAll("thead th")) head.setAttribute("role", "columnheader");
$("look").addEventListener("submit", (event) => event.preventDefault());
$("find").addEventListener("input", () => turn());
$("phase").addEventListener("change", () => turn());
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : turn()));
setInterval(tell, 1000);
turn();
