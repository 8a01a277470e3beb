// What an operator does here. Each says what became of it, in words, where it was asked for.
"use strict";

const Actions = (() => {
  const LIMITS = ["minimum", "maximum", "startup", "buffer", "weight"];

  function tell(box, kind, title, body) {
    box.replaceChildren(Look.alert(kind, title, body));
  }

  // Runs `what` with the button locked, and says in `box` how it ended.
  async function doing(button, box, what, done) {
    button.disabled = true;
    tell(box, "info", "Working …");
    try {
      const told = await what();
      tell(box, "success", done(told));
    } catch (error) {
      tell(box, "danger", "Nothing was changed", error.message);
    } finally {
      button.disabled = !Bridge.mayChange();
    }
  }

  const pauseAll = (button, box, on) =>
    doing(button, box, () => Bridge.post(`/v1/${on ? "pause" : "resume"}`), (told) => `Done: ${told.done}`);

  const pause = (button, box, vm, on) =>
    doing(button, box, () => Bridge.post(`/v1/vms/${encodeURIComponent(vm.uuid)}/${on ? "pause" : "resume"}`), (told) => `Done: ${told.done}`);

  // Sizes as `dynmem set` reads them back: whole MiB where that is exact.
  const exact = (bytes) => (bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20}MiB` : String(bytes));

  function fill(form, limits) {
    for (const name of ["minimum", "maximum", "startup"]) form.elements[name].value = exact(limits[`${name}_bytes`]);
    form.elements.buffer.value = limits.buffer_percent;
    form.elements.weight.value = limits.weight;
    for (const name of LIMITS) form.elements[name].defaultValue = form.elements[name].value;
  }

  // Only what was changed is set: the rest may have changed meanwhile.
  function changes(form) {
    const changed = LIMITS.filter((name) => form.elements[name].value.trim() !== form.elements[name].defaultValue);
    return changed.flatMap((name) => [`--${name}`, form.elements[name].value.trim()]);
  }

  function setLimits(button, box, vm, words) {
    if (!words.length) {
      tell(box, "info", "Nothing to set");
      return Promise.resolve();
    }
    return doing(button, box, () => Bridge.run(["set", ...words, "--", vm.name]), (told) => told.trim() || "Set");
  }

  function advised(limits) {
    return ["minimum", "maximum", "startup"].flatMap((name) => [`--${name}`, exact(limits[`${name}_bytes`])]).concat(["--buffer", String(limits.buffer_percent)]);
  }

  const release = (button, box, vm) =>
    doing(button, box, () => Bridge.run(["release", "--", vm.name]), (told) => told.trim() || "Released");

  async function candidates() {
    const told = await Bridge.ask(["adopt", "--all", "--dry-run", "--json"], "require");
    return told.vms.filter((one) => one.outcome !== "nothing to do");
  }

  const adopt = (button, box, name) =>
    doing(button, box, () => Bridge.run(["adopt", "--", name]), (told) => told.trim() || "Adopted");

  return { tell, pauseAll, pause, fill, changes, setLimits, advised, release, candidates, adopt };
})();
