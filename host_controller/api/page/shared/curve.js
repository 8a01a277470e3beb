// One VM's history as a curve (SVG), from an hour to a year, with what happened on it. Needs text.js.
"use strict";

const Curve = (() => {
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const HOUR = 3600, DAY = 86400;
  const SPANS = {
    hour: { seconds: HOUR, since: "1h", step: "detail", gap: 60 },
    day: { seconds: DAY, since: "1d", step: "minute", gap: 180 },
    week: { seconds: 7 * DAY, since: "7d", step: "minute", gap: 900 },
    year: { seconds: 365 * DAY, since: "365d", step: "hour", gap: 3 * HOUR },
  };
  const [WIDTH, HEIGHT, LEFT, BELOW] = [720, 240, 64, 22];
  const LINES = [["charge_bytes", "costs the host", "cost"], ["demand_bytes", "demands", "wants"], ["assigned_bytes", "has", "has"]];
  const SIGNS = { grown: "▲", shrunk: "▼", "held back": "✕", reset: "◆", "by somebody": "●", "host is short": "■" };
  const MOST_POINTS = 720; // one a pixel
  const MOST_OF_A_KIND = 40;
  const TOLD = ["by somebody", "reset", "host is short", "held back"];
  const MOST_TOLD = 12;

  const address = (vm, span) =>
    `/v1/vms/${encodeURIComponent(vm)}/history?since=${SPANS[span].since}&step=${SPANS[span].step}${span === "hour" ? "" : `&points=${MOST_POINTS}`}`;

  function draw(tag, attributes, text) {
    const made = document.createElementNS(NAMESPACE, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = neutral(text);
    return made;
  }

  // Of points that fall on one pixel the largest: a peak is what one looks for.
  function thinned(points, begin, seconds) {
    if (points.length <= MOST_POINTS) return points;
    const kept = new Map();
    for (const one of points) {
      const pixel = Math.floor(((one.at - begin) / seconds) * MOST_POINTS);
      const before = kept.get(pixel);
      if (!before || (one.assigned_bytes || 0) > (before.assigned_bytes || 0)) kept.set(pixel, one);
    }
    return [...kept.values()];
  }

  // Steps, with a hole wherever nobody looked.
  function path(points, key, x, y, gap) {
    let text = "";
    let last = null;
    for (const one of points) {
      const value = one[key];
      if (value === null || value === undefined) { last = null; continue; }
      const [left, top] = [x(one.at).toFixed(1), y(value).toFixed(1)];
      text += last === null || one.at - last > gap ? `M${left} ${top}` : `H${left}V${top}`;
      last = one.at;
    }
    return text;
  }

  function evenly(list, most) {
    if (list.length <= most) return list;
    return Array.from({ length: most }, (_, i) => list[Math.floor((i * list.length) / most)]);
  }

  function marksOf(entries, begin) {
    const kinds = new Map(Object.keys(SIGNS).map((kind) => [kind, []]));
    for (const one of entries) if (kinds.has(one.mark) && one.at >= begin) kinds.get(one.mark).push(one);
    return [...kinds.values()].flatMap((list) => evenly(list, MOST_OF_A_KIND)).sort((a, b) => a.at - b.at);
  }

  // What the VM had at a time: the last point before it.
  function heightAt(points, at) {
    let found = 0;
    for (const one of points) {
      if (one.at > at) break;
      found = one.assigned_bytes || 0;
    }
    return found;
  }

  function ticks(most) {
    const rough = most / 4;
    const step = 2 ** Math.ceil(Math.log2(Math.max(1, rough)));
    return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
  }

  // Shows a HistoryView in a box: the curve, its legend, and what happened in words.
  function show(box, history, span, now = Date.now() / 1000) {
    const { seconds, gap } = SPANS[span];
    const begin = now - seconds;
    const all = (history.samples.length ? history.samples : history.spans || []).filter((one) => one.at >= begin - gap);
    if (!all.length) {
      box.replaceChildren(element("p", `Nothing is known of the last ${span}.`));
      return;
    }
    const points = thinned(all, begin, seconds);
    const wide = Math.max(gap, (2 * seconds) / MOST_POINTS);
    const most = Math.max(...points.map((one) => Math.max(one.assigned_bytes || 0, one.charge_bytes || 0, one.demand_bytes || 0))) * 1.08 || 1;
    const x = (at) => LEFT + (Math.max(0, at - begin) / seconds) * (WIDTH - LEFT - 8);
    const y = (bytes) => HEIGHT - BELOW - (bytes / most) * (HEIGHT - BELOW - 8);
    const last = points[points.length - 1];
    const label = `${history.name}, the last ${span}: has ${size(last.assigned_bytes)}, demands ${size(last.demand_bytes)}; at most ${size(Math.max(...points.map((one) => one.assigned_bytes || 0)))}`;
    const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "curve", "aria-label": neutral(label) });
    for (const bytes of ticks(most)) {
      picture.append(
        draw("line", { x1: LEFT, x2: WIDTH - 8, y1: y(bytes), y2: y(bytes), class: "grid" }),
        draw("text", { x: LEFT - 6, y: y(bytes) + 4, "text-anchor": "end" }, bytes ? size(bytes) : "0"),
      );
    }
    for (let i = 0; i <= 4; i++) {
      const at = begin + (seconds * i) / 4;
      picture.append(draw("text", { x: x(at), y: HEIGHT - 4, "text-anchor": ["start", "middle", "middle", "middle", "end"][i] }, moment(at, seconds)));
    }
    for (const [key, , kind] of LINES) picture.append(draw("path", { d: path(points, key, x, y, wide), class: `line ${kind}` }));
    const marked = marksOf(history.entries, begin);
    for (const one of marked) {
      const sign = draw("text", { x: x(one.at), y: y(heightAt(points, one.at)) - 3, "text-anchor": "middle", class: `mark ${one.mark.replaceAll(" ", "-")}` }, SIGNS[one.mark]);
      sign.append(draw("title", {}, `${moment(one.at, seconds)} ${one.mark}: ${one.text}`));
      picture.append(sign);
    }
    box.replaceChildren(picture, legend(marked), words(marked, seconds));
  }

  function legend(marked) {
    const list = element("ul", undefined, "keys");
    for (const [, name, kind] of [...LINES].reverse()) {
      const item = element("li");
      item.append(element("i", undefined, kind), name);
      list.append(item);
    }
    for (const kind of Object.keys(SIGNS)) {
      if (marked.some((one) => one.mark === kind)) list.append(element("li", `${SIGNS[kind]} ${kind}`));
    }
    return list;
  }

  // The newest of what people did first, then resets, then what held it back: each sentence once.
  function words(marked, seconds) {
    const chosen = new Map();
    for (const kind of TOLD) {
      for (const one of marked.filter((one) => one.mark === kind).reverse()) {
        if (chosen.size < MOST_TOLD && !chosen.has(one.text)) chosen.set(one.text, one);
      }
    }
    const list = element("ul", undefined, "events");
    for (const one of [...chosen.values()].sort((a, b) => b.at - a.at)) {
      list.append(element("li", `${SIGNS[one.mark]} ${moment(one.at, seconds)}  ${one.text}`));
    }
    return list;
  }

  // Buttons that zoom. `ask(address)` gives the answer, or throws with a message that is shown.
  function zoomable(box, vm, ask, span = "hour") {
    const buttons = element("div", undefined, "spans");
    buttons.setAttribute("role", "group");
    buttons.setAttribute("aria-label", "How far back");
    const under = element("div", undefined, "under");
    let wanted = span;
    async function open(which) {
      wanted = which;
      for (const one of buttons.children) one.setAttribute("aria-pressed", String(one.dataset.span === which));
      const begun = performance.now();
      try {
        const history = await ask(address(vm, which));
        if (wanted === which) show(under, history, which);
      } catch (error) {
        if (wanted === which) under.replaceChildren(element("p", error.message));
      }
      box.dataset.openMs = (performance.now() - begun).toFixed(1);
      box.dataset.opened = which;
    }
    for (const name of Object.keys(SPANS)) {
      const button = element("button", name);
      button.type = "button";
      button.dataset.span = name;
      button.addEventListener("click", () => open(name));
      buttons.append(button);
    }
    box.replaceChildren(buttons, under);
    return open(span);
  }

  return { zoomable, show, SPANS };
})();
