// The controls below the image: zoom, a message to the user, and the regions as names and numbers. The box widget is
// found by its place in the page: both are children of one `.gpt4roi-canvas`.

const EDGES = ["x1", "y1", "x2", "y2"];
const MEGABYTE = 2 ** 20;

// ------------------------------------------------------------------------------------------- the table of numbers

/** A region's row. It stays in the page as long as the region exists, so that the focus stays where it is. */
function makeRow(model, key) {
  const chip = node("span", { className: "chip" });
  const name = node("input", { type: "text", className: "name", placeholder: "name", maxLength: 40 });
  name.title = "Your name for it, which questions can use";
  name.addEventListener("change", () => model.send({ type: "name", key, name: name.value }));
  // An empty field gives null.
  const send = () => model.send({ type: "box", key, box: fields.map((field) => field.valueAsNumber) });
  const fields = EDGES.map((edge, i) => {
    const field = node("input", { type: "number", min: 0, max: model.get(i % 2 ? "height" : "width"), step: 1 });
    field.dataset.edge = edge;
    field.addEventListener("change", send);
    return field;
  });
  const fixed = node("span", { className: "fixed", textContent: "fixed", title: "Already asked about" });
  const remove = node("button", { type: "button", textContent: "Remove" });
  remove.addEventListener("click", () => {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    (next?.querySelector("button") ?? row.closest("details").querySelector("button.add")).focus();
    model.send({ type: "remove", key });
  });
  const labels = fields.map((field, i) => node("label", {}, `${EDGES[i]} `, field));
  const row = node("div", { className: "row", role: "group" }, chip, name, ...labels, fixed, remove);
  const look = node("button", { type: "button", textContent: "Look inside", title: "What the model computes from it" });
  look.dataset.action = "inspect";
  look.addEventListener("click", () => model.send({ type: "inspect", key }));
  if (model.get("inspectable")) row.append(look);

  let shown = null;
  /** again: update even if the region has not changed, since a field may contain a rejected value. */
  const show = (region, again) => {
    chip.textContent = `region ${region.number}`;
    chip.style.background = region.color;
    row.dataset.region = region.number;
    row.ariaLabel = `region ${region.number}, in pixels`;
    name.ariaLabel = `Name of region ${region.number}`;
    remove.ariaLabel = `Remove region ${region.number}`;
    look.ariaLabel = `Look inside region ${region.number}`;
    if (again || region.name !== shown?.name) name.value = region.name;
    fields.forEach((field, i) => {
      if (again || region.box[i] !== shown?.box[i]) field.value = region.box[i];
      field.disabled = region.asked;
    });
    fixed.hidden = !region.asked;
    remove.hidden = region.asked;
    shown = region;
  };
  return { row, show };
}

function makeRows(model) {
  const rows = node("div", { className: "rows" });
  const known = new Map();
  const show = (again = false) => {
    const regions = model.get("regions");
    const keys = new Set(regions.map((region) => region.key));
    for (const [key, { row }] of known) {
      if (keys.has(key)) continue;
      row.remove();
      known.delete(key);
    }
    regions.forEach((region, i) => {
      if (!known.has(region.key)) known.set(region.key, makeRow(model, region.key));
      const { row, show } = known.get(region.key);
      show(region, again);
      if (rows.children[i] !== row) rows.insertBefore(row, rows.children[i] ?? null);
    });
  };
  show();
  return [rows, show];
}

// ---------------------------------------------------------------------------------------------- the row of buttons

function makeTools(model, zoomBar, say) {
  const clear = button("clear", "Clear", "Remove the regions that were not asked about", () => {
    // This button is disabled next, and would lose the focus to the notebook, with the key that takes it back.
    clear.closest(".gpt4roi-canvas")?.querySelector(".wrapper")?.focus({ preventScroll: true });
    model.send({ type: "clear" });
  });
  clear.ariaLabel = "Clear the regions that were not asked about";
  const file = node("input", { type: "file", accept: ".csv,.tsv,.txt,.json", hidden: true });
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = ""; // the same file can be chosen again
    if (!chosen) return;
    if (chosen.size > model.get("max_bytes")) {
      say(
        `${chosen.name} has ${(chosen.size / MEGABYTE).toFixed(1)} MB, more than the notebook's connection accepts. ` +
          "Keep only this image's boxes in it, or give them from Python: chat.set_boxes(boxes, names).",
      );
      return;
    }
    model.send({ type: "boxes", name: chosen.name, text: await chosen.text() });
  });
  const open = button("boxes", "Boxes from a file…", "CSV with x1, y1, x2, y2 (and name), or COCO's JSON", () => file.click());
  const show = () => {
    clear.disabled = model.get("regions").every((region) => region.asked);
  };
  show();
  return [node("div", { className: "tools" }, zoomBar, clear, open, file), show];
}

// ------------------------------------------------------------------------------------------------------- the view

function render({ model, el }) {
  let zoom = null;
  const notice = node("div", { className: "notice", role: "status" });
  const say = (words) => {
    notice.textContent = words || "Draw a box around what you want to ask about.";
  };
  const [zoomBar, showZoom] = makeZoomBar(() => zoom);
  const [tools, showTools] = makeTools(model, zoomBar, say);
  const [rows, showRows] = makeRows(model);
  const add = node("button", { type: "button", className: "add", textContent: "Add a region" });
  add.addEventListener("click", () => model.send({ type: "add" }));
  const details = node("details", {}, node("summary", { textContent: "Names and numbers of the regions" }), rows, add);
  const root = node("div", { className: "gpt4roi-table" }, tools, notice, details);

  const showNotice = () => say(model.get("notice"));
  const unmount = mount(model, el, root, [
    ["change:notice", showNotice],
    ["change:regions", () => showRows()],
    ["change:regions", showTools],
    ["msg:custom", (content) => content?.type === "refresh" && (showRows(true), showNotice())],
  ]);
  showNotice();

  // The view is not in the page yet: its parent and the box widget come a moment later, or seconds later on a busy
  // machine.
  const leaves = [];
  let handle = requestAnimationFrame(function find() {
    const canvas = el.closest(".gpt4roi-canvas");
    if (!canvas?.querySelector(".wrapper .image")) {
      handle = requestAnimationFrame(find);
      return;
    }
    zoom = makeZoom(canvas, model, showZoom);
    leaves.push(attend(canvas, model, zoom), keepLabels(canvas, model), zoom.end);
  });
  return () => {
    cancelAnimationFrame(handle);
    leaves.forEach((leave) => leave());
    unmount();
  };
}

export default { render };
