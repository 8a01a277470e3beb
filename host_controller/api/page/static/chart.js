// The host's chart: what each VM has, stacked, against the capacity. Uses uPlot, which may be missing.
"use strict";

const Chart = (() => {
  const SHOWN_SECONDS = 3600; // as long as the controller remembers every figure
  const SINCE = { day: "1d", week: "7d", year: "365d" };
  const FINE_SECONDS = 300; // of answers, one every two seconds; what is older is kept one a minute
  const COARSE_SECONDS = 60;
  const SHOWN = 9; // VMs with a colour of their own; the others are one
  const COLOURS = ["#4e79a7", "#f28e2b", "#76b7b2", "#e15759", "#59a14f", "#edc948", "#b07aa1", "#9c755f", "#ff9da7", "#8a929c"];
  const GIB = 2 ** 30;
  const times = [];
  const capacity = [];
  const past = new Map(); // uuid → assigned GiB, as long as `times`
  let plot = null;
  let names = [];
  let zoomed = null; // what is shown instead of the hour: its seconds, times and lines

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Begins with the hour that the controller holds.
  async function recall() {
    const answer = await fetch("/v1/chart", { signal: AbortSignal.timeout(10000) });
    if (!answer.ok) return; // an older controller has none: the chart begins empty
    const told = await answer.json();
    times.push(...told.at);
    capacity.push(...told.at.map(() => null));
    for (const vm of told.vms) past.set(vm.uuid, vm.assigned_bytes.map((one) => (one || 0) / GIB));
  }

  function note(status, now) {
    thin(now);
    times.push(now);
    capacity.push(status.host.capacity_bytes / GIB);
    for (const vm of status.vms) {
      if (!past.has(vm.uuid)) past.set(vm.uuid, new Array(times.length - 1).fill(0));
      past.get(vm.uuid).push(vm.assigned_bytes / GIB);
    }
    for (const [uuid, values] of past) {
      if (values.length < times.length) values.push(0); // it has stopped
      if (values.every((one) => one === 0)) past.delete(uuid);
    }
  }

  // "hour", or a longer time, which the history file tells. Asked for once: it moves by a pixel in minutes.
  async function zoom(span, ask) {
    zoomed = null;
    names = [];
    if (!SINCE[span]) return;
    const told = await ask(`/v1/chart?since=${SINCE[span]}`).catch((error) => ({ at: [], vms: [], problem: error.message }));
    const lines = new Map(told.vms.map((vm) => [vm.uuid, vm.assigned_bytes.map((one) => (one || 0) / GIB)]));
    zoomed = { seconds: Curve.SPANS[span].seconds, times: told.at, lines, problem: told.problem };
  }

  // Forget what is older than the chart, and most of what is no longer fine.
  function thin(now) {
    const drop = [];
    let last = -Infinity;
    times.forEach((at, i) => {
      const old = at < now - SHOWN_SECONDS;
      const close = at < now - FINE_SECONDS && at - last < COARSE_SECONDS;
      if (old || close) drop.push(i);
      else last = at;
    });
    for (const i of drop.reverse()) {
      times.splice(i, 1);
      capacity.splice(i, 1);
      for (const values of past.values()) values.splice(i, 1);
    }
  }

  // The largest VMs, in an order that does not change while the set does not.
  function chosen(vms) {
    const large = [...vms].sort((a, b) => b.assigned_bytes - a.assigned_bytes).slice(0, SHOWN);
    const known = new Set(large.map((vm) => vm.uuid));
    const stays = names.length && names.every(([uuid]) => past.has(uuid)) && names.length === large.length
      && names.some(([uuid]) => known.has(uuid)) && Math.floor(times[times.length - 1] / 2) % 15 !== 0;
    return stays ? names : large.map((vm) => [vm.uuid, vm.name]);
  }

  function stacked(list, count, lines) {
    const shown = new Set(list.map(([uuid]) => uuid));
    const layers = list.map(([uuid]) => lines.get(uuid) || new Array(count).fill(0));
    const rest = new Array(count).fill(0);
    for (const [uuid, values] of lines) {
      if (!shown.has(uuid)) for (let i = 0; i < rest.length; i++) rest[i] += values[i];
    }
    const sums = [];
    let below = new Array(count).fill(0);
    for (const layer of [...layers, rest]) {
      below = below.map((value, i) => value + layer[i]);
      sums.push(below);
    }
    return sums.reverse(); // the highest first: each later one is painted over it
  }

  function options(element, count, seconds) {
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
        x: { range: (_, first, last) => [last - seconds, last] },
        y: { range: (_, low, high) => [0, high * 1.05 || 1] },
      },
      axes: [{ ...axis, space: 90, values: (_, ticks) => ticks.map((at) => moment(at, seconds)) }, { ...axis, size: 60, values: (_, ticks) => ticks.map((tick) => `${tick} GiB`) }],
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
      item.append(box, neutral(name));
      return item;
    }));
  }

  function draw(element, status) {
    if (!window.uPlot) {
      element.textContent = "The chart needs uPlot: pip install 'dynmem[page]'";
      return;
    }
    if (zoomed?.problem || (zoomed && !zoomed.times.length)) {
      if (plot) plot.destroy();
      plot = null;
      element.textContent = neutral(zoomed.problem || "Nothing is known of so long a time.");
      return;
    }
    if (!plot) element.replaceChildren();
    const list = chosen(status.vms);
    const [at, lines, seconds] = zoomed ? [zoomed.times, zoomed.lines, zoomed.seconds] : [times, past, SHOWN_SECONDS];
    const limit = zoomed ? at.map(() => status.host.capacity_bytes / GIB) : capacity;
    const data = [at, ...stacked(list, at.length, lines), limit];
    const changed = list.length !== names.length || list.some(([uuid], i) => uuid !== names[i][0]);
    if (!plot || changed) {
      if (plot) plot.destroy();
      names = list;
      plot = new window.uPlot(options(element, list.length + 1, seconds), data, element);
      legend(list, status.vms.length - list.length);
    } else {
      plot.setData(data);
    }
  }

  window.addEventListener("resize", () => {
    const element = document.getElementById("chart");
    if (plot) plot.setSize({ width: element.clientWidth, height: 260 });
  });
  return { recall, note, draw, zoom, past, times };
})();
