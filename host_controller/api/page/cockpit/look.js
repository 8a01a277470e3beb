// Cockpit's own PatternFly, whichever release it ships: pf-c-… (4), pf-v5-c-… or pf-v6-c-…. And its light or dark.
// The stylesheet is that of Cockpit's page of accounts: each of its pages has a copy with what it uses.
"use strict";

const Look = (() => {
  const PREFIXES = ["pf-v6-", "pf-v5-", "pf-"];

  // The prefix whose button has an inner margin: whatever the stylesheet does not know has none of its own.
  function prefix() {
    const probe = document.createElement("span");
    document.body.append(probe);
    const found = PREFIXES.find((one) => {
      probe.className = `${one}c-button`;
      return parseFloat(getComputedStyle(probe).paddingLeft) > 0;
    });
    probe.remove();
    return found || PREFIXES[0];
  }

  const used = prefix();

  // "button m-primary" → its component's class and its modifiers'.
  function wear(node, words) {
    const [component, ...modifiers] = words.split(" ");
    if (component === "form-control" && used === "pf-") node = node.firstElementChild; // 4 has no wrapper
    node.classList.add(`${used}c-${component}`, ...modifiers.map((one) => `pf-${one}`));
    return node;
  }

  function dark() {
    const wanted = localStorage.getItem("shell:style") || "auto";
    const on = wanted === "dark" || (wanted === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    for (const one of PREFIXES) document.documentElement.classList.toggle(`${one}theme-dark`, on);
  }

  dark();
  for (const node of document.querySelectorAll("[data-pf]")) wear(node, node.dataset.pf);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dark);
  window.addEventListener("storage", (event) => { if (event.key === "shell:style") dark(); });
  window.addEventListener("cockpit-style", dark);

  // kind: "info", "success", "warning" or "danger".
  function alert(kind, title, body) {
    const box = wear(element("div"), `alert m-${kind} m-inline`);
    box.append(wear(element("p", title), "alert__title"));
    if (body) box.append(wear(element("div", body), "alert__description"));
    return box;
  }

  return { wear, alert };
})();
