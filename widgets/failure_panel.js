// Charts of counts that filter, the buttons, and the card of the loaded failure. Whatever people or models write enters
// the page as text, never as markup.

function barView({ value, total, wrong, chosen }, widest, dimension, model) {
  const share = (count) => `${widest ? (100 * count) / widest : 0}%`;
  const track = node("span", { className: "track", ariaHidden: "true" });
  const whole = node("span", { className: "whole" });
  const failed = node("span", { className: "failed" });
  whole.style.width = share(total);
  failed.style.width = share(wrong);
  track.append(whole, failed);
  const count = node("span", { className: "count", textContent: `${wrong} / ${total}` });
  const bar = node("button", { type: "button", className: "bar" }, node("span", { className: "value", textContent: value, dir: "auto" }), track, count);
  bar.title = `${value}: ${wrong} of ${total} wrong. Click to ${chosen ? "remove the filter" : "filter"}.`;
  bar.setAttribute("aria-pressed", String(chosen));
  bar.dataset.value = value;
  bar.addEventListener("click", () => model.send({ type: "toggle", dimension, value }));
  return bar;
}

function makeCharts(model) {
  const charts = node("div", { className: "charts" });
  const show = () => {
    // A redrawn chart keeps the keyboard focus where it was.
    const held = charts.contains(document.activeElement) ? document.activeElement : null;
    const place = held && [held.closest(".chart").dataset.dimension, held.dataset.value];
    charts.replaceChildren(
      ...model.get("charts").map(({ name, title, bars }) => {
        const widest = Math.max(0, ...bars.map((bar) => bar.total));
        const chart = node(
          "section",
          { className: "chart" },
          node("h4", { textContent: title }),
          ...bars.map((bar) => barView(bar, widest, name, model)),
        );
        chart.dataset.dimension = name;
        return chart;
      }),
    );
    if (place) {
      [...charts.querySelectorAll(".bar")]
        .find((bar) => bar.closest(".chart").dataset.dimension === place[0] && bar.dataset.value === place[1])
        ?.focus();
    }
  };
  show();
  return [charts, { "change:charts": show }];
}

function makeToolbar(model) {
  const send = (type) => () => model.send({ type });
  const open = button("open", "", "", send("open"));
  open.classList.add("primary");
  const load = button("load", "Load selection", "", send("load"));
  const clear = button("clear", "Clear filters", "Show all predictions again", send("clear"));
  const close = button("close", "Close the App", "Stop the App's server", send("close"));
  const toolbar = node("div", { className: "toolbar" }, open, load, clear, close);
  const show = keepFocus(toolbar, () => {
    const busy = Boolean(model.get("busy"));
    const opened = model.get("app_open");
    const filtered = model.get("filtered");
    open.textContent = opened ? "Show these in the App" : "Open the App";
    open.title = `${opened ? "Show" : "Open FiftyOne with"} the filtered predictions; without a filter, the failures`;
    load.title = opened
      ? "Load what is selected in the App into the conversation; without a selection, the filtered failures"
      : "Load the filtered failures into the conversation";
    close.hidden = !opened;
    clear.disabled = busy || !filtered;
    for (const one of [open, load, close]) one.disabled = busy;
  });
  show();
  const listeners = { "change:busy": show, "change:app_open": show, "change:filtered": show };
  return [toolbar, listeners];
}

function makeCard(model) {
  const previous = button("previous", "‹", "Previous", () => step(-1));
  const next = button("next", "›", "Next", () => step(1));
  const place = node("span", { className: "place" });
  const facts = node("dl", { className: "facts" });
  const name = node("input", { type: "text", placeholder: "What do they have in common?" });
  name.setAttribute("aria-label", "Name of the tag");
  const all = node("input", { type: "checkbox", checked: true });
  const every = node("label", {}, all, " all loaded");
  const tag = () => model.send({ type: "tag", name: name.value, all: all.checked });
  const tagButton = button("tag", "Tag", "Save the tag in the dataset", tag);
  name.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && tag());
  const inspectors = node("span", { className: "inspectors" });
  const card = node(
    "div",
    { className: "card" },
    node("div", { className: "head" }, previous, place, next, inspectors),
    facts,
    node("div", { className: "tagging" }, name, tagButton, every),
  );
  const step = (by) => model.send({ type: "show", index: model.get("current") + by });
  const show = keepFocus(card, () => {
    const loaded = model.get("loaded");
    const current = model.get("current");
    const busy = Boolean(model.get("busy"));
    const one = loaded[current];
    card.hidden = !one;
    if (!one) return;
    previous.disabled = busy || current === 0;
    next.disabled = busy || current >= loaded.length - 1;
    tagButton.disabled = busy;
    place.textContent = `${current + 1} of ${loaded.length}`;
    card.dataset.item = one.id;
    card.dataset.index = current;
    const row = (term, text, kind = "") => [
      node("dt", { textContent: term }),
      node("dd", { className: kind, dir: "auto" }, text),
    ];
    facts.replaceChildren(
      ...row("asked", one.question),
      ...row("expected", one.target),
      ...(one.answer === null ? [] : row("answered", one.answer || "(nothing)", one.wrong ? "wrong" : "")),
      ...row("details", [one.verdict, one.facts].filter(Boolean).join(" · ")),
    );
    inspectors.replaceChildren(
      ...model.get("inspectors").map(({ name, title }) => {
        const look = button(`inspect-${name}`, title, title, () => model.send({ type: "inspect", name }));
        look.disabled = busy;
        return look;
      }),
    );
  });
  show();
  return [
    card,
    { "change:loaded": show, "change:current": show, "change:inspectors": show, "change:busy": show },
  ];
}

function render({ model, el }) {
  const title = node("strong", { className: "title", dir: "auto" });
  const summary = node("span", { className: "summary", role: "status" });
  const showTitle = () => {
    title.textContent = model.get("title");
    summary.textContent = model.get("summary");
  };
  showTitle();
  const [charts, chartListeners] = makeCharts(model);
  const [toolbar, toolbarListeners] = makeToolbar(model);
  const [card, cardListeners] = makeCard(model);
  const [problem, status, wordListeners] = makeWords(model);
  const root = node(
    "div",
    { className: "gpt4roi-failures" },
    node("div", { className: "head" }, title, summary),
    charts, toolbar, problem, status, card,
  );
  const listeners = [
    { "change:title": showTitle, "change:summary": showTitle },
    chartListeners, toolbarListeners, cardListeners, wordListeners,
  ].flatMap(Object.entries);
  const unmount = mount(model, el, root, listeners);
  const unwatch = tellLost(model, root, "button, input");
  return () => {
    unwatch();
    unmount();
  };
}

export default { render };
