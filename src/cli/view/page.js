// The page of `kinset view`: what is shown follows from the images and the names; whatever is changed is asked of the program, and its
// answer is shown. What a reload shall keep is in the address and in the session's storage.
"use strict";

const at = (id) => document.getElementById(id);
const token = location.pathname.split("/")[1];
// No group can be called so.
const REJECTED = "/rejected", ALL = "/all";
/// Milliseconds between looks at what other windows have changed.
const POLL = 2000;
/// Steps that can be undone.
const STEPS = 200;

let data;                       // what does not change: ids, paths, clusters, confidences
let names;                      // what does: revision, names of clusters, images that were moved
let moved = new Map();          // row → group, or null if rejected
let list = [];                  // groups: {name, images, plain}
let rows = [];                  // rows that are shown, in their order
let place = new Map();          // row → its place in `rows`
const chosen = new Set();       // rows that are selected
let here = 0, anchor = 0;       // places of the cursor, and where a selection began
let special = null;             // {title, rows}: images shown for another reason than their group
let undos = [], redos = [];
let map = null;                 // {of, points: [[row, x, y]…]}

// ---- talking to the program

async function ask(path, body) {
  const init = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`/${token}/${path}`, init);
  } catch {
    throw new Error("kinset view does not answer: has it been stopped?");
  }
  if (answer.status === 204) return null;
  const type = answer.headers.get("content-type") ?? "";
  const said = type.startsWith("application/json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function say(text, bad = false) {
  at("saved").textContent = text;
  at("saved").classList.toggle("bad", bad);
}

// One change after the other, so that each knows the revision before it.
let queue = Promise.resolve();
function edit(what, words, next) {
  const step = queue.then(async () => {
    const said = await ask("edit", { revision: names.revision, ask: what });
    if (next !== undefined) view.group = next;
    take(said.names);
    const others = said.others ? "; another window has changed something, too" : "";
    const skipped = said.skipped ? `; ${said.skipped} changed since, left as they are` : "";
    say((said.changes.length ? words : "nothing to change") + skipped + others);
    return said.changes;
  });
  queue = step.catch(() => {});
  return step.catch((error) => { say(error.message, true); throw error; });
}

/// A change that can be undone; `next` is the group to show then, if it is another.
async function change(what, words, next) {
  const changes = await edit(what, words, next);
  if (changes.length) { undos.push({ changes, words }); redos = []; keep(); }
  return changes;
}

async function back(from, to, verb) {
  const step = from.pop();
  if (!step) return;
  try {
    const changes = await edit({ undo: { changes: step.changes } }, `${verb}: ${step.words}`);
    if (changes.length) to.push({ changes, words: step.words });
  } catch { from.push(step); }
  keep();
}

async function poll() {
  if (document.visibilityState !== "visible" || !names) return;
  try {
    await (queue = queue.then(async () => {
      const found = await ask("names", names.revision);
      if (found) { take(found); say("changed in another window"); }
    }));
  } catch (error) { queue = Promise.resolve(); say(error.message, true); }
}

// ---- groups

const clusterName = (cluster) => names.clusters[cluster] ?? `cluster ${cluster}`;
const isPlain = (name) => /^cluster \d+$/.test(name);

/// The group of an image: null if it is rejected, "" if it belongs to no cluster.
function groupOf(row) {
  const place = moved.get(row);
  if (place !== undefined) return place;
  return data.cluster[row] < 0 ? "" : clusterName(data.cluster[row]);
}

function take(found) {
  names = found;
  moved = new Map(found.moved);
  const counts = new Map();
  for (let cluster = 0; cluster < data.clusters; cluster++) counts.set(clusterName(cluster), 0);
  let rejected = 0;
  for (let row = 0; row < data.ids.length; row++) {
    const name = groupOf(row);
    if (name === null) rejected++;
    else if (name !== "") counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  list = [...counts].map(([name, images]) => ({ name, label: name, images, plain: isPlain(name) }));
  const key = (group) => (isPlain(group.name) ? [1, Number(group.name.slice(8)), ""] : [0, 0, group.name]);
  list.sort((a, b) => { const [x, y] = [key(a), key(b)]; return x[0] - y[0] || x[1] - y[1] || x[2].localeCompare(y[2]); });
  list.push({ name: REJECTED, label: "rejected", images: rejected, plain: true });
  list.unshift({ name: ALL, label: "all images", images: data.ids.length - rejected, plain: true });
  // A group that was renamed elsewhere is gone.
  if (!list.some((group) => group.name === view.group)) view.group = list[1].name;
  show();
}

const current = () => list.find((group) => group.name === view.group);

// ---- the view: what of it a reload keeps is in the address

const view = { group: "", order: "least", low: 0, high: 1, plane: false };

function readAddress() {
  const from = new URLSearchParams(location.hash.slice(1));
  if (from.has("group")) view.group = from.get("group");
  if (["least", "most", "row"].includes(from.get("order"))) view.order = from.get("order");
  for (const bound of ["low", "high"]) {
    const value = Number(from.get(bound) ?? NaN);
    if (value >= 0 && value <= 1) view[bound] = value;
  }
  view.plane = from.get("map") === "1";
}

function keep() {
  const to = new URLSearchParams({ group: view.group, order: view.order, low: view.low, high: view.high, map: view.plane ? 1 : 0 });
  history.replaceState(null, "", `#${to}`);
  const store = { undos: undos.slice(-STEPS), redos: redos.slice(-STEPS), top: at("grid").scrollTop, here, chosen: [...chosen] };
  // What does not fit is not kept over a reload.
  try { sessionStorage.setItem(token, JSON.stringify(store)); } catch { sessionStorage.removeItem(token); }
  at("undo").disabled = !undos.length;
  at("redo").disabled = !redos.length;
}

function restore() {
  try {
    const found = JSON.parse(sessionStorage.getItem(token) ?? "{}");
    undos = found.undos ?? [];
    redos = found.redos ?? [];
    (found.chosen ?? []).forEach((row) => chosen.add(row));
    return found;
  } catch { return {}; }
}

/// Everything anew, after names or view have changed.
function show() {
  const inGroup = (row) => {
    const name = groupOf(row);
    return view.group === ALL ? name !== null : view.group === REJECTED ? name === null : name === view.group;
  };
  if (special) {
    rows = special.rows;
  } else {
    rows = [];
    for (let row = 0; row < data.ids.length; row++) {
      const sure = data.confidence[row];
      if (sure >= view.low && sure <= view.high && inGroup(row)) rows.push(row);
    }
    const sign = { least: 1, most: -1, row: 0 }[view.order];
    if (sign) rows.sort((a, b) => sign * (data.confidence[a] - data.confidence[b]) || a - b);
  }
  place = new Map(rows.map((row, index) => [row, index]));
  for (const row of chosen) if (!place.has(row)) chosen.delete(row);
  here = Math.min(here, Math.max(rows.length - 1, 0));
  anchor = Math.min(anchor, here);
  showGroups();
  at("order").value = view.order;
  at("low").value = view.low;
  at("high").value = view.high;
  const group = current();
  at("group").textContent = special ? special.title : group.label;
  at("rename").disabled = special || [ALL, REJECTED].includes(group.name);
  document.title = `${at("group").textContent} – ${data.pipeline} – kinset view`;
  at("map").setAttribute("aria-pressed", view.plane);
  at("map").hidden = !data.map;
  at("plane").hidden = !view.plane;
  layout();
  if (view.plane) draw();
  keep();
}

function showGroups() {
  const wanted = at("find").value.toLowerCase();
  const shown = list.filter((group) => !wanted || group.label.toLowerCase().includes(wanted));
  at("groups").replaceChildren(...shown.map((group, index) => {
    const item = document.createElement("li");
    const [label, count] = [document.createElement("span"), document.createElement("span")];
    label.textContent = group.label;
    count.textContent = group.images.toLocaleString("en");
    item.append(label, count);
    item.id = `group-${index}`;
    item.role = "option";
    item.dataset.name = group.name;
    item.classList.toggle("plain", group.plain);
    item.setAttribute("aria-selected", String(!special && group.name === view.group));
    item.addEventListener("click", () => go(group.name));
    return item;
  }));
  const now = at("groups").querySelector("[aria-selected=true]");
  if (now) {
    at("groups").setAttribute("aria-activedescendant", now.id);
    now.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

function go(name) {
  special = null;
  view.group = name;
  chosen.clear();
  here = anchor = 0;
  at("grid").scrollTop = 0;
  show();
}

function step(by) {
  const index = list.findIndex((group) => group.name === view.group);
  go(list[(index + by + list.length) % list.length].name);
}

// ---- the grid: only cells that can be seen exist

let columns = 1, side = 100;
const cells = new Map();        // row → cell

function layout() {
  const grid = at("grid");
  const width = grid.clientWidth - 16;
  columns = Math.max(2, Math.floor(width / (width < 500 ? 96 : 124)));
  side = Math.floor(width / columns);
  at("space").style.height = `${Math.ceil(rows.length / columns) * side}px`;
  cells.forEach((cell) => cell.remove());
  cells.clear();
  paint();
}

function paint() {
  const grid = at("grid");
  const first = Math.max(0, Math.floor(grid.scrollTop / side) - 2) * columns;
  const last = Math.min(rows.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / side) + 2) * columns);
  for (const [row, cell] of cells) {
    const index = place.get(row);
    if (index === undefined || index < first || index >= last) {
      // What has not come yet is not waited for.
      const picture = cell.querySelector("img");
      if (picture && !picture.complete) picture.removeAttribute("src");
      cell.remove();
      cells.delete(row);
    }
  }
  for (let index = first; index < last; index++) {
    const row = rows[index];
    let cell = cells.get(row);
    if (!cell) {
      cell = make(row);
      cells.set(row, cell);
      at("space").append(cell);
    }
    cell.style.left = `${(index % columns) * side}px`;
    cell.style.top = `${Math.floor(index / columns) * side}px`;
    cell.style.width = cell.style.height = `${side}px`;
    cell.setAttribute("aria-selected", String(chosen.has(row)));
    cell.setAttribute("aria-posinset", index + 1);
    cell.setAttribute("aria-setsize", rows.length);
    cell.classList.toggle("here", index === here);
    if (index === here) grid.setAttribute("aria-activedescendant", cell.id);
  }
  showCount();
}

const title = (row) => data.paths?.[row] || data.ids[row];

function make(row) {
  const cell = document.createElement("div");
  const box = document.createElement("div");
  box.className = "box";
  cell.className = "cell";
  cell.id = `image-${row}`;
  cell.role = "option";
  cell.dataset.row = row;
  const words = `${title(row)} · confidence ${(100 * data.confidence[row]).toFixed(1)} %`;
  cell.title = words;
  cell.setAttribute("aria-label", words);
  const none = () => {
    const text = document.createElement("div");
    text.className = "none";
    text.textContent = title(row);
    return text;
  };
  if (data.pictures) {
    const picture = document.createElement("img");
    picture.alt = "";
    picture.draggable = false;
    picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth < 64));
    picture.addEventListener("error", () => { if (picture.hasAttribute("src")) picture.replaceWith(none()); });
    picture.src = `/${token}/square/${row}`;
    box.append(picture);
  } else {
    box.append(none());
  }
  const sure = document.createElement("span");
  sure.className = "sure";
  sure.textContent = special?.words?.get(row) ?? data.confidence[row].toFixed(2);
  box.append(sure);
  if (moved.has(row)) {
    const hand = document.createElement("span");
    hand.className = "hand";
    hand.title = "moved or rejected by hand";
    box.append(hand);
  }
  cell.append(box);
  return cell;
}

function showCount() {
  const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
  at("count").textContent = count(rows.length, "image") + (chosen.size ? `, ${chosen.size.toLocaleString("en")} selected` : "");
  const some = meant().length > 0;
  for (const id of ["move", "reject", "restore", "open"]) at(id).disabled = !some;
  at("similar").disabled = !some || !data.near;
  at("all").disabled = !rows.length;
}

/// What an action is about: the selection, else the image at the cursor while the grid has the focus or something was clicked.
const meant = () => (chosen.size ? rows.filter((row) => chosen.has(row)) : rows.length ? [rows[here]] : []);

function reveal() {
  const grid = at("grid");
  const top = Math.floor(here / columns) * side;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + side > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + side - grid.clientHeight;
  paint();
}

function range(from, to, add) {
  if (!add) chosen.clear();
  for (let index = Math.min(from, to); index <= Math.max(from, to); index++) chosen.add(rows[index]);
}

function toggle(row) {
  if (!chosen.delete(row)) chosen.add(row);
}

at("grid").addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  const row = Number(cell.dataset.row);
  here = place.get(row);
  if (event.shiftKey) range(anchor, here, event.ctrlKey || event.metaKey);
  else {
    // A finger has no Ctrl key.
    if (event.ctrlKey || event.metaKey || event.pointerType === "touch") toggle(row);
    else { chosen.clear(); chosen.add(row); }
    anchor = here;
  }
  paint();
  keep();
  if (view.plane) draw();
});
at("grid").addEventListener("dblclick", (event) => { if (event.target.closest(".cell")) look(); });

let asked = false;
at("grid").addEventListener("scroll", () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; paint(); });
});
at("grid").addEventListener("scrollend", keep);
new ResizeObserver(() => { if (data && names) { layout(); reveal(); if (view.plane) draw(); } }).observe(at("grid"));

// ---- what can be done

function question(title, hint, value) {
  const dialog = at("ask");
  at("asked").textContent = title;
  at("hint").textContent = hint;
  at("answer").value = value;
  at("known").replaceChildren(...list.filter((group) => ![ALL, REJECTED].includes(group.name)).map((group) => {
    const option = document.createElement("option");
    option.value = group.name;
    return option;
  }));
  dialog.returnValue = "no";
  dialog.showModal();
  at("answer").select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      at("grid").focus();
      resolve(dialog.returnValue === "yes" ? at("answer").value.trim() : null);
    }, { once: true });
  });
}

const some = (rows) => (rows.length === 1 ? title(rows[0]) : `${rows.length.toLocaleString("en")} images`);

async function rename() {
  if (at("rename").disabled) return;
  const old = view.group;
  const name = await question(`Name “${old}”`, "The name of another group merges the two.", isPlain(old) ? "" : old);
  if (!name || name === old) return;
  await change({ rename: { old, new: name } }, `“${old}” is now “${name}”`, name).catch(() => {});
}

async function move() {
  const rows = meant();
  if (!rows.length) return;
  const name = await question(`Move ${some(rows)}`, "To a group that there is, or to a new one.", "");
  if (name) await act({ move: { rows, group: name } }, `${some(rows)} moved to “${name}”`);
}

const reject = () => { const rows = meant(); return rows.length && act({ reject: { rows } }, `${some(rows)} rejected`); };
const takeBack = () => { const rows = meant(); return rows.length && act({ restore: { rows } }, `${some(rows)} restored`); };

async function act(what, words) {
  chosen.clear();
  await change(what, words).catch(show);
}

async function similar() {
  const [row] = meant();
  if (row === undefined || !data.near) return;
  try {
    const found = await ask(`near/${row}`);
    chosen.clear();
    here = anchor = 0;
    const words = new Map([[row, "this"], ...found.map(([other, alike]) => [other, alike.toFixed(2)])]);
    special = { title: `like ${title(row)}`, rows: [row, ...found.map(([other]) => other)], words };
    at("grid").scrollTop = 0;
    show();
    say("Escape leads back to the group");
  } catch (error) { say(error.message, true); }
}

function look() {
  const row = rows[here];
  if (row === undefined) return;
  const sure = `confidence ${(100 * data.confidence[row]).toFixed(1)} %`;
  at("whole").src = data.pictures ? `/${token}/whole/${row}` : "data:,";
  at("whole").alt = title(row);
  at("about").textContent = `${title(row)} · ${groupOf(row) ?? "rejected"} · cluster ${data.cluster[row]} · ${sure}${title(row) === data.ids[row] ? "" : ` · id ${data.ids[row]}`}`;
  if (!at("look").open) at("look").showModal();
}

function all() {
  rows.forEach((row) => chosen.add(row));
  paint();
  keep();
  if (view.plane) draw();
}

function none() {
  if (chosen.size) chosen.clear();
  else if (special) { special = null; show(); return; }
  paint();
  keep();
  if (view.plane) draw();
}

function travel(by, shift) {
  if (!rows.length) return;
  here = Math.max(0, Math.min(rows.length - 1, here + by));
  if (shift) range(anchor, here, false);
  else anchor = here;
  reveal();
  keep();
}

at("rename").addEventListener("click", rename);
at("move").addEventListener("click", move);
at("reject").addEventListener("click", reject);
at("restore").addEventListener("click", takeBack);
at("similar").addEventListener("click", similar);
at("open").addEventListener("click", look);
at("all").addEventListener("click", all);
at("undo").addEventListener("click", () => back(undos, redos, "undone"));
at("redo").addEventListener("click", () => back(redos, undos, "done again"));
at("help").addEventListener("click", () => at("keys").showModal());
at("close").addEventListener("click", () => at("look").close());
at("cancel").addEventListener("click", () => at("ask").close("no"));
at("find").addEventListener("input", showGroups);
at("find").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  const first = at("groups").querySelector("li");
  if (first) go(first.dataset.name);
  at("find").value = "";
  showGroups();
  at("grid").focus();
});
at("order").addEventListener("change", () => { view.order = at("order").value; show(); });
for (const bound of ["low", "high"]) {
  at(bound).addEventListener("change", () => {
    const value = Number(at(bound).value);
    if (at(bound).value !== "" && value >= 0 && value <= 1) view[bound] = value;
    show();
  });
}
at("map").addEventListener("click", plane);
at("tsne").addEventListener("click", other_map);

document.addEventListener("keydown", (event) => {
  if (at("look").open) {
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") { travel(event.key === "ArrowRight" ? 1 : -1, false); look(); }
    return;
  }
  if (document.querySelector("dialog[open]") || !names) return;
  const typing = event.target.matches("input,select");
  if (typing) {
    if (event.key === "Escape") at("grid").focus();
    return;
  }
  const command = event.ctrlKey || event.metaKey;
  const page = Math.max(1, Math.floor(at("grid").clientHeight / side)) * columns;
  const press = event.target.matches("button");
  const travels = {
    ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity,
  };
  const acts = {
    m: move, x: reject, Delete: reject, r: takeBack, s: similar, n: rename, p: plane, t: other_map, "?": () => at("keys").showModal(),
    j: () => step(1), k: () => step(-1), g: () => at("find").focus(), Escape: none,
    u: () => back(undos, redos, "undone"), U: () => back(redos, undos, "done again"),
  };
  const commands = { a: all, z: acts.u, Z: acts.U, y: acts.U };
  const groups = document.activeElement === at("groups");
  if (groups && (event.key === "ArrowDown" || event.key === "ArrowUp")) step(event.key === "ArrowDown" ? 1 : -1);
  else if (command && commands[event.key]) commands[event.key]();
  else if (command || event.altKey) return;
  else if (event.key in travels) travel(travels[event.key], event.shiftKey);
  else if (event.key === " " && !press) { if (rows.length) { toggle(rows[here]); anchor = here; paint(); keep(); } }
  else if (event.key === "Enter" && !press) look();
  else if (acts[event.key]) acts[event.key]();
  else return;
  event.preventDefault();
});

// ---- the map

const HUES = [205, 35, 160, 12, 320, 195, 50, 250, 95, 0, 280, 130];
let places = null;              // points on the screen, of the last drawing

async function plane() {
  view.plane = !view.plane && data.map;
  show();
  if (view.plane && !map) await place_images();
}

const maps = {};                // by how images were placed, "map" or "tsne"
let placed_by = "map";

async function place_images() {
  const how = placed_by;
  at("tsne").setAttribute("aria-pressed", how === "tsne");
  if (!maps[how]) {
    at("legend").textContent = "computing …";
    try { maps[how] = await ask(how); } catch (error) { at("legend").textContent = error.message; return; }
  }
  if (how !== placed_by) return;
  map = maps[how];
  draw();
}

function other_map() {
  if (!view.plane) return;
  placed_by = placed_by === "map" ? "tsne" : "map";
  place_images();
}

function draw() {
  if (!map) return;
  const canvas = at("canvas"), scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const [, x, y] of map.points) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
  const hue = new Map(list.filter((group) => ![ALL, REJECTED].includes(group.name)).map((group, index) => [group.name, HUES[index % HUES.length]]));
  places = map.points.map(([row, x, y]) => [row, 14 + (width - 28) * (x - x0) / (x1 - x0 || 1), 14 + (height - 28) * (y1 - y) / (y1 - y0 || 1)]);
  const size = map.points.length > 3000 ? 1.8 : 3;
  for (const lit of [false, true]) {
    for (const [row, x, y] of places) {
      const shown = place.has(row);
      if (shown !== lit) continue;
      const color = hue.get(groupOf(row));
      pen.fillStyle = color === undefined ? "#888" : `hsl(${color} 65% 52% / ${shown ? 1 : 0.25})`;
      pen.beginPath();
      pen.arc(x, y, chosen.has(row) ? size + 1.5 : size, 0, 7);
      pen.fill();
      if (chosen.has(row)) { pen.strokeStyle = getComputedStyle(document.body).color; pen.stroke(); }
    }
  }
  const part = map.points.length < map.of ? `, ${map.points.length.toLocaleString("en")} of ${map.of.toLocaleString("en")} at random` : "";
  const how = placed_by === "map" ? "two principal components of the features" : "t-SNE of the features: neighbors beside each other, far distances mean nothing";
  at("legend").textContent = `${how}${part}; draw around images to select them`;
}

let lasso = null;
at("canvas").addEventListener("pointerdown", (event) => {
  if (!places) return;
  lasso = [[event.offsetX, event.offsetY]];
  at("canvas").setPointerCapture(event.pointerId);
});
at("canvas").addEventListener("pointermove", (event) => {
  if (!lasso) return;
  const pen = at("canvas").getContext("2d"), last = lasso[lasso.length - 1];
  lasso.push([event.offsetX, event.offsetY]);
  pen.strokeStyle = getComputedStyle(document.body).color;
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(event.offsetX, event.offsetY);
  pen.stroke();
});
at("canvas").addEventListener("pointerup", (event) => {
  if (!lasso) return;
  const around = lasso;
  lasso = null;
  const inside = (x, y) => {
    let is = false;
    for (let i = 0, j = around.length - 1; i < around.length; j = i++) {
      const [[xi, yi], [xj, yj]] = [around[i], around[j]];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) is = !is;
    }
    return is;
  };
  const found = places.filter(([, x, y]) => inside(x, y)).map(([row]) => row);
  if (!found.length) { draw(); return; }
  if (!event.shiftKey) chosen.clear();
  // What lies in other groups is shown with the rest.
  if (found.some((row) => !place.has(row))) {
    special = { title: "drawn around on the map", rows: [...new Set([...chosen, ...found])] };
    here = anchor = 0;
  }
  found.forEach((row) => chosen.add(row));
  show();
});

// ---- at the beginning

(async () => {
  try {
    data = await ask("data");
    at("title").textContent = `${data.pipeline} · ${data.stage}`;
    at("title").title = `names are in ${data.file}`;
    readAddress();
    const found = restore();
    take(await ask("names"));
    here = Math.min(found.here ?? 0, Math.max(rows.length - 1, 0));
    at("grid").scrollTop = found.top ?? 0;
    paint();
    if (view.plane) { view.plane = false; await plane(); }
    at("grid").focus({ preventScroll: true });
    setInterval(poll, POLL);
    document.addEventListener("visibilitychange", poll);
    document.documentElement.dataset.ready = "yes";
  } catch (error) { say(error.message, true); }
})();
