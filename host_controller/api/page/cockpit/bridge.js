// The way to the controller: its control socket and its command, both through Cockpit's bridge, with the privileges
// that Cockpit has given. Whoever may not use the control socket reads the view socket, and changes nothing.
"use strict";

const Bridge = (() => {
  const found = (cockpit.manifests && cockpit.manifests.dynmem && cockpit.manifests.dynmem.config) || {};
  const CONFIG = { socket: "/run/dynmem/control.sock", view_socket: "/run/dynmem/view.sock", command: "dynmem", ...found };
  const WORDS = {
    "access-denied": "You may not ask the controller. Turn on administrative access, or join the group dynmem-view.",
    "not-found": "No controller runs here: systemctl start dynmem",
    timeout: "The controller did not answer in time.",
    terminated: "The controller ended the connection.",
  };
  let mayChange = true;
  let http = cockpit.http(CONFIG.socket, { superuser: "try" });

  function words(error, body) {
    try {
      const told = JSON.parse(body);
      if (told.message) return told.hint ? `${told.message} (${told.hint})` : told.message;
    } catch { /* it is no answer of the controller's */ }
    return WORDS[error.problem] || error.message || String(error);
  }

  // A JSON answer to GET; throws an Error that says in a sentence what is wrong.
  async function get(address) {
    return JSON.parse(await once(() => http.get(address)));
  }

  async function once(ask) {
    try {
      return await said(ask());
    } catch (error) {
      if (error.problem !== "access-denied" || !mayChange) throw error;
      mayChange = false;
      http = cockpit.http(CONFIG.view_socket, { superuser: "try" });
      return said(ask());
    }
  }

  // Its own promise has two arguments in failure: the error, and what was answered.
  const said = (request) => new Promise((done, fail) => {
    request.then(done, (error, body) => fail(Object.assign(new Error(words(error, body)), { problem: error.problem })));
  });

  async function post(address) {
    return JSON.parse(await said(http.post(address, "")));
  }

  // A line each, as they come; returns how to end it. `over`: called when the stream has ended.
  function follow(address, each, over) {
    let rest = "";
    const request = http.get(address);
    request.stream((piece) => {
      const lines = (rest + piece).split("\n");
      rest = lines.pop();
      each(lines.filter((line) => line).map((line) => JSON.parse(line)));
    });
    request.then(over, over);
    return () => request.close();
  }

  // Our command, as administrator: limits and adoption are libvirt's, so they are not the controller's to change.
  // `superuser`: "require" for what changes something, "try" for what looks.
  function run(words, superuser = "require") {
    return new Promise((done, fail) => {
      const process = cockpit.spawn([...CONFIG.command.split(" "), ...words], {
        superuser, err: "message", environ: [`DYNMEM_SOCKET=${CONFIG.socket}`],
      });
      process.then(done, (error, output) => {
        const problem = error.problem === "access-denied" ? "This needs administrative access (the button above)." : error.message;
        fail(Object.assign(new Error(problem), { output, status: error.exit_status }));
      });
    });
  }

  // What a command says in JSON, also where its exit status tells of problems.
  async function ask(words, superuser) {
    try {
      return JSON.parse(await run(words, superuser));
    } catch (error) {
      if (error.output && error.output.startsWith("{")) return JSON.parse(error.output);
      throw error;
    }
  }

  return { get, post, follow, run, ask, mayChange: () => mayChange };
})();
