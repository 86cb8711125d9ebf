// What is live on a page: ages, changes of a site, the chart. Pages work without it, standing still.
"use strict";
(() => {
  const body = document.body;
  // The server's clock decides ages; the browser's may be wrong.
  let offset = Number(body.dataset.now) - Date.now();
  const now = () => Date.now() + offset;

  // Ages
  const words = { s: body.dataset.seconds, m: body.dataset.minutes, h: body.dataset.hours, d: body.dataset.days };
  const age = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return words.s.replace("#", s);
    if (s < 3600) return words.m.replace("#", Math.floor(s / 60));
    if (s < 86400) return words.h.replace("#", Math.floor(s / 3600));
    return words.d.replace("#", Math.floor(s / 86400));
  };
  const tellAges = () => {
    for (const time of document.querySelectorAll("time[data-at]")) {
      const text = age(now() - Number(time.dataset.at));
      if (time.textContent !== text) time.textContent = text;
    }
  };
  // What is left until a moment, counted down.
  const tellRests = () => {
    for (const time of document.querySelectorAll("time[data-until]")) {
      const s = Math.max(0, Math.floor((Number(time.dataset.until) - now()) / 1000));
      const two = (n) => String(n).padStart(2, "0");
      const text = `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(() => { tellAges(); tellRests(); }, 1000);

  // Trouble is said above the page and taken back when it is over.
  const trouble = document.getElementById("trouble");
  const say = (what) => {
    trouble.hidden = !what;
    trouble.textContent = what || "";
  };

  // Changes of a site
  let source = null;
  let refused = 0;
  const listen = () => {
    const place = document.querySelector("[data-events]");
    if (!place || source || document.hidden) return;
    source = new EventSource(place.dataset.events);
    source.addEventListener("changed", (event) => {
      offset = Number(event.data) - Date.now();
      refused = 0;
      say(null);
      body.dispatchEvent(new CustomEvent("site-changed"));
    });
    source.addEventListener("error", () => {
      say(trouble.dataset.lost);
      // Closed for good: the server refused. Signed out, the page itself leads to the sign-in.
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        refused += 1;
        if (refused === 1) body.dispatchEvent(new CustomEvent("site-changed"));
        setTimeout(listen, Math.min(30000, 1000 * 2 ** refused));
      }
    });
  };
  // A page that nobody sees holds no connection, and lets the site go back to its usual pace.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else {
      listen();
    }
  });

  document.addEventListener("htmx:error", () => say(trouble.dataset.lost));
  document.addEventListener("htmx:response:error", () => say(trouble.dataset.failed));
  document.addEventListener("htmx:after:swap", () => {
    if (!source) say(null);
    tellAges();
    chart.attach();
  });

  // The chart
  const chart = (() => {
    const EVERY = 30000;
    let panel = null, plot = null, hours = 6, loaded = 0, loading = false;
    const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const two = (n) => String(n).padStart(2, "0");
    const clock = (s) => {
      const d = new Date(s * 1000);
      const time = `${two(d.getHours())}:${two(d.getMinutes())}`;
      return hours > 24 ? `${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}` : time;
    };
    const number = (unit, digits) => (_, v) => (v == null ? "–" : `${v.toFixed(digits)} ${unit}`);
    const digitsFor = (most) => (most >= 100 ? 0 : most >= 10 ? 1 : most >= 1 ? 2 : 3);

    // The unit in which the greatest value has one to three digits before the point.
    const scaled = (values, units) => {
      const most = values.reduce((a, v) => Math.max(a, v ?? 0), 0);
      const [unit, factor] = units.find(([, factor]) => most * factor >= 1) ?? units[0];
      return { unit, values: values.map((v) => (v == null ? null : v * factor)), digits: digitsFor(most * factor) };
    };

    const note = (text) => {
      plot?.destroy();
      plot = null;
      const box = panel.querySelector(".plot");
      box.textContent = "";
      const p = document.createElement("p");
      p.className = "muted center";
      p.textContent = text;
      box.append(p);
    };

    const draw = (data) => {
      if (!data.power_mw.some((v) => v != null)) return note(panel.dataset.empty);
      const power = scaled(data.power_mw, [["MW", 1], ["kW", 1e3]]);
      const hash = scaled(data.hashrate_ph, [["EH/s", 1e-3], ["PH/s", 1], ["TH/s", 1e3]]);
      const box = panel.querySelector(".plot");
      plot?.destroy();
      box.textContent = "";
      const axis = {
        stroke: css("--muted"), font: "12px system-ui, sans-serif",
        grid: { stroke: css("--line"), width: 1 }, ticks: { show: false },
      };
      const line = (name, scale, colour, unit, digits) => ({
        label: `${name} (${unit})`, scale, stroke: css(colour), width: 2, points: { show: false },
        value: number(unit, digits),
      });
      // Power and hashrate go together: apart on the scale, neither hides the other.
      const upTo = (room) => (_, low, high) => [0, (high || 1) * room];
      const ticks = (unit) => (_, all) => all.map((v) => `${+v.toFixed(3)} ${unit}`);
      plot = new uPlot({
        width: box.clientWidth, height: 240,
        cursor: { drag: { x: false, y: false } },
        scales: { x: { time: true }, power: { range: upTo(1.1) }, hash: { range: upTo(1.4) } },
        legend: { live: true },
        series: [
          { label: panel.dataset.time, value: (_, s) => (s == null ? "–" : clock(s)) },
          { ...line(panel.dataset.power, "power", "--gold", power.unit, power.digits), fill: css("--gold-wash") },
          line(panel.dataset.hashrate, "hash", "--blue", hash.unit, hash.digits),
        ],
        axes: [
          { ...axis, size: 36, values: (_, all) => all.map(clock), space: hours > 24 ? 90 : 60 },
          { ...axis, scale: "power", size: 68, values: ticks(power.unit) },
          { ...axis, scale: "hash", side: 1, size: 72, grid: { show: false }, values: ticks(hash.unit) },
        ],
      }, [data.at, power.values, hash.values], box);
    };

    const load = async () => {
      if (!panel || loading || document.hidden) return;
      loading = true;
      try {
        const response = await fetch(`${panel.dataset.url}?hours=${hours}`, { headers: { Accept: "application/json" } });
        if (!response.ok || response.redirected) throw new Error(String(response.status));
        const data = await response.json();
        loaded = Date.now();
        draw(data);
      } catch {
        if (!plot) note(panel.dataset.failed);
        loaded = Date.now() - EVERY + 5000;
      } finally {
        loading = false;
      }
    };

    const attach = () => {
      const found = document.getElementById("chart");
      if (found === panel) return;
      plot?.destroy();
      plot = null;
      panel = found;
      if (!panel) return;
      for (const button of panel.querySelectorAll("button[data-hours]")) {
        button.addEventListener("click", () => {
          hours = Number(button.dataset.hours);
          for (const other of panel.querySelectorAll("button[data-hours]")) {
            other.setAttribute("aria-pressed", String(other === button));
          }
          load();
        });
      }
      load();
    };
    setInterval(() => { if (Date.now() - loaded >= EVERY) load(); }, 1000);
    addEventListener("resize", () => {
      if (plot) plot.setSize({ width: panel.querySelector(".plot").clientWidth, height: 240 });
    });
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", load);
    return { attach };
  })();

  // The address may have changed since the page was made: a switch of language stays where one is.
  document.addEventListener("submit", (event) => {
    if (event.target.matches("form.languages")) event.target.elements.next.value = location.pathname + location.search;
  });

  // A menu closes when somebody looks elsewhere.
  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.user[open]")) {
      if (!open.contains(event.target)) open.open = false;
    }
  });

  chart.attach();
  listen();
})();
