// The FiftyOne App in a frame, with a link to a new tab.

function render({ model, el }) {
  const link = node("a", { textContent: "Open in a new tab ↗", target: "_blank", rel: "noopener" });
  const frame = node("iframe", { title: "FiftyOne App" });
  frame.setAttribute("allow", "clipboard-read; clipboard-write");
  const head = node("div", { className: "head" }, node("strong", { textContent: "FiftyOne App" }), link);
  const hint = node("p", {
    className: "hint",
    textContent:
      "On a narrow page some buttons, including the patches button, are behind the arrow at the end of the App's toolbar.",
  });
  const root = node("div", { className: "gpt4roi-app" }, head, hint, frame);

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
  const unmount = mount(model, el, root, [["change:url", show], ["change:height", show]]);
  const unwatch = watchKernel(model, () => (root.hidden = true)); // the App's server ends with its kernel
  return () => {
    unwatch();
    unmount();
  };
}

export default { render };
