// Keeps a page as the daemon would write it now: what happens is told by the event stream, and what the page
// then shows is asked of the server, which escapes it. Nothing that comes from a repository is made into HTML here.
"use strict";

(() => {
  const SOON = 400; // ms between two looks while much happens
  const LATE = 30000; // and when nothing is told: ages and polls move on
  const TICK = 5000;
  const RETRY = 5000;
  const notice = document.getElementById("notice");
  const live = document.getElementById("live");
  let source = null;
  let timer = 0;
  let looking = false;
  let again = false;
  let looked = 0;
  let pause = SOON;

  // -- what the page shows -----------------------------------------------------------------------

  function replace(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.tagName === "TBODY") rows(old, fresh);
    else old.replaceWith(fresh);
  }

  // Row by row, so that a person's focus and selection stay where they are.
  function rows(old, fresh) {
    const known = new Map([...old.children].map((row) => [row.id, row]));
    let place = old.firstElementChild;
    for (const row of [...fresh.children]) {
      const mine = known.get(row.id);
      known.delete(row.id);
      if (mine === undefined || mine !== place) {
        if (mine) mine.remove();
        old.insertBefore(row, place);
        continue;
      }
      place = place.nextElementSibling;
      if (!mine.isEqualNode(row)) mine.replaceWith(row);
    }
    known.forEach((row) => row.remove());
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
      if (answer.redirected) return void location.reload(); // the session has ended
      if (answer.ok) show(new DOMParser().parseFromString(await answer.text(), "text/html"));
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
    const focused = document.activeElement && document.activeElement.id;
    for (const part of fresh.querySelectorAll("[data-live]")) {
      if (part.parentElement.closest("[data-live]")) continue;
      const old = document.getElementById(part.id);
      if (old) replace(old, part);
      else return void location.reload(); // another kind of page: the first row, say
    }
    if (focused && document.activeElement === document.body) document.getElementById(focused)?.focus();
    tick();
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
      syncing(`${told.repository}@${told.branch}`);
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

  function tick() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
      const words = seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
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
      notice.textContent = `No sync was started. ${error.message}`;
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

  // A page that nobody looks at holds no connection: browsers have six of them for all its tabs.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  setInterval(tick, TICK);
  setInterval(() => document.hidden || soon(), LATE);
  connect();
})();
