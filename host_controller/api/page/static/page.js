// Asks for /v1/status every two seconds and changes only what has changed. Needs text.js, curve.js and chart.js.
"use strict";

const PERIOD = 2000;
const rows = new Map(); // uuid → its row and cells
const visible = new Set();
let sort = "name";
let backwards = false;
let latest = null;
let opened = ""; // the address's hash that the dialog shows

function showHost(host) {
  put(byId("connection"), `${host.version} on ${host.connection}`);
  const list = troubles(host);
  if (byId("troubles").textContent !== list.map(neutral).join("")) {
    byId("troubles").replaceChildren(...list.map((text) => element("li", text)));
  }
  const shown = figures(host);
  const box = byId("figures");
  if (!box.children.length) {
    for (const name of Object.keys(shown)) {
      const one = element("div");
      one.append(element("dt", name), element("dd"));
      box.append(one);
    }
  }
  Object.values(shown).forEach((bytes, i) => put(box.children[i].lastChild, size(bytes)));
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    (entry.isIntersecting ? visible.add(entry.target.dataset.uuid) : visible.delete(entry.target.dataset.uuid));
  }
  if (latest) sparklines();
});

function makeRow(vm) {
  const row = element("tr");
  row.dataset.uuid = vm.uuid;
  const kinds = ["name", "status", "number", "number", "number", "number", "number", "trend", "decision"];
  const labels = ["", "", "assigned", "demand", "pressure", "limits", "weight", "", ""];
  const cells = kinds.map((kind, i) => {
    const cell = element("td", undefined, kind);
    if (labels[i]) cell.dataset.label = labels[i];
    return cell;
  });
  const canvas = element("canvas", undefined, "spark");
  canvas.width = 240;
  canvas.height = 48;
  cells[7].append(canvas);
  const link = element("a");
  link.href = linkTo(vm.uuid);
  cells[0].append(link);
  row.append(...cells);
  row.addEventListener("click", () => { location.hash = linkTo(vm.uuid); });
  observer.observe(row);
  return { row, cells, canvas };
}

function showRow(vm) {
  let known = rows.get(vm.uuid);
  if (!known) rows.set(vm.uuid, (known = makeRow(vm)));
  const cells = known.cells;
  put(cells[0].firstChild, vm.name);
  putFigures(cells, vm);
  put(cells[8], lately(vm));
  return known.row;
}

function showVms(vms) {
  const wanted = byId("filter").value.trim().toLowerCase();
  const chosen = sorted(vms.filter((vm) => vm.name.toLowerCase().includes(wanted)), sort, backwards);
  const order = chosen.map(showRow);
  const body = byId("vms").tBodies[0];
  if (order.length !== body.rows.length || order.some((row, i) => row !== body.rows[i])) body.replaceChildren(...order);
  const present = new Set(vms.map((vm) => vm.uuid));
  for (const [uuid, known] of rows) {
    if (!present.has(uuid)) { observer.unobserve(known.row); rows.delete(uuid); visible.delete(uuid); }
  }
  put(byId("count"), chosen.length === vms.length ? `${vms.length} VMs` : `${chosen.length} of ${vms.length} VMs`);
}

function sparklines() {
  const tint = getComputedStyle(document.documentElement).getPropertyValue("--spark").trim();
  for (const uuid of visible) {
    const known = rows.get(uuid);
    const values = Chart.past.get(uuid);
    if (!known || !values) continue;
    const { canvas } = known;
    const pen = canvas.getContext("2d");
    const top = Math.max(...values) * 1.1 || 1;
    const [first, last] = [Chart.times[0], Chart.times[Chart.times.length - 1]];
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.strokeStyle = tint;
    pen.lineWidth = 2;
    pen.beginPath();
    values.forEach((value, i) => {
      const x = ((Chart.times[i] - first) / (last - first || 1)) * canvas.width;
      pen.lineTo(x, canvas.height - (value / top) * canvas.height);
    });
    pen.stroke();
  }
}

async function answer(address) {
  const told = await fetch(address, { signal: AbortSignal.timeout(20000) });
  const body = await told.json();
  if (!told.ok) throw new Error(body.message);
  return body;
}

// The address names whom it explains: it can be sent to somebody, and `back` closes it.
const linkTo = (uuid) => `#vm=${encodeURIComponent(uuid)}`;

async function details() {
  const found = /^#vm=(.+)$/.exec(location.hash);
  const address = location.hash;
  opened = address;
  const dialog = byId("details");
  if (!found) { dialog.close(); return; }
  const box = dialog.lastElementChild;
  const uuid = decodeURIComponent(found[1]);
  try {
    await explained(answer, uuid, (told, first) => {
      if (opened !== address || !(first || dialog.open)) return false;
      if (first) {
        const curve = element("div", undefined, "history");
        box.replaceChildren(element("h2", told.vm.name), curve, element("div"));
        Curve.zoomable(curve, uuid, answer);
      }
      box.lastElementChild.replaceChildren(...explanation(told));
      if (!dialog.open) dialog.showModal();
      return true;
    });
  } catch (error) {
    box.replaceChildren(element("p", error.message));
    if (!dialog.open) dialog.showModal();
  }
}

function update(status) {
  const begun = performance.now();
  latest = status;
  Chart.note(status, Date.now() / 1000);
  showHost(status.host);
  showVms(status.vms);
  sparklines();
  Chart.draw(byId("chart"), status);
  document.body.dataset.updateMs = (performance.now() - begun).toFixed(2);
  document.body.dataset.updates = Number(document.body.dataset.updates || 0) + 1;
}

async function ask() {
  try {
    const answer = await fetch("/v1/status", { signal: AbortSignal.timeout(5000) });
    update(await answer.json());
  } catch (error) {
    put(byId("connection"), `The controller does not answer (${error.message}); it is asked again.`);
  }
  setTimeout(ask, document.hidden ? 5 * PERIOD : PERIOD);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    backwards = sort === button.dataset.sort && !backwards;
    sort = button.dataset.sort;
    for (const head of document.querySelectorAll("th[aria-sort]")) head.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", backwards === (sort === "name") ? "descending" : "ascending");
    if (latest) showVms(latest.vms);
  });
}
for (const button of byId("spans").children) {
  button.addEventListener("click", async () => {
    for (const one of byId("spans").children) one.setAttribute("aria-pressed", String(one === button));
    await Chart.zoom(button.dataset.span, answer);
    if (latest) Chart.draw(byId("chart"), latest);
  });
}
byId("filter").addEventListener("input", () => { if (latest) showVms(latest.vms); });
byId("details").addEventListener("close", () => {
  if (!byId("details").open && location.hash === opened) history.pushState(null, "", location.pathname);
});
window.addEventListener("hashchange", details);
Chart.recall().catch(() => {}).finally(() => { ask(); details(); }); // without it the chart begins empty
