// Parts that several widgets share. Put in front of their modules: anywidget takes modules of one file only.

function node(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function button(name, text, title, click) {
  const element = node("button", { type: "button", textContent: text, title });
  element.dataset.action = name;
  element.addEventListener("click", click);
  return element;
}

/** Two elements with texts about what went wrong and what is going on, and the listeners that update them. */
function makeWords(model) {
  const problem = node("div", { className: "problem", role: "alert" });
  const status = node("div", { className: "status", role: "status" });
  const show = () => {
    problem.hidden = !model.get("problem");
    problem.textContent = model.get("problem");
    // What a click asked to open does not come, and what a cell opens later must not scroll the page.
    if (model.get("problem")) widgetsAround(problem).forEach((widget) => delete widget.dataset.opening);
    const words = [model.get("busy"), model.get("notice")].filter(Boolean).join(" ");
    status.hidden = !words;
    status.textContent = words;
    status.classList.toggle("busy", Boolean(model.get("busy")));
  };
  show();
  return [problem, status, { "change:problem": show, "change:busy": show, "change:notice": show }];
}

/** The prefix of the names of buttons that open an inspector. */
const OPENS = "[data-action^='inspect']";

/** The widgets that contain an element, inner ones first: a chat, a failure browser. */
function widgetsAround(element) {
  return [".gpt4roi-chat", ".gpt4roi-browser"].map((name) => element.closest(name)).filter(Boolean);
}

/** Scrolls to an inspector that a click has opened: it may be below what the window shows.
 *
 * One that a cell has opened stays where it is: otherwise running all cells would scroll the page.
 * name: for people who hear the page. Returns a function that ends the wait for the page.
 */
function arrive(root, name) {
  Object.assign(root, { tabIndex: -1, role: "region", ariaLabel: name });
  const said = node("div", { className: "gpt4roi-heard", role: "status" });
  root.append(said);
  // The view is in the page a moment after it was made.
  const watch = new ResizeObserver(() => {
    if (!root.isConnected || !root.clientHeight) return;
    watch.disconnect();
    const asked = widgetsAround(root).filter((widget) => widget.dataset.opening);
    if (!asked.length) return;
    asked.forEach((widget) => delete widget.dataset.opening);
    (root.closest(".gpt4roi-inspections") ?? root).scrollIntoView({ block: "start" });
    root.focus({ preventScroll: true });
    said.textContent = `${name} is open.`;
  });
  watch.observe(root);
  return () => watch.disconnect();
}

/** Calls `lost` when a widget's kernel is restarted, dies or is shut down. Returns a function that ends this. */
function watchKernel(model, lost) {
  const hear = (_, status) => {
    if (["restarting", "autorestarting", "terminating", "dead"].includes(status)) lost();
  };
  const kernel = model.widget_manager?.kernel; // in JupyterLab and Notebook
  kernel?.statusChanged?.connect(hear);
  kernel?.disposed?.connect(lost);
  model.on("comm_live_update", lost); // during a page's life, a connection can only be lost
  return () => {
    kernel?.statusChanged?.disconnect(hear);
    kernel?.disposed?.disconnect(lost);
    model.off("comm_live_update", lost);
  };
}

const LOST = "The kernel was restarted: run this cell again, after those above it.";

/**
 * Says at the top of a widget's page when its kernel is gone, and disables there what needs one.
 *
 * needing: selector of fields and buttons. Inside a chat nothing is said: the chat speaks for all that it contains.
 * then: called at that moment; may return more to say. Returns a function that ends the watch.
 */
function tellLost(model, root, needing, then = () => "") {
  const words = node("div", { className: "gpt4roi-gone", role: "alert", hidden: true });
  root.prepend(words);
  return watchKernel(model, () => {
    if (!words.hidden || root.closest(".gpt4roi-chat")) return;
    words.hidden = false;
    for (const part of root.querySelectorAll(needing)) part.disabled = true;
    for (const status of root.querySelectorAll(".status")) status.hidden = true; // of work that will not end
    words.textContent = [LOST, then()].filter(Boolean).join(" ");
  });
}

/**
 * Wraps a function that draws part of a page anew, or disables it for a while: a button that had the focus gets it back.
 *
 * Otherwise whoever presses a key again speaks to the notebook. The button is known by its `data-` attributes.
 */
function keepFocus(root, draw) {
  let held = "";
  return () => {
    const now = document.activeElement;
    if (now !== document.body) {
      const known = [...now.attributes].filter(({ name }) => name.startsWith("data-"));
      held = root.contains(now) && known.map(({ name, value }) => `[${name}=${CSS.escape(value)}]`).join("");
    }
    draw();
    if (held && document.activeElement === document.body) root.querySelector(`${held}:enabled`)?.focus({ preventScroll: true });
  };
}

/** How a region is called on the image and in the conversation: its number, and the name that the user gave. */
function regionLabel(number, name) {
  return name ? `region ${number} · ${name}` : `region ${number}`;
}

/** Sends JupyterLab's "save", pressed inside `root`, to the notebook around it. */
function passSave(root, event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || event.key.toLowerCase() !== "s") return;
  event.preventDefault(); // the browser would save the page
  const { key, code, keyCode, ctrlKey, metaKey, shiftKey } = event;
  const again = { key, code, keyCode, ctrlKey, metaKey, shiftKey, bubbles: true, cancelable: true };
  root.parentElement?.dispatchEvent(new KeyboardEvent("keydown", again));
}

/** Keeps JupyterLab's one-letter shortcuts away from a widget, but lets its "save" through. */
function keepKeys(root) {
  root.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (event) => {
    event.stopPropagation();
    passSave(root, event);
  });
}

/** Puts a widget's page into the notebook, with [event, listener] of the model; returns a function that removes them. */
function mount(model, el, root, listeners) {
  keepKeys(root);
  root.addEventListener("click", (event) => {
    if (event.target.closest?.(OPENS)) widgetsAround(root).forEach((widget) => (widget.dataset.opening = "true"));
  });
  el.append(root);
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}
