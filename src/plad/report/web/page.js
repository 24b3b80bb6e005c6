"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { systems, judges, cases } = JSON.parse($("cases").textContent);
  const TARGET = 0;
  const PRINTED = 12;      // examples on paper, from the present one on
  const LONGEST = 1200;    // words up to which two texts are compared word by word
  const LONG = 900;        // characters from which a text scrolls in its own box
  const MARKS = { g: "shared", y: "redundant", r: "unsupported" };
  const state = { ours: 1, rival: systems.length > 2 ? 2 : TARGET, judge: 0, list: [], at: 0 };

  const make = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  };
  const name = (system) => systems[system][1];
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
  const plain = (runs) => runs.map((run, i) => (i % 2 ? run.slice(1) : run)).join("");
  const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

  // -- numbers -------------------------------------------------------------------------------------

  /** How far an answer is ahead of the target, in the judge's unit; null where it was not judged. */
  function lead(example, system) {
    const scores = (example.scores[state.judge] || [])[system - 1];
    return scores ? scores[0] - scores[1] : null;
  }

  function margin(example) {
    const [a, b] = [state.ours, state.rival].map((s) => (s === TARGET ? 0 : lead(example, s)));
    if (a === null || b === null || (state.ours === TARGET && state.rival === TARGET)) return null;
    return Math.abs(a - b) < 1e-9 ? 0 : a - b;
  }

  const words = (example, system) => (example.texts[system] ? example.texts[system][1] : 0);
  const cutOff = (example, system) => !!example.texts[system] && example.texts[system][4].includes("cut off");

  const FILTERS = {
    all: () => true,
    ours: (e) => margin(e) > 0,
    rival: (e) => margin(e) !== null && margin(e) < 0,
    equal: (e) => margin(e) === 0,
    cut: (e) => cutOff(e, state.ours) || cutOff(e, state.rival),
  };
  const last = (value, or) => (value === null ? or : value);
  const ORDERS = {
    file: null,
    ours: (e) => -last(margin(e), -Infinity),
    rival: (e) => last(margin(e), Infinity),
    moved: (e) => -Math.abs(last(margin(e), 0)),
    long: (e) => -words(e, state.ours),
    short: (e) => words(e, state.ours),
    longer: (e) => words(e, state.rival) - words(e, state.ours),
  };

  // -- words ---------------------------------------------------------------------------------------

  const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;
  const split = (text) => (segmenter ? Array.from(segmenter.segment(text), (s) => s.segment) : text.match(/\s+|\S+/g) || []);

  /** For each piece of both texts, whether the other one lacks it: a longest common subsequence of the words. */
  function differences(left, right) {
    const solid = (pieces) => pieces.map((p, i) => [p, i]).filter(([p]) => p.trim());
    const [a, b] = [solid(left), solid(right)];
    if (a.length > LONGEST || b.length > LONGEST) return null;
    const width = b.length + 1;
    const table = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        table[i * width + j] = a[i][0] === b[j][0]
          ? table[(i + 1) * width + j + 1] + 1
          : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
      }
    }
    const own = [new Set(a.map(([, i]) => i)), new Set(b.map(([, i]) => i))];
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i][0] === b[j][0]) {
        own[0].delete(a[i++][1]);
        own[1].delete(b[j++][1]);
      } else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
      else j++;
    }
    return own;
  }

  function showDifferences(parent, pieces, own, tag) {
    for (let i = 0; i < pieces.length;) {
      const start = i;
      const changed = own.has(i);
      i++;
      while (i < pieces.length && (own.has(i) === changed || (changed && !pieces[i].trim() && own.has(i + 1)))) i++;
      const text = pieces.slice(start, i).join("");
      parent.append(changed ? make(tag, "", text) : text);
    }
  }

  function showMarks(parent, runs, marked) {
    runs.forEach((run, i) => {
      if (i % 2 && marked) parent.append(make("mark", MARKS[run[0]], run.slice(1)));
      else parent.append(i % 2 ? run.slice(1) : run);
    });
  }

  // -- one example ---------------------------------------------------------------------------------

  const mode = () => document.querySelector('input[name="marks"]:checked').value;

  function textBox(text, fill, label) {
    const inner = make("bdi", "");
    fill(inner);
    const box = make("p", "text", inner);
    box.dir = "auto";
    if (plain(text[0]).length > LONG) {
      box.classList.add("long");
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", label);
    }
    const parts = [box];
    if (text[2]) parts.push(make("p", "soft more", `${plural(text[2], "more character")} in ${label === "Prompt" ? "data/test.jsonl" : "eval/answers.jsonl"}.`));
    return parts;
  }

  function promptOf(example) {
    const total = example.prompt.reduce((n, turn) => n + turn[2], 0);
    const details = make("details", "prompt", make("summary", "", `Prompt, ${plural(total, "word")}`));
    details.open = state.prompt ?? example.prompt.reduce((n, turn) => n + plain(turn[1]).length, 0) < 400;
    details.addEventListener("toggle", () => { if (details.isConnected) state.prompt = details.open; });
    for (const [role, ...text] of example.prompt) {
      if (role) details.append(make("p", "role", role));
      details.append(...textBox(text, (p) => showMarks(p, text[0], mode() === "points"), "Prompt"));
    }
    return details;
  }

  function facts(example, system) {
    const text = example.texts[system];
    const said = [plural(text[1], "word"), ...text[4]];
    const ahead = system === TARGET ? null : lead(example, system);
    if (ahead !== null) said.push(`${signed(ahead)} against the target`);
    return said.join(" · ");
  }

  function found(text, system) {
    const [g, y, r] = text[3];
    if (system === TARGET) return `${plural(g, "key word")} also said by ${name(1)}`;
    return `${plural(g, "key word")} shared, ${y} redundant, ${r} unsupported`;
  }

  function answerOf(example, system, compared) {
    const card = make("div", "answer", make("h4", "", name(system)));
    if (system === state.ours) card.classList.add("mine");
    const text = example.texts[system];
    if (!text) {
      card.append(make("p", "facts", "no answer"));
      return card;
    }
    card.append(make("p", "facts", facts(example, system)));
    const own = compared && (system === state.ours ? compared.ours : compared.rival);
    card.append(...textBox(text, (p) => {
      if (own) showDifferences(p, own.pieces, own.set, system === state.ours ? "ins" : "del");
      else showMarks(p, text[0], mode() === "points");
    }, name(system)));
    if (mode() === "points") card.append(make("p", "facts found", found(text, system)));
    return card;
  }

  function compare(example) {
    const texts = [state.ours, state.rival].map((s) => example.texts[s]);
    if (mode() !== "changes" || !texts[0] || !texts[1] || state.ours === state.rival) return null;
    const pieces = texts.map((t) => split(plain(t[0])));
    const own = differences(pieces[0], pieces[1]);
    return own && { ours: { pieces: pieces[0], set: own[0] }, rival: { pieces: pieces[1], set: own[1] } };
  }

  function verdictOf(example) {
    const ahead = margin(example);
    if (ahead === null) return ["unknown", "not judged"];
    if (ahead === 0) return ["same", "equal"];
    const by = Math.abs(ahead).toFixed(2);
    return ahead > 0 ? ["better", `${name(state.ours)} ahead by ${by}`] : ["worse", `${name(state.rival)} ahead by ${by}`];
  }

  function caseOf(example) {
    const [tone, said] = verdictOf(example);
    const compared = compare(example);
    const id = make("bdi", "", example.id);
    const article = make("article", "sample", make("h3", "", id, make("span", `chip ${tone}`, said)));
    article.setAttribute("aria-label", `Example ${example.id}`);
    const pair = make("div", "answers pair");
    const others = make("div", "answers");
    const shown = state.ours === state.rival ? [state.ours] : [state.ours, state.rival];
    for (const system of shown) pair.append(answerOf(example, system, compared));
    systems.forEach((_, s) => { if (!shown.includes(s) && example.texts[s]) others.append(answerOf(example, s, null)); });
    article.append(promptOf(example), pair);
    if (others.childElementCount) article.append(others);
    return article;
  }

  // -- the browser ---------------------------------------------------------------------------------

  function drawSkyline() {
    const margins = state.list.map((i) => margin(cases[i]) || 0);
    const most = Math.max(...margins.map(Math.abs), 1e-9);
    const bars = { up: "", down: "", none: "" };
    margins.forEach((m, x) => {
      const height = Math.max(1.5, Math.abs(m) / most * 22);
      if (m > 0) bars.up += `M${x} 24h1v${-height}h-1z`;
      else if (m < 0) bars.down += `M${x} 24h1v${height}h-1z`;
      else bars.none += `M${x} 23.2h1v1.6h-1z`;
    });
    $("skyline").setAttribute("viewBox", `0 0 ${Math.max(1, margins.length)} 48`);
    for (const kind of Object.keys(bars)) $(`sky-${kind}`).setAttribute("d", bars[kind]);
  }

  function show() {
    for (const kind of ["points", "changes"]) $(`legend-${kind}`).hidden = mode() !== kind;
    const n = state.list.length;
    const example = n ? cases[state.list[state.at]] : null;
    $("case").replaceChildren(example ? caseOf(example) : make("p", "soft", "No example fits: choose another filter or empty the search."));
    const place = n ? `${(state.at + 1).toLocaleString("en")} of ${n.toLocaleString("en")}` : "none";
    const slider = $("position");
    slider.max = String(Math.max(1, n));
    slider.value = String(n ? state.at + 1 : 1);
    slider.setAttribute("aria-valuetext", example ? `${place}: ${verdictOf(example)[1]}` : place);
    slider.disabled = $("previous").disabled = $("next").disabled = n < 2;
    $("place").textContent = place;
    const here = $("sky-here");
    here.setAttribute("x", String(state.at));
    here.setAttribute("width", String(n ? Math.max(1, n / 300) : 0));
  }

  function refresh(keep) {
    const needle = $("search").value.trim().toLowerCase();
    const current = state.list[state.at];
    const holds = (e) => [e.id, ...e.prompt.map((t) => plain(t[1])), ...e.texts.filter(Boolean).map((t) => plain(t[0]))]
      .some((t) => t.toLowerCase().includes(needle));
    const order = ORDERS[$("order").value];
    state.list = cases.map((_, i) => i).filter((i) => FILTERS[$("filter").value](cases[i]) && (!needle || holds(cases[i])));
    if (order) {
      const keys = cases.map(order);
      state.list.sort((a, b) => keys[a] - keys[b] || a - b);
    }
    state.at = keep ? Math.max(0, state.list.indexOf(current)) : 0;
    drawSkyline();
    show();
  }

  function rename() {
    const label = { all: "all", ours: `${name(state.ours)} ahead`, rival: `${name(state.rival)} ahead`, equal: "equal", cut: "one was cut off" };
    for (const option of $("filter").options) {
      option.textContent = `${label[option.value]} (${cases.filter(FILTERS[option.value]).length.toLocaleString("en")})`;
    }
    const orders = {
      file: "as in the test set", ours: `${name(state.ours)} furthest ahead`, rival: `${name(state.rival)} furthest ahead`,
      moved: "largest difference", long: `${name(state.ours)} longest`, short: `${name(state.ours)} shortest`,
      longer: `${name(state.ours)} longer than ${name(state.rival)}`,
    };
    for (const option of $("order").options) option.textContent = orders[option.value];
  }

  function move(by) {
    if (!state.list.length) return;
    state.at = (state.at + by + state.list.length) % state.list.length;
    show();
  }

  function fill(select, names, chosen) {
    select.append(...names.map((text, i) => new Option(text, String(i), false, i === chosen)));
  }

  fill($("ours"), systems.map((s) => s[1]), state.ours);
  fill($("rival"), systems.map((s) => s[1]), state.rival);
  fill($("judge"), judges.length ? judges : ["none"], 0);
  $("judge").closest("label").hidden = judges.length < 2;
  for (const id of ["ours", "rival", "judge"]) {
    $(id).addEventListener("change", () => {
      state[id] = Number($(id).value);
      rename();
      refresh(true);
    });
  }
  for (const id of ["filter", "order"]) $(id).addEventListener("change", () => refresh(false));
  $("search").addEventListener("input", () => refresh(false));
  for (const radio of document.querySelectorAll('input[name="marks"]')) radio.addEventListener("change", show);
  $("previous").addEventListener("click", () => move(-1));
  $("next").addEventListener("click", () => move(1));
  $("position").addEventListener("input", () => { state.at = Number($("position").value) - 1; show(); });
  $("skyline").addEventListener("click", (event) => {
    const box = $("skyline").getBoundingClientRect();
    state.at = Math.min(state.list.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * state.list.length)));
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("input, select, textarea, .box, .long, [contenteditable]")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      event.preventDefault();
      move(step);
    }
  });
  const folded = () => document.querySelectorAll("main > section:not(#examples, #how) details");
  addEventListener("beforeprint", () => {
    for (const part of folded()) {
      part.classList.toggle("unfolded", !part.open);
      part.open = true;
    }
    $("case").replaceChildren(...state.list.slice(state.at, state.at + PRINTED).map((i) => caseOf(cases[i])));
  });
  addEventListener("afterprint", () => {
    for (const part of folded()) if (part.classList.contains("unfolded")) part.open = false;
    show();
  });

  rename();
  refresh(false);
  $("browser").hidden = false;
})();
