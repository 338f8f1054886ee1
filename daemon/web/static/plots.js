// Draws the last day. The numbers come from /api/v1/series, the colours from the style sheet.
"use strict";

(() => {
  const REFRESH = 60000;
  const HEIGHT = 200;
  const PALETTE = ["--accent", "--busy", "--warn", "--ok", "--bad", "--off", "--ink"];
  const TICKS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600];
  const SHORTEST = 600; // seconds that a plot spans at least
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const places = [...document.querySelectorAll("[data-plot]")];
  const drawn = new Map();
  let told = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // What each plot shows of the series: columns of numbers, and their names.
  const KINDS = {
    freshness: ({ freshness }) => ({
      columns: [freshness.times, freshness.stalest_seconds, freshness.unwell],
      names: ["stalest (s)", "branches not well"],
    }),
    rates: ({ rates }) => {
      const every = [["deliveries", rates.deliveries], ...Object.entries(rates.runs)];
      const happened = every.filter(([, column]) => column.some((count) => count));
      const quiet = Math.min(...happened.map(([, column]) => column.findIndex((count) => count)));
      const begin = Math.max(0, quiet - 1); // a daemon of today needs no axis of yesterday
      return {
        columns: [happened.length ? rates.times : [], ...happened.map(([, column]) => column)].map((column) => column.slice(begin)),
        names: happened.map(([name]) => (name === "deliveries" ? name : `${name} runs`)),
        stepped: true,
      };
    },
    budget: ({ budget }) => ({
      columns: [budget.times, budget.requests, budget.remaining.core, budget.remaining.graphql],
      names: ["requests", "core left", "graphql left"],
      own: [false, true, true],
    }),
    latency: ({ latency }) => ({ columns: [latency.times, latency.seconds], names: ["seconds"], points: true }),
  };

  const clock = (plot, at) => (at === null ? "" : new Date(at * 1000).toTimeString().slice(0, 5));

  function options(kind, width) {
    const times = kind.columns[0];
    const last = times[times.length - 1];
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif", size: 48 };
    const second = kind.own ? [{ ...axis, scale: "own", side: 1, grid: { show: false } }] : [];
    return {
      width,
      height: HEIGHT,
      cursor: { drag: { x: false, y: false } },
      scales: { x: { range: () => [Math.min(times[0], last - SHORTEST), last] }, y: { range: above }, own: { range: above } },
      axes: [{ ...axis, size: 28, incrs: TICKS, values: (plot, ticks) => ticks.map((at) => clock(plot, at)) }, axis, ...second],
      series: [{ label: "at", value: clock }, ...kind.names.map((label, number) => line(label, number, kind))],
    };
  }

  const above = (plot, low, high) => [0, Math.max(1, high * 1.1)];

  function line(label, number, kind) {
    const stroke = colour(PALETTE[number % PALETTE.length]);
    const alone = { paths: () => null, points: { show: true, size: 5, fill: stroke } };
    const joined = { points: { show: kind.columns[0].length === 1 }, ...(kind.stepped && { paths: uPlot.paths.stepped({ align: 1 }) }) };
    const drawnAs = kind.points ? alone : joined;
    return { label, stroke, width: 1.5, scale: kind.own?.[number] ? "own" : "y", ...drawnAs };
  }

  function draw(place) {
    const kind = KINDS[place.dataset.plot](told);
    drawn.get(place)?.destroy();
    drawn.delete(place);
    place.replaceChildren();
    if (kind.columns[0].length === 0) {
      const words = document.createElement("p");
      words.className = "nothing";
      words.textContent = "Nothing yet in the last day";
      place.append(words);
      return;
    }
    const plot = new uPlot(options(kind, place.clientWidth), kind.columns, place);
    drawn.set(place, plot);
  }

  const all = () => told && places.forEach(draw);

  async function look() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/api/v1/series");
      if (!answer.ok) return;
      told = await answer.json();
      all();
    } catch {
      // the next look may find the daemon
    }
  }

  dark.addEventListener("change", all);
  addEventListener("resize", () => drawn.forEach((plot, place) => plot.setSize({ width: place.clientWidth, height: HEIGHT })));
  document.addEventListener("visibilitychange", look);
  setInterval(look, REFRESH);
  look();
})();
