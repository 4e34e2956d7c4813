// The regions as numbers below the image, and manners for the box widget above it. The box widget is found by its
// place in the page: both are children of one `.gpt4roi-canvas`.

const PRESS_BUTTON = 0;
const DRAG_PIXELS = 2; // on the screen: less is a click
const SETTLED_MS = 200; // twice what the box widget takes to fade a box

// ------------------------------------------------------------------------------------------- the table of numbers

function numberField(name, value, limit, disabled, change) {
  const input = node("input", { type: "number", min: 0, max: limit, step: 1, value, disabled });
  input.dataset.edge = name;
  input.addEventListener("change", change);
  return node("label", {}, `${name} `, input);
}

function regionRow(model, region) {
  const chip = node("span", { className: "chip", textContent: `region ${region.number}` });
  chip.style.background = region.color;
  const limits = [model.get("width"), model.get("height")];
  const names = ["x1", "y1", "x2", "y2"];
  const row = node("div", { className: "row", role: "group", ariaLabel: `region ${region.number}, in pixels` }, chip);
  const send = () => {
    const box = [...row.querySelectorAll("input")].map((input) => input.valueAsNumber);
    if (box.every(Number.isFinite)) model.send({ type: "box", key: region.key, box });
  };
  names.forEach((name, i) => row.append(numberField(name, region.box[i], limits[i % 2], region.asked, send)));
  if (region.asked) {
    row.append(node("span", { className: "fixed", textContent: "fixed", title: "It has been asked about" }));
  } else {
    const remove = node("button", { type: "button", textContent: "Remove", ariaLabel: `Remove region ${region.number}` });
    remove.addEventListener("click", () => model.send({ type: "remove", key: region.key }));
    row.append(remove);
  }
  if (model.get("inspectable")) {
    const look = node("button", { type: "button", textContent: "Look inside", title: "What the model makes of this region" });
    look.ariaLabel = `Look inside region ${region.number}`;
    look.dataset.action = "inspect";
    look.addEventListener("click", () => model.send({ type: "inspect", key: region.key }));
    row.append(look);
  }
  row.dataset.region = region.number;
  return row;
}

// ------------------------------------------------------------------------------------- manners for the box widget

/** Passes a mouse event on to the box widget, at a place inside the image. */
function relay(type, svg, event) {
  const frame = svg.getBoundingClientRect();
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  svg.dispatchEvent(
    new MouseEvent(type, {
      bubbles: true,
      cancelable: true,
      button: PRESS_BUTTON,
      clientX: clamp(event.clientX, frame.left, frame.right),
      clientY: clamp(event.clientY, frame.top, frame.bottom),
    }),
  );
}

/** Marks each drawn box as asked about or new, so that the style sheet can tell them apart. */
function mark(canvas, model) {
  const regions = new Map(model.get("regions").map((region) => [`region${region.number}`, region]));
  for (const group of canvas.querySelectorAll(".image svg > g")) {
    const label = group.querySelector("text")?.textContent;
    const asked = regions.get(label)?.asked === true;
    group.classList.toggle("gpt4roi-asked", asked);
    group.classList.toggle("gpt4roi-new", !asked);
    group.dataset.region = label ?? "";
    const color = group.querySelector("rect")?.style.stroke; // as the box widget chose it
    group.style.setProperty("--gpt4roi-color", color ?? "");
  }
}

/**
 * What the kernel says of the boxes reaches the box widget only while it is `current`: a box that is being drawn would
 * be torn out of the hand, one that the kernel has not heard of would vanish, and the kernel says it again after every
 * release. And not in quick succession: the box widget fades boxes in and out, and stands still for good when one
 * returns while it fades. Returns how to take this away again.
 */
function shield(boxes, current) {
  const setState = boxes.set_state;
  let timer = null;
  boxes.set_state = function (state) {
    if (!("bboxes" in state)) return setState.call(this, state);
    const { bboxes, ...rest } = state;
    clearTimeout(timer);
    timer = setTimeout(() => current() && setState.call(this, { bboxes }), SETTLED_MS);
    return setState.call(this, rest);
  };
  return () => {
    boxes.set_state = setState;
  };
}

/** Gives the box widget in `canvas` its manners; returns how to take them away again. */
function attend(canvas, model) {
  const ends = new AbortController();
  const on = (target, type, listener) =>
    target.addEventListener(type, listener, { capture: true, signal: ends.signal, passive: false });
  const svgOf = (event) => event.target?.closest?.(".image svg");
  let held = null; // the svg on which the mouse went down, while it is down
  let released = 0; // when that was told to the kernel
  let pressed = null; // where the mouse went down beside all boxes, until it moves: a plain click draws no 0×0 box
  let boxes = null; // the box widget's model, a moment later
  let unshield = () => {};
  model.widget_manager.get_model(model.get("box_widget").replace("IPY_MODEL_", "")).then((found) => {
    if (ends.signal.aborted) return;
    boxes = found;
    unshield = shield(boxes, () => held === null && model.get("heard") >= released);
  });
  // After the box widget's own message; and with what it holds, since its message may wait for an answer to one before.
  const sendReleased = () => {
    released = Date.now();
    const message = { type: "released", at: released };
    setTimeout(() => model.send(boxes ? { ...message, boxes: boxes.get("bboxes") } : message));
  };

  on(canvas, "mousedown", (event) => {
    const svg = svgOf(event);
    if (!svg || event.button !== PRESS_BUTTON) return;
    if (held) relay("mouseup", held, event); // the release was lost, for instance in another window
    if (event.isTrusted && event.target === svg) {
      event.stopImmediatePropagation();
      pressed = { svg, clientX: event.clientX, clientY: event.clientY };
      return;
    }
    held = svg;
    model.send({ type: "pressed" });
  });
  // The box widget hears the mouse only above the image. Outside of it, the box follows along the edge, and the
  // release ends it; or it would stick to the mouse.
  on(window, "mousemove", (event) => {
    if (pressed && event.isTrusted) {
      const { svg, clientX, clientY } = pressed;
      if (Math.hypot(event.clientX - clientX, event.clientY - clientY) < DRAG_PIXELS) return;
      pressed = null;
      relay("mousedown", svg, { clientX, clientY });
    }
    if (!held || !event.isTrusted || svgOf(event) === held) return;
    relay("mousemove", held, event);
  });
  const release = (event) => {
    pressed = null;
    if (!held || event.button !== PRESS_BUTTON) return;
    const svg = held;
    held = null;
    if (svgOf(event) !== svg) {
      relay("mousemove", svg, event);
      relay("mouseup", svg, event);
    }
    sendReleased();
  };
  on(window, "mouseup", (event) => event.isTrusted && release(event));
  on(window, "blur", (event) => {
    if (event.target !== window) return; // an element's loss of focus passes by here, too
    pressed = null;
    if (!held) return;
    const frame = held.getBoundingClientRect();
    relay("mouseup", held, { clientX: frame.left, clientY: frame.top });
    held = null;
    sendReleased();
  });

  // Fingers and pens: the box widget knows the mouse only.
  for (const [touch, mouse] of [["pointerdown", "mousedown"], ["pointermove", "mousemove"], ["pointerup", "mouseup"],
    ["pointercancel", "mouseup"]]) {
    on(canvas, touch, (event) => {
      const svg = svgOf(event);
      if (event.pointerType === "mouse" || !svg) return;
      event.preventDefault(); // no mouse events of the browser's own on top
      if (mouse === "mousedown") {
        event.target.setPointerCapture?.(event.pointerId);
        relay("mousedown", svg, event);
      } else if (mouse === "mousemove") {
        relay("mousemove", svg, event);
      } else {
        relay("mouseup", svg, event);
        held = null;
        sendReleased();
      }
    });
  }

  // The focused box widget swallows every key. Tab must lead on, and the notebook keeps its own shortcuts.
  on(canvas, "keydown", (event) => {
    if (!event.target.closest?.(".wrapper")) return;
    if (event.key === "Tab" || event.ctrlKey || event.metaKey || event.altKey) event.stopImmediatePropagation();
  });
  // What the picture is, for a screen reader.
  const describe = () => {
    mark(canvas, model);
    canvas.querySelector(".wrapper")?.setAttribute("aria-label", "The image. Draw a box with the mouse, or add a region by numbers below.");
    canvas.querySelector(".wrapper")?.setAttribute("role", "application");
  };
  const watch = new MutationObserver(describe);
  watch.observe(canvas, { childList: true, characterData: true, subtree: true });
  model.on("change:regions", describe);
  describe();
  model.send({ type: "released" }); // a page that was closed while the mouse was down never said so

  return () => {
    ends.abort();
    unshield();
    watch.disconnect();
    model.off("change:regions", describe);
  };
}

// ------------------------------------------------------------------------------------------------------- the view

function render({ model, el }) {
  const notice = node("div", { className: "notice", role: "status" });
  const rows = node("div", { className: "rows" });
  const add = node("button", { type: "button", className: "add", textContent: "Add a region" });
  add.addEventListener("click", () => model.send({ type: "add" }));
  const details = node("details", {}, node("summary", { textContent: "Regions as numbers" }), rows, add);
  const root = node("div", { className: "gpt4roi-table" }, notice, details);

  const showNotice = () => {
    notice.textContent = model.get("notice") || "Draw a box around what you want to ask about.";
  };
  const showRows = () => {
    const focused = rows.contains(document.activeElement) ? document.activeElement : null;
    const at = focused && [focused.closest(".row")?.dataset.region, focused.dataset.edge];
    rows.replaceChildren(...model.get("regions").map((region) => regionRow(model, region)));
    if (at?.[1]) rows.querySelector(`[data-region="${at[0]}"] [data-edge="${at[1]}"]`)?.focus();
  };
  const unmount = mount(model, el, root, [
    ["change:notice", showNotice],
    ["change:regions", showRows],
    ["msg:custom", showRows], // numbers that were refused are put back
  ]);
  showNotice();
  showRows();

  // The view is not in the page yet: its parent is known a moment later, or seconds later on a busy machine.
  let leave = () => {};
  let handle = requestAnimationFrame(function find() {
    const canvas = el.closest(".gpt4roi-canvas");
    if (canvas) leave = attend(canvas, model);
    else handle = requestAnimationFrame(find);
  });
  return () => {
    cancelAnimationFrame(handle);
    leave();
    unmount();
  };
}

export default { render };
