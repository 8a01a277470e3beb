// What both pages do with texts: words and names of others are shown as themselves, and as nothing else. They go
// through textContent, never through HTML, and through neutral().
"use strict";

const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
const STATUS = { ok: "OK", low: "Low", warning: "Warning", unknown: "–" };
const RANK = { warning: 0, low: 1, unknown: 2, ok: 3 };

const MOST_ASKED = 5;

// What the table of VMs is sorted by. Figures are compared as numbers, the largest first.
const KEYS = {
  name: () => 0, status: (vm) => RANK[vm.status], assigned: (vm) => -vm.assigned_bytes,
  demand: (vm) => -(vm.demand_bytes || 0), pressure: (vm) => -(vm.pressure_percent || 0),
  maximum: (vm) => -vm.limits.maximum_bytes, weight: (vm) => -vm.limits.weight,
};

const byId = (id) => document.getElementById(id);

// As host_controller/neutral.py: no character that is not shown as itself, few marks on one letter.
function neutral(text) {
  return String(text).slice(0, 2000).replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, "?").replace(/(\p{M}{4})\p{M}+/gu, "$1");
}

// Names sort as people count: fake2 before fake10.
const counting = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const byName = (a, b) => counting.compare(a.name, b.name) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);

// By one of KEYS, names last; `backwards` turns it round.
function sorted(vms, by, backwards = false) {
  const key = KEYS[by];
  const order = [...vms].sort((a, b) => key(a) - key(b) || byName(a, b));
  return backwards ? order.reverse() : order;
}

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

// What both tables of VMs show after the name: status, assigned, demand, pressure, limits and weight.
function putFigures(cells, vm) {
  put(cells[1], vm.paused ? `${STATUS[vm.status]}, paused` : STATUS[vm.status]);
  const kind = `status ${vm.status}`;
  if (cells[1].className !== kind) cells[1].className = kind;
  put(cells[2], size(vm.assigned_bytes));
  put(cells[3], size(vm.demand_bytes));
  put(cells[4], vm.pressure_percent === null ? "–" : `${Math.round(vm.pressure_percent)} %`);
  put(cells[5], `${size(vm.limits.minimum_bytes)} – ${size(vm.limits.maximum_bytes)}`);
  put(cells[6], String(vm.limits.weight));
}

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = neutral(text);
  if (kind) made.className = kind;
  return made;
}

// A moment, as fine as the time that is shown is short.
function moment(at, seconds = 0) {
  const day = { day: "2-digit", month: "2-digit" };
  const clock = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (seconds > 40 * 86400) return new Date(at * 1000).toLocaleDateString([], { ...day, year: "numeric" });
  if (seconds > 86400) return new Date(at * 1000).toLocaleString([], { ...day, ...clock });
  return new Date(at * 1000).toLocaleTimeString([], { ...clock, second: "2-digit" });
}

// What keeps the host as a whole from good dynamic memory, in sentences.
function troubles(host) {
  const found = [];
  if (!host.connected) found.push(`The hypervisor cannot be reached: ${host.connection}`);
  if (host.untold) found.push(`${host.untold}: until then no VM is admitted, and none grows`);
  if (host.overdraft) found.push(`Overdraft of ${size(host.overdraft.bytes_now)}: ${host.overdraft.cause}`);
  if (host.emergency) found.push(`The host is short of memory: ${host.emergency}`);
  if (host.vm_swap_bytes) found.push(`${size(host.vm_swap_bytes)} of VMs lie in the host's swap`);
  if (host.paused) found.push("Paused: no VM is managed");
  if (host.dry_run) found.push("Dry run: decisions are shown and not carried out");
  if (host.configuration_error) found.push(`The last reload was refused: ${host.configuration_error}`);
  if (host.history_problem) found.push(`The history is not written: ${host.history_problem}`);
  return found;
}

function figures(host) {
  return {
    Capacity: host.capacity_bytes, Charged: host.charged_bytes, "For balancing": host.headroom_bytes,
    Reserved: host.reserved_bytes, "Kept ready": host.ready_bytes, "For the host": host.reserve_bytes,
  };
}

function decision(vm) {
  if (!vm.decision) return "–";
  const held = vm.decision.held_back ? ` (held back: ${vm.decision.held_back})` : "";
  return `${vm.decision.action}: ${vm.decision.reason}${held}`;
}

// What a row of the table ends with: the last decision, and what was told lately of who holds the VM's memory.
const lately = (vm) => (vm.holders_news ? `${decision(vm)} – ${vm.holders_news}` : decision(vm));

// Asks why a VM has what it has, and again while its guest has yet to say who holds its memory. `show` is given each
// answer, and returns whether it is still looked at.
async function explained(get, uuid, show) {
  for (let turn = 0; turn < MOST_ASKED; turn += 1) {
    const told = await get(`/v1/vms/${encodeURIComponent(uuid)}/explain`);
    if (!show(told, turn === 0) || !told.holders || !told.holders.pending) return;
    await new Promise((done) => { setTimeout(done, 1000); });
  }
}

// The parts of an explanation: what VM has, and why, in tables.
function explanation(told) {
  const why = element("ul");
  why.append(...told.why.map((text) => element("li", text)));
  const tables = [["Demand", told.demand], ["Balance", told.balance], ["Charge", told.charge]];
  const news = told.vm.holders_news ? [element("p", told.vm.holders_news, "news")] : [];
  return [...news, element("p", decision(told.vm)), why, ...heldBy(told.holders), ...tables.flatMap(([title, list]) => parts(title, list))];
}

// As host_controller/control/holders.py: rounded, for a sentence.
function span(seconds) {
  if (seconds >= 7200) return `${Math.round(seconds / 3600)} hours`;
  return seconds >= 120 ? `${Math.round(seconds / 60)} minutes` : `${Math.max(1, Math.round(seconds))} s`;
}

// Who holds the guest's memory, by the guest's word; a controller of before does not say.
function heldBy(holders) {
  if (!holders) return [];
  const grown = (one) => (one.grown_bytes === null ? "" : `grew by ${one.grown_at_least ? "at least " : ""}${size(one.grown_bytes)} in ${span(holders.at - holders.since)}`);
  const list = holders.top.map((one) => ({ name: one.name, size_bytes: one.size_bytes, text: grown(one) }));
  const missing = holders.missing ? [element("p", `Held by: ${holders.missing}`)] : [];
  return [...parts(`Held by: the largest of its ${holders.by}, ${span(Date.now() / 1000 - holders.at)} ago`, list), ...missing];
}

function parts(title, list) {
  if (!list.length) return [];
  const table = element("table", undefined, "parts");
  table.append(element("caption", title));
  for (const one of list) {
    const row = table.insertRow();
    const head = element("th", one.name);
    head.scope = "row";
    row.append(head, element("td", size(one.size_bytes), "number"), element("td", one.text));
    if (one.deciding) row.className = "deciding";
  }
  return [table];
}
