// Keeps a page as the daemon would write it now: what happens is told by the event stream, and what the page
// then shows is asked of the server, which escapes it. Nothing that comes from a repository is made into HTML here.
"use strict";

(() => {
  const SOON = 400; // ms between two looks while much happens
  const LATE = 30000; // and when nothing is told: ages and polls move on
  const TICK = 5000;
  const RETRY = 5000;
  const SECOND = 1000;
  const LONGEST_PRESS = 2 * SECOND; // whose end is told: where it ends outside of the window, it may not be
  const SKEW = 2 * SECOND; // the daemon tells its time in whole seconds
  const notice = document.getElementById("notice");
  const live = document.getElementById("live");
  let source = null;
  let timer = 0;
  let looking = false;
  let again = false;
  let looked = 0;
  let pause = SOON;
  let pressed = 0; // when a button of the mouse, or a finger, went down that is not up again
  let skew = 0; // what this browser's clock lacks to the daemon's

  // -- what the page shows -----------------------------------------------------------------------

  function replace(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.matches("tbody, ol")) rows(old, fresh);
    else old.replaceWith(fresh);
  }

  // Row by row, so that a person's focus and selection stay where they are.
  function rows(old, fresh) {
    const wanted = [...fresh.children];
    const ids = new Set(wanted.map((row) => row.id));
    for (const row of [...old.children]) if (!ids.has(row.id)) row.remove();
    const known = new Map([...old.children].map((row) => [row.id, row]));
    let place = old.firstElementChild;
    for (const row of wanted) {
      const mine = known.get(row.id);
      if (mine === place) place = place?.nextElementSibling ?? null;
      else old.insertBefore(mine ?? row, place);
      if (mine?.querySelector("details[open]")) row.querySelector("details")?.setAttribute("open", "");
      if (mine && !mine.isEqualNode(row)) mine.replaceWith(row);
    }
  }

  async function look() {
    if (looking) {
      again = true;
      return;
    }
    looking = true;
    const began = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      // The session has ended, or what this was about is not there any more.
      if (answer.redirected || answer.status === 404) return void location.reload();
      const off = Date.parse(answer.headers.get("Date")) + SECOND / 2 - Date.now();
      skew = Math.abs(off) > SKEW ? off : 0;
      const text = answer.ok ? await answer.text() : "";
      // What is replaced between press and release gets no click.
      if (Date.now() - pressed < LONGEST_PRESS) again = true;
      else if (text) show(new DOMParser().parseFromString(text, "text/html"));
    } catch {
      // the stream tells when the daemon is there again
    } finally {
      looking = false;
      looked = Date.now();
      pause = Math.max(SOON, 3 * (looked - began)); // a large page costs the daemon a share of its time at most
      if (again) soon();
      again = false;
    }
  }

  function show(fresh) {
    tick();
    tick(fresh); // a time that only reads otherwise is no reason to take a row from under a person's hands
    const before = parts(document);
    const wanted = new Map(parts(fresh).map((part) => [part.id, part]));
    const refocus = focused();
    for (const part of before) if (wanted.has(part.id)) replace(part, wanted.get(part.id));
    refocus();
    // Another kind of page: the first row has come, say, or the last one gone. What is being typed is not thrown away.
    const same = before.length === wanted.size && before.every((part) => wanted.has(part.id));
    if (!same && !document.activeElement?.matches("input, select")) location.reload();
  }

  const parts = (root) => [...root.querySelectorAll("[data-live]")].filter((part) => !part.parentElement.closest("[data-live]"));

  // What gives the focus back to what has it now, or to what has come in its place: by its id, or as the same link.
  function focused() {
    const one = document.activeElement;
    const id = one?.closest("[id]")?.id;
    return () => {
      if (!id || document.activeElement !== document.body) return;
      const place = document.getElementById(id);
      const same = one.id ? place : [...(place?.querySelectorAll("a[href]") ?? [])].find((link) => link.href === one.href);
      same?.focus();
    };
  }

  function soon() {
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      look();
    }, Math.max(0, looked + pause - Date.now()));
  }

  // -- what is told ------------------------------------------------------------------------------

  function connect() {
    if (document.hidden || source) return;
    source = new EventSource("/api/v1/events");
    source.onopen = () => {
      state("on", "live");
      soon(); // whatever happened meanwhile
    };
    source.onerror = () => {
      state("lost", "not live, trying again");
      if (source && source.readyState === EventSource.CLOSED) {
        disconnect();
        setTimeout(connect, RETRY);
        soon(); // tells whether the session has ended
      }
    };
    for (const name of ["branch.changed", "delivery", "sync.finished"]) source.addEventListener(name, soon);
    source.addEventListener("sync.started", (event) => {
      const told = JSON.parse(event.data);
      syncing(`${told.repository}@${told.branch ?? ""}`);
      soon();
    });
  }

  function disconnect() {
    if (source) source.close();
    source = null;
  }

  function state(name, words) {
    live.dataset.state = name;
    if (live.textContent !== words) live.textContent = words;
  }

  function syncing(branch) {
    for (const row of document.querySelectorAll("tr[data-branch]")) {
      const mark = row.dataset.branch === branch && row.querySelector(".state");
      if (!mark) continue;
      row.dataset.state = mark.textContent = "syncing";
      mark.className = "state syncing";
    }
  }

  // -- times that pass ---------------------------------------------------------------------------

  function span(seconds) {
    for (const [size, unit] of [[31557600, "y"], [86400, "d"], [3600, "h"], [60, "min"]]) {
      if (seconds >= size) return `${Math.round(seconds / size)} ${unit}`;
    }
    return `${Math.round(seconds)} s`;
  }

  function tick(root = document) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const seconds = (Date.now() + skew - Date.parse(time.dateTime)) / 1000;
      const words = seconds > -1 ? `${span(Math.max(seconds, 0))} ago` : `in ${span(-seconds)}`;
      if (time.textContent !== words) time.textContent = words;
    }
  }

  // -- the button --------------------------------------------------------------------------------

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form[data-sync]")) return;
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    notice.hidden = true;
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      if (answer.redirected && new URL(answer.url).pathname === "/login") return void location.reload();
      if (!answer.ok) throw new Error(await reason(answer));
    } catch (error) {
      const why = error instanceof TypeError ? "The daemon does not answer." : error.message; // fetch's, in a browser's words
      notice.textContent = `No sync was started. ${why}`;
      notice.hidden = false;
    } finally {
      button.disabled = false;
      // A look may have put a new row in this one's place meanwhile, and a person may have gone elsewhere.
      if (document.activeElement === document.body) document.getElementById(button.id)?.focus();
      soon();
    }
  });

  async function reason(answer) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return page.getElementById("error")?.textContent ?? `The daemon answered ${answer.status}.`;
  }

  document.addEventListener("pointerdown", () => (pressed = Date.now()), true);
  for (const name of ["pointerup", "pointercancel"]) {
    document.addEventListener(name, () => setTimeout(() => (pressed = 0)), true); // the click comes first
  }

  // A page that nobody looks at holds no connection: browsers have six of them for all its tabs.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  setInterval(() => tick(), TICK);
  setInterval(() => document.hidden || soon(), LATE);
  connect();
})();
