// What several widgets build their page of. Put in front of their modules: anywidget knows modules of one file only.

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

/** What goes wrong, and what is going on, in words: two elements and the listeners that keep them true. */
function makeWords(model) {
  const problem = node("div", { className: "problem", role: "alert" });
  const status = node("div", { className: "status", role: "status" });
  const show = () => {
    problem.hidden = !model.get("problem");
    problem.textContent = model.get("problem");
    const words = model.get("busy") || model.get("notice");
    status.hidden = !words;
    status.textContent = words;
    status.classList.toggle("busy", Boolean(model.get("busy")));
  };
  show();
  return [problem, status, { "change:problem": show, "change:busy": show, "change:notice": show }];
}

/** Puts a widget's page into the notebook. listeners: [event, listener] of the model. Returns what takes them off. */
function mount(model, el, root, listeners) {
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's one-letter shortcuts
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}
