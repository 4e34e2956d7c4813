// The region inspector's page: small multiples in the frames of the image and of the box, bars, similarity, control.

const RGB = "three components";

function makeMultiples(model, talk) {
  const list = node("div", { className: "multiples" });
  const show = (rows, inBox) => {
    list.replaceChildren(...rows.map((row, stage) => rowView(model, row, inBox ? null : stage, talk)));
  };
  return [list, show];
}

function rowView(model, row, stage, talk) {
  const maps = node("div", { className: "row" });
  const table = tableOf(model, row.coloring);
  if (stage === null) maps.append(cropView(model));
  row.maps.forEach((map) => maps.append(mapView(model, row, map, stage, table, talk)));
  const scale = row.coloring === RGB ? "" : `, ${short(row.low)} … ${short(row.high)}`;
  return node("div", {}, node("div", { className: "hint", textContent: `${row.name} — ${row.what}${scale}` }), maps);
}

function tableOf(model, coloring) {
  return bytes(model.get(coloring === "norm" ? "shares" : "signed"));
}

function short(value) {
  return Number(value.toPrecision(2)).toString();
}

function mapView(model, row, map, stage, table, talk) {
  const values = floats(map.values);
  const size = model.get("size");
  const view = makeStage(talk.url, size);
  view.image.hidden = stage === null;
  const draw = () => {
    if (row.coloring === RGB) paintColors(view.canvas, values, map.columns);
    else paint(view.canvas, values, map.columns, row.low, row.high, table);
  };
  draw();
  view.canvas.ariaLabel = `${map.label}, ${row.name}, ${row.what}`;
  view.canvas.title = `${map.label}: ${map.columns} × ${map.columns}`;
  Object.assign(view.canvas.dataset, { of: map.of, level: map.level });
  if (stage === null) {
    const { box } = model.get("regions").find(({ number }) => number === model.get("region"));
    view.element.style.aspectRatio = `${box[2] - box[0]} / ${box[3] - box[1]}`;
  } else {
    drawBoxes(view.boxes, size, model.get("regions"));
    talk.maps.push({ stage, level: map.level, view, draw });
    const point = (event) => {
      const frame = view.canvas.getBoundingClientRect();
      const at = (offset, extent) => Math.min(Math.max(Math.floor((map.columns * offset) / extent), 0), map.columns - 1);
      const [row_, column] = [at(event.clientY - frame.top, frame.height), at(event.clientX - frame.left, frame.width)];
      talk.hover({ stage, level: map.level, row: row_, column });
    };
    // A finger taps, and what it chose stays: after a tap, browsers send events of a mouse that comes and leaves.
    view.canvas.addEventListener("pointermove", (event) => event.pointerType !== "touch" && point(event));
    view.canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && talk.hover(null));
    view.canvas.addEventListener("click", point);
  }
  return node("figure", {}, view.element, node("figcaption", { textContent: map.label }));
}

/** The pixels under the box, for comparison. */
function cropView(model) {
  const { box } = model.get("regions").find(({ number }) => number === model.get("region"));
  const size = model.get("size");
  const canvas = node("canvas", { role: "img", ariaLabel: "The pixels under the box" });
  const frame = node("div", { className: "stage" }, canvas);
  frame.style.aspectRatio = `${box[2] - box[0]} / ${box[3] - box[1]}`;
  createImageBitmap(new Blob([model.get("image")])).then((image) => {
    const scale = image.width / size[0];
    const [x, y, w, h] = [box[0], box[1], box[2] - box[0], box[3] - box[1]].map((value) => value * scale);
    Object.assign(canvas, { width: Math.max(Math.round(w), 1), height: Math.max(Math.round(h), 1) });
    canvas.getContext("2d").drawImage(image, x, y, w, h, 0, 0, canvas.width, canvas.height);
  });
  return node("figure", {}, frame, node("figcaption", { textContent: "pixels" }));
}

function barRow(name, share, color, title) {
  const fill = node("span", { className: share < 0 ? "fill negative" : "fill" });
  fill.style.width = `${50 * Math.min(Math.abs(share), 1)}%`;
  if (color) fill.style.background = color;
  const value = node("span", { className: "value", textContent: title ?? `${(100 * share).toFixed(1)} %` });
  const row = node("div", { className: "bar" }, node("span", { className: "name", textContent: name }), node("span", { className: "track" }, fill), value);
  row.dataset.part = name;
  return row;
}

function render({ model, el }) {
  const url = URL.createObjectURL(new Blob([model.get("image")]));
  let [waiting, next] = [false, null];
  const talk = { url, maps: [], hover: null };
  const send = (place) => {
    waiting = true;
    model.send({ type: "similarity", ...place });
  };
  // One request at a time, then the latest of those that came meanwhile: pointing is faster than the kernel.
  let last = "";
  let lost = false; // whether the kernel is gone
  talk.hover = (place) => {
    if (lost || JSON.stringify(place) === last) return;
    last = JSON.stringify(place);
    if (place === null) {
      next = null;
      talk.maps.forEach(({ draw, view }) => (draw(), delete view.canvas.dataset.similarity));
      words.textContent = HINT;
    } else if (waiting) next = place;
    else send(place);
  };
  const HINT = "Point at a place in a map to see which places are similar to it.";

  const regions = node("div", { className: "chips", role: "group", ariaLabel: "Regions" });
  const coloring = choices("coloring", "How maps are coloured", model.get("colorings").map(([name, what]) => [name, what]), (name) =>
    model.send({ type: "coloring", name }),
  );
  const [problem, status, wordListeners] = makeWords(model);
  const words = node("div", { className: "hint", textContent: HINT });
  const [inImage, showImage] = makeMultiples(model, talk);
  const [inBox, showBox] = makeMultiples(model, talk);
  inBox.classList.add("box");
  const parts = node("div", { className: "bars" });
  const alike = node("div", { className: "bars" });
  const control = node("div", { className: "control" });
  const summary = node("p", { className: "summary" });
  summary.setAttribute("aria-live", "polite");
  const head = (text) => node("h4", { textContent: text });
  const inside = node(
    "div",
    { className: "inside" },
    head("What the token is made of"), parts, head("Is it the position, or what is seen there?"), control,
    head("In the frame of the box"), inBox, head("In the frame of the image"), words, inImage,
    head("How similar the regions’ tokens are"), alike,
  );
  const root = node(
    "div",
    { className: "gpt4roi-attention gpt4roi-roi" },
    node("div", { className: "controls" }, regions, coloring, status), problem, summary, inside,
  );
  const drawRegions = keepFocus(regions, () => {
    inside.hidden = regions.hidden = coloring.hidden = !model.get("regions").length;
    regions.replaceChildren(
      ...model.get("regions").map(({ number, color }) => {
        const chip = button("region", `region ${number}`, `Look inside region ${number}`, () => model.send({ type: "region", number }));
        chip.className = "chip";
        chip.style.background = color;
        chip.dataset.region = number;
        chip.ariaPressed = String(number === model.get("region"));
        return chip;
      }),
    );
  });
  const drawImage = () => {
    talk.maps = [];
    showImage(model.get("rows"), false);
  };
  const drawParts = () => {
    parts.replaceChildren(...model.get("bars").map(({ name, share }) => barRow(name, share, name === "position" ? "#c2255c" : "#12a594")));
  };
  const drawAlike = () => {
    const all = model.get("regions");
    alike.replaceChildren(...model.get("similarity").map((value, i) => all[i] && barRow(`region ${all[i].number}`, value, all[i].color, `cosine ${value.toFixed(3)}`)));
    alike.previousElementSibling.hidden = alike.hidden = all.length < 2;
  };
  const drawControl = keepFocus(control, () => {
    const said = model.get("controls").map(({ name, said: text }) => node("li", {}, node("b", { textContent: `${name}: ` }), text));
    const ask = button("control", "Ask", "Ask the model with the whole token, the position alone, and the features alone", () => model.send({ type: "control" }));
    // The model hears of this region alone, as <region1>; the reader knows it by its own number.
    const question = model.get("question").replaceAll("<region1>", `region ${model.get("region")}`);
    control.replaceChildren(node("span", { textContent: `“${question}” ` }), ask, node("ul", {}, ...said));
  });
  const drawWords = () => {
    if (model.get("problem")) waiting = false; // perhaps for an answer that will not come
    summary.textContent = model.get("summary");
    coloring.value = model.get("coloring");
  };
  const drawBoxFrame = () => {
    const known = model.get("regions").some(({ number }) => number === model.get("region"));
    showBox(known ? model.get("box_rows") : [], true);
  };
  const moveBoxes = () => talk.maps.forEach(({ view }) => drawBoxes(view.boxes, model.get("size"), model.get("regions")));
  // A move of the box changes several traits at once; the page is drawn once, in the next frame.
  const pending = new Set();
  const soon = (draw) => () => {
    if (!pending.size) requestAnimationFrame(() => (pending.forEach((each) => each()), pending.clear()));
    pending.add(draw);
  };
  const draws = {
    regions: [drawRegions, moveBoxes, drawBoxFrame, drawAlike, drawControl], region: [drawRegions, drawBoxFrame, drawControl], rows: [drawImage],
    box_rows: [drawBoxFrame], bars: [drawParts], similarity: [drawAlike], controls: [drawControl],
    problem: [drawWords], summary: [drawWords], coloring: [drawWords],
  };
  const listeners = Object.entries(draws).flatMap(([name, each]) => each.map((draw) => [`change:${name}`, soon(draw)]));
  const receive = (content, buffers) => {
    if (content.type !== "similarity") return;
    waiting = false;
    if (last !== "null" && last) {
      const found = talk.maps.find(({ stage, level }) => stage === content.stage && level === content.level);
      if (found) {
        const values = floats(buffers[0]);
        paint(found.view.canvas, values, Math.sqrt(values.length), -1, 1, bytes(model.get("signed")));
        found.view.canvas.dataset.similarity = `${content.row} ${content.column}`;
        words.textContent = `Similarity of each place to the one that you point at: cosines from −1 to 1 (row ${content.row + 1}, column ${content.column + 1}).`;
      }
    }
    const place = next;
    next = null;
    if (place) send(place);
  };
  const unmount = mount(model, el, root, [...listeners, ...Object.entries(wordListeners), ["msg:custom", receive]]);
  [drawRegions, drawImage, drawParts, drawAlike, drawControl, drawWords, drawBoxFrame].forEach((draw) => draw());
  const unwatch = tellLost(model, root, "button, select", () => {
    lost = true;
    words.textContent = "";
    const canvas = root.closest(".gpt4roi-roi-inspector")?.querySelector(".gpt4roi-canvas");
    canvas?.classList.add("gpt4roi-lost");
    if (canvas) canvas.inert = true;
  });
  root.dataset.ready = "true";
  root.addEventListener("click", (event) => event.target.closest("canvas") || talk.hover(null)); // a finger that taps elsewhere
  const leave = arrive(root, "What the region is made of");
  return () => {
    leave();
    unwatch();
    unmount();
    URL.revokeObjectURL(url);
  };
}

export default { render };
