// What is shown, made from answers: rows of VMs, events, advice, findings. Changes only what has changed.
"use strict";

const Views = (() => {
  const MOST_EVENTS = 300;
  const rows = new Map(); // uuid → its row and cells
  const LEVELS = { problem: "danger", note: "warning", ok: "success" };

  function makeRow(vm, open) {
    const row = element("tr");
    const labels = ["VM", "Status", "Assigned", "Demand", "Pressure", "Min – Max", "Weight", "Last decision"];
    const kinds = ["name", "status", "number", "number", "number", "number", "number", "decision"];
    const cells = labels.map((label, i) => {
      const cell = element(i ? "td" : "th", undefined, kinds[i]);
      cell.dataset.label = label;
      return cell;
    });
    cells[0].scope = "row";
    const button = Look.wear(element("button"), "button m-link m-inline");
    button.type = "button";
    button.addEventListener("click", () => open(vm.uuid));
    cells[0].append(button);
    row.append(...cells);
    return { row, cells, button };
  }

  function showRow(vm, open) {
    let known = rows.get(vm.uuid);
    if (!known) rows.set(vm.uuid, (known = makeRow(vm, open)));
    const { cells } = known;
    put(known.button, vm.name);
    putFigures(cells, vm);
    put(cells[7], lately(vm));
    return known.row;
  }

  function vms(list, chosen, open) {
    const order = chosen.map((vm) => showRow(vm, open));
    const body = byId("vms").tBodies[0];
    if (order.length !== body.rows.length || order.some((row, i) => row !== body.rows[i])) body.replaceChildren(...order);
    const present = new Set(list.map((vm) => vm.uuid));
    for (const uuid of rows.keys()) if (!present.has(uuid)) rows.delete(uuid);
    put(byId("count"), chosen.length === list.length ? `${list.length} VMs` : `${chosen.length} of ${list.length} VMs`);
  }

  function host(told) {
    put(byId("connection"), `${told.version} on ${told.connection}${Bridge.mayChange() ? "" : ", to look at only"}`);
    const list = troubles(told);
    const box = byId("troubles");
    if (box.dataset.told !== list.join("\n")) {
      box.dataset.told = list.join("\n");
      box.replaceChildren(...list.map((text) => Look.alert("warning", text)));
    }
    const shown = figures(told);
    if (!byId("figures").children.length) {
      for (const name of Object.keys(shown)) {
        const one = element("div");
        one.append(element("dt", name), element("dd"));
        byId("figures").append(one);
      }
    }
    Object.values(shown).forEach((bytes, i) => put(byId("figures").children[i].lastChild, size(bytes)));
  }

  function event(one) {
    const item = element("li", undefined, one.kind);
    const who = one.detail && (one.detail.by_login || one.detail.by_user);
    const by = who ? `by ${who}` : "";
    item.append(element("time", moment(one.at, 90000)), element("b", one.name || "host"), element("span", one.text));
    if (by) item.append(element("em", by));
    return item;
  }

  const WANTED = { "": () => true, people: (one) => one.topic === "operator" || one.topic === "foreign", marks: (one) => one.mark };

  // The newest first. All of them again: it is done when they are looked at, and when they change meanwhile.
  function events(list, whose) {
    byId("events").replaceChildren(...list.filter(WANTED[whose]).slice(-MOST_EVENTS).reverse().map(event));
  }

  function findings(told) {
    const shown = told.findings.filter((one) => one.level !== "ok");
    const fine = told.findings.length - shown.length;
    const order = ["problem", "note"];
    shown.sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
    const boxes = shown.map((one) => {
      const about = one.vm ? `${one.vm}: ` : "";
      const box = Look.alert(LEVELS[one.level], `${about}${one.check}: ${one.found}`, one.remedy);
      box.dataset.level = one.level;
      return box;
    });
    byId("doctor").replaceChildren(...boxes, element("p", `${fine} of ${told.findings.length} checks are in order`));
  }

  // `apply(advice, button)` is called with the VM's advice.
  function advice(told, apply) {
    const table = Look.wear(element("table"), "table m-compact m-grid-md");
    table.setAttribute("aria-label", "Advice for each VM");
    const head = table.createTHead().insertRow();
    for (const text of ["VM", "Maximum now", "Maximum advised", "Why", "Confidence", ""]) {
      const cell = element(text ? "th" : "td", text);
      if (text) cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const one of told.vms) {
      const row = body.insertRow();
      const why = one.refused || (one.taken_back ? "its limits stay: with smaller ones the replay went short" : one.reasons.join("; ") || "its limits are right");
      const cells = [one.name, size(one.now.maximum_bytes), one.changed ? size(one.advised.maximum_bytes) : "–", [why, ...one.findings].join("; "), `${one.confidence}, ${one.days} days`];
      cells.forEach((text, i) => row.append(element("td", text, i === 1 || i === 2 ? "number" : undefined)));
      const last = element("td");
      if (one.changed) {
        const button = Look.wear(element("button", "Set"), "button m-secondary m-small");
        button.type = "button";
        button.setAttribute("aria-label", `Set what is advised for ${neutral(one.name)}`);
        button.addEventListener("click", () => apply(one, button));
        last.append(button);
      }
      row.append(last);
    }
    byId("advice").replaceChildren(element("p", `${size(told.freed_bytes)} less would be promised; replayed ${(told.seconds / 86400).toFixed(1)} days.`), table);
  }

  return { vms, host, events, findings, advice };
})();
