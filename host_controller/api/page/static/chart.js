// The host's chart: what each VM has, stacked, against the capacity. Uses uPlot, which may be missing.
"use strict";

const Chart = (() => {
  const KEPT = 150; // answers: five minutes at one every two seconds
  const SHOWN = 9; // VMs with a colour of their own; the others are one
  const COLOURS = ["#4e79a7", "#f28e2b", "#76b7b2", "#e15759", "#59a14f", "#edc948", "#b07aa1", "#9c755f", "#ff9da7", "#8a929c"];
  const GIB = 2 ** 30;
  const times = [];
  const capacity = [];
  const past = new Map(); // uuid → assigned GiB, as long as `times`
  let plot = null;
  let names = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function note(status, now) {
    times.push(now);
    capacity.push(status.host.capacity_bytes / GIB);
    for (const vm of status.vms) {
      if (!past.has(vm.uuid)) past.set(vm.uuid, new Array(times.length - 1).fill(0));
      past.get(vm.uuid).push(vm.assigned_bytes / GIB);
    }
    for (const [uuid, values] of past) {
      if (values.length < times.length) values.push(0); // it has stopped
      if (times.length > KEPT) values.shift();
      if (values.every((one) => one === 0)) past.delete(uuid);
    }
    if (times.length > KEPT) { times.shift(); capacity.shift(); }
  }

  // The largest VMs, in an order that does not change while the set does not.
  function chosen(vms) {
    const large = [...vms].sort((a, b) => b.assigned_bytes - a.assigned_bytes).slice(0, SHOWN);
    const known = new Set(large.map((vm) => vm.uuid));
    const stays = names.length && names.every(([uuid]) => past.has(uuid)) && names.length === large.length
      && names.some(([uuid]) => known.has(uuid)) && times.length % 15 !== 0;
    return stays ? names : large.map((vm) => [vm.uuid, vm.name]);
  }

  function stacked(list) {
    const shown = new Set(list.map(([uuid]) => uuid));
    const layers = list.map(([uuid]) => past.get(uuid));
    const rest = new Array(times.length).fill(0);
    for (const [uuid, values] of past) {
      if (!shown.has(uuid)) for (let i = 0; i < rest.length; i++) rest[i] += values[i];
    }
    const sums = [];
    let below = new Array(times.length).fill(0);
    for (const layer of [...layers, rest]) {
      below = below.map((value, i) => value + layer[i]);
      sums.push(below);
    }
    return sums.reverse(); // the highest first: each later one is painted over it
  }

  function clock(seconds) {
    return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
  }

  function options(element, count) {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const line = { label: "capacity", stroke: colour("--limit"), width: 2, dash: [6, 4], points: { show: false } };
    const areas = [];
    for (let i = count - 1; i >= 0; i--) {
      const tint = i === count - 1 ? COLOURS[COLOURS.length - 1] : COLOURS[i];
      areas.push({ stroke: tint, fill: tint, width: 1, points: { show: false } });
    }
    return {
      width: element.clientWidth, height: 260, legend: { show: false }, cursor: { show: false },
      scales: {
        x: { range: (_, first, last) => [Math.min(first, last - KEPT * 2), last] },
        y: { range: (_, low, high) => [0, high * 1.05 || 1] },
      },
      axes: [{ ...axis, space: 90, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 60, values: (_, ticks) => ticks.map((tick) => `${tick} GiB`) }],
      series: [{}, ...areas, line],
    };
  }

  function legend(list, more) {
    const entries = [...list.map(([, name], i) => [COLOURS[i], name])];
    if (more > 0) entries.push([COLOURS[COLOURS.length - 1], `${more} more VMs`]);
    document.getElementById("legend").replaceChildren(...entries.map(([tint, name]) => {
      const item = document.createElement("li");
      const box = document.createElement("i");
      box.style.background = tint;
      item.append(box, name);
      return item;
    }));
  }

  function draw(element, status) {
    if (!window.uPlot) {
      element.textContent = "The chart needs uPlot: pip install 'dynmem[page]'";
      return;
    }
    const list = chosen(status.vms);
    const data = [times, ...stacked(list), capacity];
    const changed = list.length !== names.length || list.some(([uuid], i) => uuid !== names[i][0]);
    if (!plot || changed) {
      if (plot) plot.destroy();
      names = list;
      plot = new window.uPlot(options(element, list.length + 1), data, element);
      legend(list, status.vms.length - list.length);
    } else {
      plot.setData(data);
    }
  }

  window.addEventListener("resize", () => {
    const element = document.getElementById("chart");
    if (plot) plot.setSize({ width: element.clientWidth, height: 260 });
  });
  return { note, draw, past };
})();
