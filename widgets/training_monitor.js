// A running training: curves, figures, and the answers to the probes. What models write enters the page as text.

const SVG = "http://www.w3.org/2000/svg";
const LEAST_WIDTH = 240, LEFT = 50, RIGHT = 12, TOP = 10; // pixels of the page: letters keep their size
const LOSS_HEIGHT = 210, RATE_TOP = 250, RATE_HEIGHT = 44, HEIGHT = 324;
const SHOWN_ANSWERS = 4; // older ones are only counted

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** 1, 2 and 5 times powers of ten from low to high; only the powers if these would be too many. */
function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const factor of [1, 2, 5]) ticks.push([factor * 10 ** power, factor]);
  const within = ticks.filter(([value]) => value >= low && value <= high);
  return (within.length > 8 ? within.filter(([, factor]) => factor === 1) : within).map(([value]) => value);
}

function stepTicks(last) {
  const rough = last / 5;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const every = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough) ?? rough;
  const ticks = [];
  for (let value = 0; value <= last; value += every) ticks.push(value);
  return ticks;
}

const short = (value) => (value >= 0.001 && value < 10000 ? String(+value.toPrecision(2)) : value.toExponential(0));

function chart(lines, sources, last, width) {
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", class: "curves" });
  const right = width - RIGHT;
  const x = (step) => LEFT + (step / Math.max(last, 1)) * (right - LEFT);
  const positive = (value) => Math.max(value, 1e-6);
  const values = lines.flatMap((line) => [line.loss, ...Object.values(line.sources)]).map(positive);
  const low = Math.min(...values, 1) / 1.15, high = Math.max(...values, low * 4) * 1.15;
  const y = (value) =>
    TOP + LOSS_HEIGHT * (1 - (Math.log(positive(value)) - Math.log(low)) / (Math.log(high) - Math.log(low)));
  const path = (points) => points.map(([a, b], index) => `${index ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");

  for (const value of logTicks(low, high)) {
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  for (const value of stepTicks(last))
    svg.append(shape("text", { class: "tick", x: x(value), y: HEIGHT - 4, "text-anchor": "middle" }, String(value)));
  svg.append(shape("text", { class: "tick name", x: LEFT, y: RATE_TOP - 8 }, "learning rate"));
  svg.append(shape("line", { class: "grid", x1: LEFT, x2: right, y1: RATE_TOP + RATE_HEIGHT, y2: RATE_TOP + RATE_HEIGHT }));
  if (!lines.length) return svg;

  if (sources.length > 1)
    for (const { name, color } of sources) {
      const points = lines.filter((line) => name in line.sources).map((line) => [x(line.step), y(line.sources[name])]);
      svg.append(shape("path", { class: "curve source", d: path(points), stroke: color }));
    }
  const whole = lines.map((line) => [x(line.step), y(line.loss)]);
  svg.append(shape("path", { class: "curve whole", d: path(whole) }));
  svg.append(shape("circle", { class: "now", cx: whole.at(-1)[0], cy: whole.at(-1)[1], r: 3.5 }));

  const peak = Math.max(...lines.map((line) => line.learning_rate), 1e-12);
  const rate = lines.map((line) => [x(line.step), RATE_TOP + RATE_HEIGHT * (1 - line.learning_rate / peak)]);
  svg.append(shape("path", { class: "curve rate", d: path(rate) }));
  svg.append(shape("text", { class: "tick", x: LEFT - 6, y: RATE_TOP + 8, "text-anchor": "end" }, short(peak)));
  svg.setAttribute("aria-label", `Loss ${lines.at(-1).loss.toFixed(3)} at step ${lines.at(-1).step}`);
  return svg;
}

function legend(lines, sources, state) {
  const swatch = (name, color, value, key) => {
    const mark = node("i", { className: "swatch" });
    if (color) mark.style.background = color;
    const entry = node("span", { className: "entry" }, mark, `${name} `, node("b", { textContent: value }));
    entry.dataset.source = key;
    return entry;
  };
  const last = lines.at(-1);
  const none = state === "running" ? "waiting for the first figures…" : "it ended before the first figures";
  if (!last) return [node("span", { className: "quiet", textContent: `Loss: ${none}` })];
  const latest = (name) => lines.findLast((line) => name in line.sources)?.sources[name];
  const each = sources.length > 1 ? sources : [];
  return [
    swatch("loss", "", last.loss.toFixed(3), ""),
    ...each.map(({ name, color }) => swatch(name, color, latest(name)?.toFixed(3) ?? "–", name)),
  ];
}

function probeView(probe) {
  const chip = node("span", { className: "chip", textContent: `region ${probe.number}` });
  chip.style.background = probe.color;
  const answers = probe.answers.slice(-SHOWN_ANSWERS).map((answer, index, shown) => {
    const now = index === shown.length - 1;
    const verdict = answer.right === null ? "" : answer.right ? "right" : "wrong";
    const line = node("div", { className: `answer ${now ? "now" : "past"} ${verdict}` });
    const mark = { right: "✓", wrong: "✗", "": "" }[verdict];
    line.append(
      node("span", { className: "step", textContent: `step ${answer.step}` }),
      node("span", { className: "mark", textContent: mark, title: verdict }),
      node("span", { className: "said", dir: "auto", textContent: answer.text || "(nothing)" }),
    );
    return line;
  });
  const hidden = probe.answers.length - answers.length;
  const head = node("div", { className: "head" }, chip);
  if (probe.truth) head.append(node("span", { className: "truth", textContent: probe.truth }));
  if (hidden > 0) head.append(node("span", { className: "quiet", textContent: `${hidden} earlier` }));
  const view = node("div", { className: "probe" }, head, ...answers);
  view.dataset.region = probe.number;
  return view;
}

const WORDS = { running: "training", stopped: "stopped", failed: "failed", done: "done" };

function render({ model, el }) {
  const root = node("div", { className: "gpt4roi-monitor" });
  const badge = node("span", { className: "badge" });
  const where = node("span", { className: "where" });
  const bar = node("progress", { ariaLabel: "Steps" });
  const stop = node("button", {
    type: "button", textContent: "Stop", title: "Stop after the current step, with a checkpoint",
  });
  stop.dataset.action = "stop";
  stop.addEventListener("click", () => {
    stop.disabled = true;
    model.send({ type: "stop" });
  });
  const facts = node("dl", { className: "facts" });
  const key = node("div", { className: "legend" });
  const curves = node("div", { className: "plot" });
  const image = node("img", { alt: "The probes' image, with its regions numbered" });
  const asked = node("p", { className: "quiet asked" });
  const list = node("div", { className: "probes" });
  const probeSide = node("section", { className: "probe-side" }, asked, list);
  const notice = node("p", { className: "notice" });
  notice.setAttribute("role", "status");
  const problem = node("p", { className: "problem" });
  problem.setAttribute("role", "alert");
  root.append(
    node("header", {}, badge, where, bar, stop),
    facts,
    node("div", { className: "sides" }, node("section", { className: "curve-side" }, key, curves), image),
    probeSide, notice, problem,
  );

  const showProgress = () => {
    const state = model.get("state"), steps = model.get("max_steps");
    root.dataset.state = state;
    badge.textContent = WORDS[state] ?? state;
    where.textContent = steps ? `step ${model.get("step")} of ${steps}` : "preparing";
    bar.max = Math.max(steps, 1);
    bar.value = model.get("step");
    stop.hidden = state !== "running";
    stop.disabled = model.get("stopping");
    stop.textContent = model.get("stopping") ? "Stopping…" : "Stop";
  };
  const showCurves = () => {
    const lines = model.get("lines"), sources = model.get("sources");
    key.replaceChildren(...legend(lines, sources, model.get("state")));
    const last = Math.max(model.get("max_steps"), lines.at(-1)?.step ?? 1);
    curves.replaceChildren(chart(lines, sources, last, Math.max(curves.clientWidth, LEAST_WIDTH)));
  };
  const showFacts = () => {
    facts.replaceChildren(
      ...Object.entries(model.get("facts")).map(([name, value]) => {
        const fact = node("div", {}, node("dt", { textContent: name }), node("dd", { textContent: value }));
        fact.dataset.fact = name;
        return fact;
      }),
    );
  };
  const showProbes = () => {
    probeSide.hidden = image.hidden = !model.get("probe_image");
    if (image.src !== model.get("probe_image")) image.src = model.get("probe_image");
    asked.textContent = `“${model.get("question")}”, asked during training:`;
    list.replaceChildren(...model.get("probes").map(probeView));
  };
  const showWords = () => {
    notice.textContent = model.get("notice");
    notice.hidden = !model.get("notice");
    problem.textContent = model.get("problem");
    problem.hidden = !model.get("problem");
  };
  const listeners = [
    ["change:state change:step change:max_steps change:stopping", showProgress],
    ["change:lines change:sources change:max_steps change:state", showCurves],
    ["change:facts", showFacts],
    ["change:probes change:probe_image change:question", showProbes],
    ["change:notice change:problem", showWords],
  ];
  for (const [names, show] of listeners) {
    for (const name of names.split(" ")) model.on(name, show);
    show();
  }
  el.append(root);
  const unwatch = tellLost(model, root, "button", () => {
    if (model.get("state") !== "running") return "";
    root.dataset.state = "stopped";
    badge.textContent = "ended";
    return "The training ended with it; the same call of train continues from the last checkpoint.";
  });
  let drawn = 0;
  const width = new ResizeObserver(() => {
    if (curves.clientWidth === drawn) return;
    drawn = curves.clientWidth;
    showCurves();
  });
  width.observe(curves);
  return () => {
    width.disconnect();
    unwatch();
    for (const [names, show] of listeners) for (const name of names.split(" ")) model.off(name, show);
  };
}

export default { render };
