// The fleet, on the page of the host where its arbiter runs; elsewhere nothing is shown. Needs text.js.
"use strict";

const Fleet = (() => {
  const PERIOD = 10000; // the arbiter looks as often
  const mib = (number) => size(number === null ? null : number * 2 ** 20);
  const percent = (share) => (share === null ? "–" : `${Math.round(share * 100)} %`);
  const HOSTS = [
    ["Host", (one) => one.name], ["Capacity", (one) => size(one.capacity_bytes)], ["Need", (one) => size(one.need_bytes)],
    ["Load", (one) => percent(one.load)], ["Booked", (one) => mib(one.booked_mib)],
    ["Starts get", (one) => size(one.admits_bytes)], ["Published", (one) => mib(one.published_mib)],
    ["VMs", (one) => one.vms], ["State", (one) => one.state],
  ];
  const VMS = [
    ["VM", (one) => one.name], ["Host", (one) => one.host ?? "–"], ["Need", (one) => size(one.need_bytes)],
    ["Charge", (one) => size(one.charge_bytes)], ["Booked", (one) => mib(one.booked_mib)], ["State", (one) => one.state],
  ];
  const TEXTS = new Set(["Host", "VM", "State"]);

  const row = (kind, columns, tell) => {
    const made = element("tr");
    made.append(...columns.map((column) => element(kind, tell(column), TEXTS.has(column[0]) ? undefined : "number")));
    return made;
  };

  function fill(table, columns, entries) {
    const [head, body] = [element("thead"), element("tbody")];
    head.append(row("th", columns, ([title]) => title));
    for (const one of [...entries].sort(byName)) {
      const made = row("td", columns, ([, read]) => read(one));
      if (one.state !== "ok" && one.state !== "stopped") made.lastChild.classList.add("low");
      body.append(made);
    }
    table.replaceChildren(head, body);
  }

  function show(told) {
    byId("fleet").hidden = !told.hosts.length;
    byId("fleet-notes").replaceChildren(...told.notes.map((note) => element("li", note)));
    fill(byId("fleet-hosts"), HOSTS, told.hosts);
    fill(byId("fleet-vms"), VMS, told.vms);
  }

  async function ask() {
    try {
      show(await (await fetch("/v1/fleet", { signal: AbortSignal.timeout(5000) })).json());
    } catch {
      byId("fleet").hidden = true; // the page says already that the controller does not answer
    }
    setTimeout(ask, document.hidden ? 5 * PERIOD : PERIOD);
  }

  return { ask };
})();
Fleet.ask();
