"use strict";

function play(figure) {
  const clip = JSON.parse(figure.dataset.clip);
  const sheet = figure.querySelector("img[hidden]");
  const canvases = [...figure.querySelectorAll("canvas")];
  const slider = figure.querySelector("input");
  const speed = figure.querySelector("select");
  const phase = figure.querySelector(".phase");
  const output = figure.querySelector("output");
  let frame = 0, due = 0, touched = false;

  function show(next) {
    frame = Math.max(0, Math.min(clip.frames - 1, next));
    const x = (frame % clip.columns) * 3 * clip.width;
    const y = Math.floor(frame / clip.columns) * clip.height;
    canvases.forEach((canvas, panel) => canvas.getContext("2d").drawImage(
      sheet, x + panel * clip.width, y, clip.width, clip.height, 0, 0, clip.width, clip.height));
    const step = frame - clip.context + 1;
    const beyond = clip.trusted !== null && step > clip.trusted;
    figure.dataset.phase = step <= 0 ? "context" : beyond ? "beyond" : "imagined";
    phase.textContent = clip.phases[figure.dataset.phase];
    output.textContent = (step > 0 ? `step ${step} of ${clip.frames - clip.context}` : `frame ${frame + 1} of ${clip.context}`)
      + ` · error ${clip.errors[frame]}`;
    slider.value = frame;
    slider.setAttribute("aria-valuetext", `${phase.textContent}, ${output.textContent}`);
  }

  function tick(now) {
    if (!("playing" in figure.dataset)) return;
    if (now >= due) {
      const last = frame === clip.frames - 1;
      show(last ? 0 : frame + 1);
      const rest = frame === clip.frames - 1 ? 800 : 0;
      due = now + 1000 / (clip.fps * Number(speed.value)) + rest;
    }
    requestAnimationFrame(tick);
  }

  function run(on) {
    if (on === "playing" in figure.dataset) return;
    if (on) { figure.dataset.playing = ""; due = 0; requestAnimationFrame(tick); } else delete figure.dataset.playing;
  }

  const actions = {
    play() { run(!("playing" in figure.dataset)); },
    back() { run(false); show(frame - 1); },
    on() { run(false); show(frame + 1); },
    first() { run(false); show(0); },
    last() { run(false); show(clip.frames - 1); },
  };
  const keys = { " ": "play", ArrowLeft: "back", ArrowRight: "on", Home: "first", End: "last" };
  figure.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { touched = true; actions[button.dataset.do](); }
  });
  figure.addEventListener("keydown", (event) => {
    if (event.target !== figure || !(event.key in keys)) return;
    event.preventDefault();
    touched = true;
    actions[keys[event.key]]();
  });
  slider.addEventListener("input", () => { touched = true; run(false); show(Number(slider.value)); });

  function split(name, frames) {
    const share = Math.max(0, Math.min(1, (frames - 0.5) / Math.max(1, clip.frames - 1)));
    slider.style.setProperty(name, `calc(7px + (100% - 14px) * ${share})`);
  }
  split("--split", clip.context);
  if (clip.trusted !== null) split("--end", clip.context + clip.trusted);
  sheet.decode().catch(() => {}).then(() => {
    show(0);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    new IntersectionObserver(([entry]) => { if (!touched) run(entry.isIntersecting); }, { threshold: 0.6 }).observe(figure);
  });
}

function readOut(svg) {
  const area = svg.querySelector("svg.data");
  if (!area) return;
  const lines = [...area.querySelectorAll("path[data-values]")].map((path) => ({
    label: path.dataset.label,
    path,
    at: path.getAttribute("d").match(/[-\d.]+(?=,)/g).map(Number),
    heights: path.getAttribute("d").match(/(?<=,)[-\d.]+/g).map(Number),
    values: path.dataset.values.split(" ").map((value) => value.split(":")),
  }));
  const left = Number(area.getAttribute("x"));
  const hair = document.createElementNS(svg.namespaceURI, "line");
  const box = document.createElement("div");
  hair.setAttribute("class", "hair");
  hair.setAttribute("y1", 0);
  hair.setAttribute("y2", area.getAttribute("height"));
  box.className = "read-out";

  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const pointer = (event.clientX - frame.left) * svg.viewBox.baseVal.width / frame.width - left;
    const gap = (x) => Math.abs(x - pointer);
    const nearest = lines.map(({ at }) => at.reduce((best, x, i) => gap(x) < gap(at[best]) ? i : best, 0));
    const x = lines.map(({ at }, k) => at[nearest[k]]).reduce((a, b) => gap(b) < gap(a) ? b : a, Infinity);
    if (!Number.isFinite(x)) return;
    const title = document.createElement("b");
    box.replaceChildren(title);
    const shown = lines.map((line, k) => ({ ...line, i: nearest[k] })).filter(({ at, i }) => Math.abs(at[i] - x) <= 4);
    shown.sort((a, b) => a.heights[a.i] - b.heights[b.i]);
    for (const { label, path, values, i } of shown) {
      const [where, value, low, high] = values[i];
      title.textContent = `${svg.dataset.x || ""} ${where}`;
      const row = document.createElement("div");
      const swatch = document.createElement("i");
      swatch.style.background = getComputedStyle(path).stroke;
      row.append(swatch, `${label} ${value}` + (low === undefined ? "" : ` (${low} to ${high})`));
      box.append(row);
    }
    hair.setAttribute("x1", x);
    hair.setAttribute("x2", x);
    area.append(hair);
    document.body.append(box);
    const flip = event.clientX + box.offsetWidth + 24 > document.documentElement.clientWidth;
    box.style.left = `${event.pageX + (flip ? -box.offsetWidth - 12 : 16)}px`;
    box.style.top = `${event.pageY - box.offsetHeight - 12}px`;
  });
  svg.addEventListener("pointerleave", () => { hair.remove(); box.remove(); });
}

document.querySelectorAll("figure.clip").forEach(play);
document.querySelectorAll("svg.plot").forEach(readOut);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((block) => { block.open = true; }));
