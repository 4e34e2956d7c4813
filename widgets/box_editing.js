// Corrects the box widget's input: it gets events of a mouse that never leaves the image, never loses a release and
// never selects text, whatever the real mouse, a finger or a pen does. Their own events are intercepted and replaced.

const LEFT_BUTTON = 0;
const MIDDLE_BUTTON = 1;
const LEFT_HELD = 1; // of `event.buttons`
const MIDDLE_HELD = 4;
const DRAG_PIXELS = 4; // on the screen: a shorter movement counts as a click
const BOX_KEYS = ["Delete", "Escape"]; // that the box widget gets
const SETTLED_MS = 200; // twice the time that the box widget takes to fade a box

/** Sends the box widget an event of a mouse at a place inside the image. */
function relay(type, target, { clientX, clientY }) {
  const frame = target.closest("svg").getBoundingClientRect();
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  target.dispatchEvent(
    new MouseEvent(type, {
      bubbles: true,
      cancelable: true,
      button: LEFT_BUTTON,
      clientX: clamp(clientX, frame.left, frame.right),
      clientY: clamp(clientY, frame.top, frame.bottom),
    }),
  );
}

/**
 * Passes the kernel's boxes on to the box widget only while they are `current`: otherwise a box that is being drawn
 * would be interrupted, and one that the kernel does not know yet would vanish; the kernel sends them again after every
 * release. And not in quick succession: the box widget fades boxes in and out, and hangs for good if one returns while
 * it fades. Returns a function that undoes this.
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

/** Corrects the input of the box widget in `canvas`; returns a function that undoes this. */
function attend(canvas, model, zoom) {
  const ends = new AbortController();
  const on = (target, type, listener) =>
    target.addEventListener(type, listener, { capture: true, signal: ends.signal, passive: false });
  const viewport = canvas.querySelector(".wrapper");
  let press = null; // { svg, target, clientX, clientY, moved, begun }: the button or a finger is down
  let released = 0; // when the kernel was told about the last release
  let boxes = null; // the box widget's model, a moment later
  let unshield = () => {};
  let panned = null; // where the mouse was at the last movement with the middle button
  model.widget_manager.get_model(model.get("box_widget").replace("IPY_MODEL_", "")).then((found) => {
    if (ends.signal.aborted) return;
    boxes = found;
    boxes.on("change:image_url", zoom.reset);
    unshield = shield(boxes, () => !press?.begun && model.get("heard") >= released);
  });
  // After the box widget's own message, and with its boxes, since that message may wait for the answer to another one.
  const sendReleased = (drawn = false) => {
    released = Date.now();
    const message = { type: "released", at: released, drawn };
    setTimeout(() => model.send(boxes ? { ...message, boxes: boxes.get("bboxes") } : message));
  };

  /** A press takes effect at once on an existing box, or with the first movement elsewhere: a click draws nothing. */
  const begin = () => {
    press.begun = true;
    press.before = boxes?.get("bboxes");
    model.send({ type: "pressed" });
    relay("mousedown", press.target, press);
  };
  const start = (event) => {
    finish(event); // a release was lost, for instance in another window
    const { clientX, clientY } = event;
    const svg = viewport.querySelector(".image svg");
    if (!svg) return;
    const fixed = event.target.closest("g.gpt4roi-asked");
    if (fixed) {
      model.send({ type: "locked", region: Number(fixed.dataset.region.replace("region", "")) });
      return;
    }
    const onTop = event.shiftKey || !svg.contains(event.target); // draws, also within a box
    press = { svg, target: onTop ? svg : event.target, clientX, clientY, moved: false };
    if (press.target !== svg) begin();
  };
  const move = (event) => {
    if (!press) return;
    press.moved ||= Math.hypot(event.clientX - press.clientX, event.clientY - press.clientY) >= DRAG_PIXELS;
    if (!press.moved) return;
    if (!press.begun) begin();
    relay("mousemove", press.svg, event);
  };
  const finish = (event) => {
    const { begun, moved, svg, target } = press ?? {};
    if (begun) {
      if (moved && event) relay("mousemove", svg, event);
      relay("mouseup", svg, event ?? press);
    }
    press = null;
    if (begun) sendReleased(moved && target === svg);
  };
  /** Cancels the drawing or moving in progress. */
  const cancel = () => {
    const before = press?.before;
    if (press?.begun) relay("mouseup", press.svg, press);
    const begun = press?.begun;
    press = null;
    if (!begun) return;
    if (before) boxes.set("bboxes", before);
    sendReleased();
  };

  /** Whether an event belongs to the image, or to the narrow edge around it, where drawing can also begin. */
  const concerns = (event) => {
    if (!viewport.contains(event.target)) return false;
    const onBar = event.target === viewport && viewport.classList.contains("gpt4roi-zoomed");
    return !onBar; // of the viewport
  };
  on(canvas, "mousedown", (event) => {
    if (!event.isTrusted || !concerns(event)) return;
    if (event.button === MIDDLE_BUTTON) {
      event.preventDefault(); // no automatic scrolling
      panned = event;
    }
    if (event.button !== LEFT_BUTTON) return;
    // No selection of text and no dragging of the image: after either, mouse events would not arrive. A selection
    // elsewhere is removed, as with every press.
    event.preventDefault();
    event.stopImmediatePropagation();
    document.getSelection()?.removeAllRanges();
    viewport.focus({ preventScroll: true });
    start(event);
  });
  on(window, "mousedown", (event) => event.isTrusted && !concerns(event) && finish()); // that one lost its release
  on(canvas, "dragstart", (event) => event.preventDefault());
  on(window, "mousemove", (event) => {
    if (!event.isTrusted) return;
    if (panned && event.buttons & MIDDLE_HELD) {
      zoom.pan(panned.clientX - event.clientX, panned.clientY - event.clientY);
      panned = event;
    }
    if (!press || press.finger) return;
    event.stopImmediatePropagation();
    if (event.buttons & LEFT_HELD) move(event);
    else finish();
  });
  on(window, "mouseup", (event) => {
    if (!event.isTrusted) return;
    if (event.button === MIDDLE_BUTTON) panned = null;
    if (event.button !== LEFT_BUTTON) return;
    if (concerns(event)) event.stopImmediatePropagation();
    if (press && !press.finger) finish(event);
  });
  on(window, "blur", (event) => event.target === window && finish()); // an element's blur event arrives here, too

  // Fingers and pens: one draws, two zoom and pan.
  const fingers = new Map();
  const spread = () => {
    const [one, other] = [...fingers.values()];
    return {
      distance: Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY),
      clientX: (one.clientX + other.clientX) / 2,
      clientY: (one.clientY + other.clientY) / 2,
    };
  };
  let pinch = null;
  on(canvas, "pointerdown", (event) => {
    if (event.pointerType === "mouse" || !concerns(event)) return;
    event.preventDefault(); // no additional mouse events from the browser
    fingers.set(event.pointerId, event);
    if (fingers.size === 1) {
      start(event);
      if (press) press.finger = true;
    } else if (fingers.size === 2) {
      cancel();
      pinch = spread();
    }
  });
  on(window, "pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, event);
    if (fingers.size === 1) move(event);
    if (!pinch || fingers.size !== 2) return;
    const now = spread();
    zoom.by(now.distance / Math.max(pinch.distance, 1), now, pinch);
    pinch = now;
  });
  for (const type of ["pointerup", "pointercancel"]) {
    on(window, type, (event) => {
      if (!fingers.delete(event.pointerId)) return;
      pinch = null;
      finish(event);
    });
  }

  // The focused box widget swallows every key, and letters move its box: a question that is typed here, without a click
  // on the line, would change what was drawn. It gets only the keys for a selected box; the page keeps all others.
  on(canvas, "keydown", (event) => {
    const command = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    if (command && event.key.toLowerCase() === "z" && event.target.localName !== "input") {
      event.preventDefault();
      event.stopImmediatePropagation(); // the notebook would undo a change of its cells
      model.send({ type: "undo" });
      return;
    }
    if (!viewport.contains(event.target)) return;
    if (event.key === "Escape") cancel();
    if (BOX_KEYS.includes(event.key)) return;
    event.stopImmediatePropagation();
    passSave(canvas, event);
    const modified = event.ctrlKey || event.metaKey || event.altKey;
    if (!modified && zoom.press(event.key)) event.preventDefault();
  });
  viewport.setAttribute("role", "application");
  viewport.ariaLabel =
    "The image. Draw a box with the mouse, within another one with Shift, or add a region by numbers below. " +
    "Plus, minus and 0 zoom, arrow keys move, Control Z takes back a change.";
  model.send({ type: "released" }); // in case a page was closed while the mouse was down

  return () => {
    ends.abort();
    unshield();
    boxes?.off("change:image_url", zoom.reset);
  };
}
