// The page in Cockpit: asks for /v1/status every two seconds, follows the events, and opens what is clicked.
"use strict";

const PERIOD = 2000;
const TABS = ["vms", "events", "advice", "doctor"];
const MOST_KEPT = 2000;
const happened = [];
let latest = null;
let sort = "name";
let backwards = false;
let opened = null; // UUID of the VM in the dialog

function showVms() {
  if (!latest) return;
  const wanted = byId("filter").value.trim().toLowerCase();
  const chosen = sorted(latest.vms.filter((vm) => vm.name.toLowerCase().includes(wanted)), sort, backwards);
  Views.vms(latest.vms, chosen, (uuid) => cockpit.location.go(["vm", uuid]));
}

function update(status) {
  const begun = performance.now();
  latest = status;
  Views.host(status.host);
  showVms();
  put(byId("pause-all"), status.host.paused ? "Resume all" : "Pause all");
  showOpened();
  const locked = !Bridge.mayChange();
  for (const button of document.querySelectorAll("[data-changes]")) if (locked) button.disabled = true;
  const { dataset } = document.body;
  dataset.updateMs = (performance.now() - begun).toFixed(2);
  if (!dataset.updates) dataset.firstViewMs = performance.now().toFixed(0);
  dataset.updates = Number(dataset.updates || 0) + 1;
}

const vmOf = (uuid) => (latest ? latest.vms.find((vm) => vm.uuid === uuid) : undefined);

function showOpened() {
  const vm = opened && vmOf(opened);
  if (vm) put(byId("pause"), vm.paused ? "Resume" : "Pause");
}

async function ask() {
  try {
    update(await Bridge.get("/v1/status"));
  } catch (error) {
    put(byId("connection"), error.message);
  }
  setTimeout(ask, cockpit.hidden ? 5 * PERIOD : PERIOD);
}

// Its explanation, until the guest has said who holds its memory; history and limits once.
async function open(uuid) {
  opened = uuid;
  const dialog = byId("vm");
  byId("vm-said").replaceChildren();
  byId("vm-why").replaceChildren();
  put(byId("vm-name"), (vmOf(uuid) || { name: uuid }).name);
  if (!dialog.open) dialog.showModal();
  Curve.zoomable(byId("vm-history"), uuid, Bridge.get);
  for (const button of byId("vm-history").querySelectorAll("button")) Look.wear(button, "button m-secondary m-small");
  try {
    await explained(Bridge.get, uuid, (told, first) => {
      if (opened !== uuid) return false;
      if (first) Actions.fill(byId("limits"), told.vm.limits);
      put(byId("vm-name"), told.vm.name);
      byId("release").hidden = told.vm.source !== "adopted";
      byId("vm-why").replaceChildren(...explanation(told));
      return true;
    });
  } catch (error) {
    Actions.tell(byId("vm-said"), "danger", "It cannot be explained", error.message);
  }
}

function route() {
  const [what, uuid] = cockpit.location.path;
  if (what === "vm" && uuid) open(uuid);
  else if (byId("vm").open) byId("vm").close();
  if (TABS.includes(what)) choose(what, false);
}

function choose(name, focus = true) {
  for (const one of TABS) {
    const tab = byId(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    byId(`panel-${one}`).hidden = one !== name;
    if (focus && one === name) tab.focus();
  }
  if (name === "events") Views.events(happened, byId("whose").value);
  if (name === "doctor" && !byId("doctor").children.length) examine();
}

async function examine() {
  Actions.tell(byId("doctor"), "info", "Examining …");
  try {
    Views.findings(await Bridge.ask(["doctor", "--json"], "try"));
  } catch (error) {
    Actions.tell(byId("doctor"), "danger", "The host cannot be examined", error.message);
  }
}

async function advise(button) {
  button.disabled = true;
  Actions.tell(byId("advice"), "info", "Replaying …");
  try {
    const told = await Bridge.ask(["advise", "--json"], "require");
    Views.advice(told, (one, pressed) => Actions.setLimits(pressed, byId("said"), one, Actions.advised(one.advised)));
  } catch (error) {
    Actions.tell(byId("advice"), "warning", "No advice", error.message);
  } finally {
    button.disabled = false;
  }
}

async function adoption() {
  const list = byId("candidates");
  list.replaceChildren();
  byId("adoption").showModal();
  Actions.tell(byId("adoption-said"), "info", "Looking …");
  try {
    const found = await Actions.candidates();
    byId("adoption-said").replaceChildren();
    if (!found.length) Actions.tell(byId("adoption-said"), "info", "Every VM that runs is managed");
    list.replaceChildren(...found.map(candidate));
  } catch (error) {
    Actions.tell(byId("adoption-said"), "danger", "The VMs cannot be looked at", error.message);
  }
}

function candidate(one) {
  const item = element("li");
  item.append(element("b", one.name), element("p", one.reason || one.steps.join("; ")));
  if (one.way_out) item.append(element("p", one.way_out));
  if (one.outcome === "would be adopted") {
    const button = Look.wear(element("button", "Adopt"), "button m-secondary m-small");
    button.type = "button";
    button.setAttribute("aria-label", `Adopt ${neutral(one.name)}`);
    button.addEventListener("click", () => Actions.adopt(button, byId("adoption-said"), one.name));
    item.append(button);
  }
  return item;
}

// What was, and then what comes; begun again when the controller was restarted.
function follow() {
  Bridge.follow("/v1/events?follow=true&last=500", (entries) => {
    happened.push(...entries);
    happened.splice(0, Math.max(0, happened.length - MOST_KEPT));
    if (!byId("panel-events").hidden) Views.events(happened, byId("whose").value);
    document.body.dataset.events = happened.length;
  }, () => setTimeout(() => { happened.length = 0; follow(); }, 5 * PERIOD));
}

for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => choose(tab.id.slice(4)));
byId("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const now = TABS.findIndex((one) => byId(`tab-${one}`).getAttribute("aria-selected") === "true");
  if (step) choose(TABS[(now + step + TABS.length) % TABS.length]);
  if (event.key === "Home") choose(TABS[0]);
  if (event.key === "End") choose(TABS[TABS.length - 1]);
});
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    backwards = sort === button.dataset.sort && !backwards;
    sort = button.dataset.sort;
    for (const head of document.querySelectorAll("#vms th[aria-sort]")) head.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", backwards === (sort === "name") ? "descending" : "ascending");
    showVms();
  });
}
byId("filter").addEventListener("input", showVms);
byId("whose").addEventListener("change", () => Views.events(happened, byId("whose").value));
byId("pause-all").addEventListener("click", () => Actions.pauseAll(byId("pause-all"), byId("said"), !latest.host.paused));
byId("adopt").addEventListener("click", adoption);
byId("ask-doctor").addEventListener("click", examine);
byId("ask-advice").addEventListener("click", () => advise(byId("ask-advice")));
byId("pause").addEventListener("click", () => { const vm = vmOf(opened); if (vm) Actions.pause(byId("pause"), byId("vm-said"), vm, !vm.paused); });
byId("release").addEventListener("click", () => { const vm = vmOf(opened); if (vm) Actions.release(byId("release"), byId("vm-said"), vm); });
byId("limits").addEventListener("submit", (event) => {
  event.preventDefault();
  const vm = vmOf(opened);
  if (vm) Actions.setLimits(event.submitter, byId("vm-said"), vm, Actions.changes(byId("limits")));
});
byId("vm").addEventListener("close", () => {
  if (byId("vm").open) return; // another one was opened before this was heard
  if (cockpit.location.path[1] === opened) cockpit.location.go([]);
  opened = null;
});
cockpit.addEventListener("locationchanged", route);
ask().finally(follow); // by then it is known which socket may be used
route();
