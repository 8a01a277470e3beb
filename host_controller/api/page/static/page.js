// Asks for /v1/status every two seconds and changes only what has changed. Texts from elsewhere go through
// textContent, never through HTML, and through neutral().
"use strict";

const PERIOD = 2000;
const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
const STATUS = { ok: "OK", low: "Low", warning: "Warning", unknown: "–" };
const RANK = { warning: 0, low: 1, unknown: 2, ok: 3 };
const KEYS = {
  name: () => 0, status: (vm) => RANK[vm.status], assigned: (vm) => -vm.assigned_bytes,
  demand: (vm) => -(vm.demand_bytes || 0), pressure: (vm) => -(vm.pressure_percent || 0),
  weight: (vm) => -vm.limits.weight,
};
const rows = new Map(); // uuid → its row and cells
const visible = new Set();
let sort = "name";
let latest = null;

const byId = (id) => document.getElementById(id);

// As host_controller/neutral.py: no character that is not shown as itself, few marks on one letter.
function neutral(text) {
  return String(text).slice(0, 2000).replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, "?").replace(/(\p{M}{4})\p{M}+/gu, "$1");
}

// Names sort as people count: fake2 before fake10.
const counting = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const byName = (a, b) => counting.compare(a.name, b.name) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const [unit, factor] = UNITS.find(([, one]) => Math.abs(bytes) >= one) || ["B", 1];
  const digits = unit === "GiB" || unit === "TiB" ? 2 : 0;
  return `${Number((bytes / factor).toFixed(digits))} ${unit}`;
}

function put(element, text) {
  const shown = neutral(text);
  if (element.textContent !== shown) element.textContent = shown;
}

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = neutral(text);
  if (kind) made.className = kind;
  return made;
}

function troubles(host) {
  const found = [];
  if (!host.connected) found.push(`The hypervisor cannot be reached: ${host.connection}`);
  if (host.overdraft) found.push(`Overdraft of ${size(host.overdraft.bytes_now)}: ${host.overdraft.cause}`);
  if (host.vm_swap_bytes) found.push(`${size(host.vm_swap_bytes)} of VMs lie in the host's swap`);
  if (host.paused) found.push("Paused: no VM is managed");
  if (host.dry_run) found.push("Dry run: decisions are shown and not carried out");
  if (host.configuration_error) found.push(`The last reload was refused: ${host.configuration_error}`);
  return found;
}

function showHost(host) {
  put(byId("connection"), `${host.version} on ${host.connection}`);
  const list = troubles(host);
  if (byId("troubles").textContent !== list.map(neutral).join("")) {
    byId("troubles").replaceChildren(...list.map((text) => element("li", text)));
  }
  const figures = {
    Capacity: host.capacity_bytes, Charged: host.charged_bytes, "For balancing": host.headroom_bytes,
    Reserved: host.reserved_bytes, "Kept ready": host.ready_bytes, "For the host": host.reserve_bytes,
  };
  const box = byId("figures");
  if (!box.children.length) {
    for (const name of Object.keys(figures)) {
      const one = element("div");
      one.append(element("dt", name), element("dd"));
      box.append(one);
    }
  }
  Object.values(figures).forEach((bytes, i) => put(box.children[i].lastChild, size(bytes)));
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
  row.tabIndex = 0;
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
  row.append(...cells);
  row.addEventListener("click", () => details(vm.uuid));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") details(vm.uuid); });
  observer.observe(row);
  return { row, cells, canvas };
}

function decision(vm) {
  if (!vm.decision) return "–";
  const held = vm.decision.held_back ? ` (held back: ${vm.decision.held_back})` : "";
  return `${vm.decision.action}: ${vm.decision.reason}${held}`;
}

function showRow(vm) {
  let known = rows.get(vm.uuid);
  if (!known) rows.set(vm.uuid, (known = makeRow(vm)));
  const cells = known.cells;
  put(cells[0], vm.name);
  put(cells[1], vm.paused ? `${STATUS[vm.status]}, paused` : STATUS[vm.status]);
  const kind = `status ${vm.status}`;
  if (cells[1].className !== kind) cells[1].className = kind;
  put(cells[2], size(vm.assigned_bytes));
  put(cells[3], size(vm.demand_bytes));
  put(cells[4], vm.pressure_percent === null ? "–" : `${Math.round(vm.pressure_percent)} %`);
  put(cells[5], `${size(vm.limits.minimum_bytes)} – ${size(vm.limits.maximum_bytes)}`);
  put(cells[6], String(vm.limits.weight));
  put(cells[8], decision(vm));
  return known.row;
}

function showVms(vms) {
  const wanted = byId("filter").value.trim().toLowerCase();
  const key = KEYS[sort];
  const chosen = vms.filter((vm) => vm.name.toLowerCase().includes(wanted));
  chosen.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : byName(a, b)));
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

function parts(title, list) {
  if (!list.length) return [];
  const table = element("table");
  for (const one of list) {
    const row = table.insertRow();
    row.append(element("td", one.name), element("td", size(one.size_bytes), "number"), element("td", one.text));
    if (one.deciding) row.style.fontWeight = "600";
  }
  return [element("h3", title), table];
}

async function details(uuid) {
  const answer = await fetch(`/v1/vms/${encodeURIComponent(uuid)}/explain`);
  const box = byId("details").lastElementChild;
  if (!answer.ok) {
    box.replaceChildren(element("p", (await answer.json()).message));
  } else {
    const told = await answer.json();
    const why = element("ul");
    why.append(...told.why.map((text) => element("li", text)));
    box.replaceChildren(
      element("h2", told.vm.name), element("p", decision(told.vm)), why,
      ...parts("Demand", told.demand), ...parts("Balance", told.balance), ...parts("Charge", told.charge),
    );
  }
  if (!byId("details").open) byId("details").showModal();
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

for (const head of document.querySelectorAll("th[data-sort]")) {
  head.addEventListener("click", () => { sort = head.dataset.sort; if (latest) showVms(latest.vms); });
}
byId("filter").addEventListener("input", () => { if (latest) showVms(latest.vms); });
Chart.recall().catch(() => {}).finally(ask); // without it the chart begins empty
