// The FiftyOne App in a frame, with a way into a tab of its own.

function render({ model, el }) {
  const link = node("a", { textContent: "Open in a tab of its own ↗", target: "_blank", rel: "noopener" });
  const frame = node("iframe", { title: "FiftyOne App" });
  frame.setAttribute("allow", "clipboard-read; clipboard-write");
  const head = node("div", { className: "head" }, node("strong", { textContent: "FiftyOne App" }), link);
  const root = node("div", { className: "gpt4roi-app" }, head, frame);

  const show = () => {
    const url = model.get("url");
    root.hidden = !url;
    frame.style.height = `${model.get("height")}px`;
    if (!url) {
      frame.removeAttribute("src");
    } else if (frame.getAttribute("src") !== url) {
      frame.src = url;
      link.href = url;
    }
  };
  show();
  return mount(model, el, root, [["change:url", show], ["change:height", show]]);
}

export default { render };
