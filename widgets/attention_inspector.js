// The attention inspector: controls on top, one or two sides below. Results from the kernel are kept in the page.

const METHOD_SENT = "raw"; // the maps that come without being requested

function makeSide(model, side, data, table, talk) {
  const url = URL.createObjectURL(new Blob([data.image]));
  const stage = makeStage(url, data.size, data.frame);
  stage.canvas.dataset.side = side;
  drawBoxes(stage.boxes, data.size, data.regions);
  const bar = makeBar(table);
  const [tokens, showTokens] = makeTokens(data, {
    hover: (token) => talk.hover(side, token),
    choose: (token) => talk.set({ [side ? "second" : "token"]: token }),
  });
  const [shares, showShares] = makeShares(data, (span) => talk.set({ span }));
  const [matrix, showMatrix] = makeMatrix(data, table, (layer, head) => {
    const again = model.get("layer") === layer && model.get("head") === head;
    talk.set({ layer: again ? MEAN : layer, head: again ? MEAN : head, method: "raw" });
  });
  const [verdicts, showVerdicts] = makeVerdicts(data, model.get("hows"), (how) => talk.set({ how }));
  const mass = node("div", { className: "mass" });
  const summary = node("p", { className: "summary" });
  summary.setAttribute("aria-live", "polite");
  const problem = node("div", { className: "problem", role: "alert", hidden: true });
  const visuals = node("div", { className: "visuals" }, stage.element, bar.element, mass);
  const details = node("div", { className: "details" }, verdicts, shares, matrix);
  const root = node("section", { className: "side" }, tokens, problem, node("div", { className: "body" }, visuals, details), summary);
  root.dataset.side = side;

  const show = ({ wanted, hovered, chosen, high, problemWords }) => {
    const hide = model.get("hide_sinks");
    const found = data.look(wanted);
    showTokens({ token: chosen, hovered, masses: (token) => stripOf(data, { ...wanted, token }) });
    showVerdicts({ token: wanted.token, chosen: model.get("how"), ablations: talk.ablations(side) });
    showMatrix({ token: wanted.token, layer: wanted.layer, head: wanted.head, span: model.get("span"), hide });
    problem.hidden = !problemWords;
    problem.textContent = problemWords ?? "";
    root.classList.toggle("waiting", !found && !problemWords);
    stage.canvas.hidden = !found;
    if (!found) return;
    const hidden = hide ? data.hiddenCells : [];
    const top = model.get("scale") === "absolute" ? high : peak(found.values, hidden).value;
    paint(stage.canvas, found.values, data.columns, 0, top, table, hidden);
    Object.assign(stage.canvas.dataset, { token: wanted.token, layer: wanted.layer, head: wanted.head, method: wanted.method });
    stage.canvas.dataset.high = top;
    bar.low.textContent = "0";
    bar.high.textContent = percent(top);
    const shared = wanted.method === "relevancy" ? "one scale for the relevancy maps opened so far" : "one scale for all maps of this kind";
    bar.words.textContent = model.get("scale") === "absolute" ? shared : "this map's own scale";
    const words = describe(data, wanted, found, hidden);
    mass.textContent = words.mass;
    summary.textContent = words.all;
    stage.canvas.ariaLabel = words.all;
    showShares({ shares: found.shares, onSinks: found.onSinks, hide, span: model.get("span") });
  };

  const save = async (kind) => {
    const wanted = talk.wanted(side);
    const found = data.look(wanted);
    if (!found) return;
    const name = `${wanted.method}-token${wanted.token + 1}`;
    const hidden = model.get("hide_sinks") ? data.hiddenCells : [];
    if (kind === "data") {
      const spans = Object.fromEntries(data.spans.map((span, i) => [span.name, found.shares[i]]));
      const content = {
        ...wanted, text: data.tokens[wanted.token], tokens: data.tokens, grid: data.grid, columns: data.columns, frame: data.frame, map: [...found.values],
        shares: spans, total: found.total, sinks: data.sinks, regions: data.regions,
        ablations: talk.ablations(side).map((entry) => ({ ...entry, verdict: entry.verdicts[wanted.token] ?? "" })),
      };
      download(`${name}.json`, JSON.stringify(content, null, 1), "application/json");
      return;
    }
    const high = Number(stage.canvas.dataset.high);
    const map = [...found.values].map((value, cell) => (hidden.includes(cell) ? null : colorOf(table, step(value, 0, high))));
    const words = describe(data, wanted, found, hidden);
    const caption = [words.what, words.mass, `Colours: 0 to ${percent(high)} per cell (${model.get("scale")} scale)`];
    talk.ablations(side).forEach(({ verdicts: all, how }) => all.length && caption.push(`${how.replace("_", " ")}: ${all[wanted.token]}`));
    const svg = stageSvg({
      url: dataUrl(data.image), size: data.size, map, columns: data.columns, frame: data.frame, opacity: talk.opacity(), regions: data.regions, caption,
    });
    if (kind === "svg") download(`${name}.svg`, svg, "image/svg+xml");
    else download(`${name}.png`, await svgToPng(svg), "image/png");
  };
  return { root, show, save, setOpacity: (value) => (stage.canvas.style.opacity = value), end: () => URL.revokeObjectURL(url) };
}

function stripOf(data, wanted) {
  const found = data.look(wanted);
  return found && [...found.shares];
}

function peak(values, hidden) {
  let [cell, value] = [0, -1];
  values.forEach((one, i) => {
    if (one > value && !hidden.includes(i)) [cell, value] = [i, one];
  });
  return { cell, value: Math.max(value, 0) };
}

/** A description of the map, for people who cannot see it, with its numbers for those who can. */
function describe(data, wanted, found, hidden) {
  const { cell, value } = peak(found.values, hidden);
  const [row, column] = [Math.floor(cell / data.columns), cell % data.columns];
  const [x1, y1, x2, y2] = data.frame;
  const center = [x1 + ((column + 0.5) / data.columns) * (x2 - x1), y1 + ((row + 0.5) / data.grid) * (y2 - y1)];
  const beside = center.some((place, side) => place < 0 || place >= data.size[side]);
  const inside = data.regions
    .filter(({ box: [x1, y1, x2, y2] }) => x1 <= center[0] && center[0] < x2 && y1 <= center[1] && center[1] < y2)
    .map(({ number }) => `region ${number}`);
  const share = (name) => found.shares[data.spans.findIndex((span) => span.name === name)] ?? 0;
  const mean = (number, words) => (number === MEAN ? `mean of the ${words}s` : `${words} ${number}`);
  const kinds = {
    raw: `Attention, ${mean(wanted.layer, "layer")}, ${mean(wanted.head, "head")}`,
    rollout: "Attention rolled out through all layers",
    relevancy: "Gradient-weighted relevancy",
  };
  const what = `${kinds[wanted.method]}, of ${data.name(wanted.token)}.`;
  const whole = wanted.method === "raw" ? "attention" : wanted.method;
  const mass = `${percent(share("image"))} of this token’s ${whole} is on the image${unseen(data, found.values, share("image"))}`;
  const regions = data.regions
    .filter(({ number }) => data.spans.some(({ name }) => name === `region${number}`)) // only a GPT4RoI's have tokens
    .map(({ number }) => `${percent(share(`region${number}`))} on the token of region ${number}`);
  const lies = beside ? "on the padding beside the image" : inside.length ? `inside ${inside.join(" and ")}` : "outside every region";
  const where = `The strongest cell is in row ${row + 1}, column ${column + 1} of ${data.grid === data.columns ? data.grid : `${data.grid} × ${data.columns}`}, ${lies}: ${percent(value)}.`;
  return { what, mass, all: [what, `${[mass, ...regions].join(", ")}.`, where].join(" ") };
}

/** In words, the part of what is on the image that its map does not show: beside the image, or without a place. */
function unseen(data, values, share) {
  const [x1, y1, x2, y2] = data.frame;
  let [all, beside] = [0, 0];
  values.forEach((value, cell) => {
    const x = x1 + (((cell % data.columns) + 0.5) / data.columns) * (x2 - x1);
    const y = y1 + ((Math.floor(cell / data.columns) + 0.5) / data.grid) * (y2 - y1);
    all += value;
    if (x < 0 || y < 0 || x >= data.size[0] || y >= data.size[1]) beside += value;
  });
  const parts = [];
  if (beside > 0) parts.push(`${percent(beside)} on the padding beside it`);
  if (share - all > 5e-4) parts.push(`${percent(share - all)} without a place in it`);
  return parts.length ? ` (${parts.join(", ")})` : "";
}

function makeControls(model, layers, heads, methods, talk) {
  const every = [["raw", "raw attention"], ["relevancy", "relevancy (gradients)"], ["rollout", "rollout"]];
  const kinds = every.filter(([name]) => methods.includes(name));
  const method = choices("method", "Kind of map", kinds, (value) => talk.set({ method: value }));
  const layer = node("input", { type: "range", min: 0, max: layers.length, step: 1, ariaLabel: "Layer" });
  layer.dataset.choice = "layer";
  layer.addEventListener("input", () => talk.set({ layer: layer.value === "0" ? MEAN : layers[layer.value - 1] }));
  const layerWords = node("output");
  const headNames = [[MEAN, "mean of heads"], ...heads.map((head) => [head, `head ${head}`])];
  const head = choices("head", "Head", headNames, (value) => talk.set({ head: Number(value) }));
  const scales = [["absolute", "absolute scale"], ["relative", "relative scale"]];
  const scale = choices("scale", "Colour scale", scales, (value) => talk.set({ scale: value }));
  const check = (name, text, title) => {
    const field = node("input", { type: "checkbox" });
    field.dataset.choice = name;
    field.addEventListener("change", () => talk.set({ [name]: field.checked }));
    return [field, node("label", { title }, field, ` ${text}`)];
  };
  const [sinks, sinksLabel] = check("hide_sinks", "hide sinks", "Leave out tokens that attract attention whatever their content");
  sinksLabel.hidden = methods.length === 1;
  const [compare, compareLabel] = check("compare", "compare", "Two tokens, or two answers, side by side");
  const opacity = node("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.65, ariaLabel: "Opacity of the map" });
  opacity.addEventListener("input", () => talk.setOpacity(opacity.value));
  const exports_ = ["png", "svg", "data"].map((kind) =>
    button(`save-${kind}`, kind === "data" ? "Data" : kind.toUpperCase(), `Save what is shown as ${kind === "data" ? "JSON" : kind.toUpperCase()}`, () => talk.save(kind)),
  );
  const group = (...parts) => node("span", { className: "group" }, ...parts);
  const element = node(
    "div",
    { className: "controls" },
    method, group("layer ", layer, layerWords), head, scale, sinksLabel, compareLabel, group("opacity ", opacity), group(...exports_),
  );
  const show = () => {
    const raw = model.get("method") === "raw";
    method.value = model.get("method");
    layer.value = model.get("layer") === MEAN ? 0 : layers.indexOf(model.get("layer")) + 1;
    layer.disabled = head.disabled = !raw;
    layerWords.textContent = !raw ? "all" : model.get("layer") === MEAN ? "mean" : model.get("layer");
    layer.setAttribute("aria-valuetext", layerWords.textContent);
    head.value = model.get("head");
    scale.value = model.get("scale");
    sinks.checked = model.get("hide_sinks");
    compare.checked = model.get("compare");
  };
  return [element, show, () => opacity.value];
}

function render({ model, el }) {
  const table = bytes(model.get("colors"));
  const answers = model.get("answers").map((payload) => new AnswerData(payload));
  const dataOf = (side) => answers[Math.min(side, answers.length - 1)];
  let awaited = null; // the request for maps that the kernel works on, as JSON: one at a time, since hovering is faster
  const failed = new Map(); // such a request → why
  const tested = {}; // side of an answer → the test that was requested last
  let hovered = null; // {side, token}
  let lost = false; // whether the kernel is gone

  const talk = {
    set: (changes) => {
      hovered = null;
      forgetFailures(changes);
      for (const [name, value] of Object.entries(changes)) model.set(name, value);
      model.save_changes();
    },
    hover: (side, token) => {
      hovered = token === null ? null : { side, token };
      const started = performance.now();
      showAll();
      root.dataset.redrawMs = (performance.now() - started).toFixed(2);
    },
    wanted: (side) => ({
      method: model.get("method"),
      layer: model.get("layer"),
      head: model.get("head"),
      token: hovered?.side === side ? hovered.token : model.get(side ? "second" : "token"),
    }),
    ablations: (side) => {
      const answer = Math.min(side, answers.length - 1);
      return model.get("ablations").filter((entry) => entry.side === answer && entry.how === model.get("how"));
    },
    opacity: () => opacity(),
    setOpacity: (value) => sides.forEach((side) => side.setOpacity(value)),
    save: (kind) => sides.slice(0, model.get("compare") ? 2 : 1).forEach((side) => side.save(kind)),
  };
  const sides = [0, 1].map((side) => makeSide(model, side, dataOf(side), table, talk));
  const [controls, showControls, opacity] = makeControls(
    model, answers[0].layers, answers[0].heads, answers[0].methods.filter((name) => answers.at(-1).methods.includes(name)), talk,
  );
  const note = node("p", {
    className: "hint",
    textContent:
      "Attention shows where a token was read from, not why it was chosen: "
      + "trust a map only as far as the test beside it supports it.",
  });
  const [problem, status, wordListeners] = makeWords(model);
  controls.append(status);
  const root = node("div", { className: "gpt4roi-attention" }, controls, node("div", { className: "sides" }, ...sides.map(({ root: side }) => side)), problem, note);
  // Failed requests are repeated once somebody chooses something: memory may have been short only briefly.
  const forgetFailures = (changes) => {
    failed.clear();
    if (!("how" in changes)) return;
    model.get("ablations").forEach(({ side, problem: words }) => words && delete tested[side]);
  };
  const answerOf = (side) => Math.min(side, answers.length - 1);
  const askFor = (side, wanted) => {
    const request = mapRequest(answerOf(side), wanted);
    if (lost) {
      if (!dataOf(side).look(wanted)) failed.set(request, "This map had not been computed when the kernel was restarted.");
      return;
    }
    if (!awaited && !failed.has(request) && !dataOf(side).look(wanted)) {
      awaited = request;
      model.send(JSON.parse(request));
    }
    // The tests made at opening do not include the model's new answer.
    const done = talk.ablations(side).filter(({ generated }) => generated).length;
    const how = model.get("how");
    if (done < dataOf(side).regions.length && tested[answerOf(side)] !== how) {
      tested[answerOf(side)] = how;
      model.send({ type: "ablate", side: answerOf(side), how });
    }
  };
  const showAll = () => {
    const shown = model.get("compare") ? [0, 1] : [0];
    const wanted = shown.map((side) => talk.wanted(side));
    shown.forEach((side) => askFor(side, wanted[side]));
    const hide = model.get("hide_sinks");
    const high = Math.max(...shown.map((side) => dataOf(side).largest(wanted[side], hide)));
    sides.forEach(({ root: element }, side) => (element.hidden = !shown.includes(side)));
    root.classList.toggle("two", shown.length > 1);
    shown.forEach((side) => {
      const problemWords = failed.get(mapRequest(answerOf(side), wanted[side]));
      const at = hovered?.side === side ? hovered.token : null;
      sides[side].show({ wanted: wanted[side], hovered: at, chosen: model.get(side ? "second" : "token"), high, problemWords });
    });
    showControls();
  };
  const receive = (content, buffers) => {
    if (content.type === "map") {
      const { spans, on_sinks, total } = content;
      dataOf(content.side).keep(content, floats(buffers[0]), spans ? { spans, on_sinks, total } : null);
    } else if (content.type === "failed") {
      failed.set(mapRequest(content.side, content), content.problem);
    } else return;
    awaited = null;
    showAll();
  };
  const stopWaiting = () => model.get("problem") && (awaited = null); // perhaps for maps that will not come
  const names = ["token", "second", "compare", "layer", "head", "method", "scale", "hide_sinks", "span", "how", "ablations"];
  const unmount = mount(model, el, root, [
    ...names.map((name) => [`change:${name}`, showAll]),
    ...Object.entries(wordListeners), ["change:problem", stopWaiting], ["msg:custom", receive],
  ]);
  // What has come stays to be looked at and saved; the kernel computes no more.
  const unwatch = tellLost(model, root, "[data-choice='how']", () => {
    lost = true;
    for (const kind of controls.querySelectorAll("[data-choice='method'] option")) {
      kind.disabled = ![METHOD_SENT, model.get("method")].includes(kind.value);
    }
    showAll();
  });
  talk.setOpacity(opacity());
  showAll();
  root.dataset.ready = "true";
  const leave = arrive(root, "Where the answer looked");
  return () => {
    leave();
    unwatch();
    unmount();
    sides.forEach(({ end }) => end());
  };
}

/** side: of the answer. */
function mapRequest(side, wanted) {
  return JSON.stringify({ type: "map", side, ...plain(wanted) });
}

/** The content of a request: parts that its kind of map does not depend on are left out. */
function plain({ method, layer, head, token }) {
  if (method === "raw") return { method, layer, head, token: MEAN };
  return method === "rollout" ? { method, layer: MEAN, head: MEAN, token: MEAN } : { method, layer: MEAN, head: MEAN, token };
}

export default { render };
