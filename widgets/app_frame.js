// The FiftyOne App in a frame, with a way into a tab of its own.

function render({ model, el }) {
  const link = Object.assign(document.createElement("a"), {
    textContent: "Open in a tab of its own ↗",
    target: "_blank",
    rel: "noopener",
  });
  const frame = Object.assign(document.createElement("iframe"), { title: "FiftyOne App" });
  frame.setAttribute("allow", "clipboard-read; clipboard-write");
  const head = document.createElement("div");
  head.className = "head";
  head.append(Object.assign(document.createElement("strong"), { textContent: "FiftyOne App" }), link);
  const root = document.createElement("div");
  root.className = "gpt4roi-app";
  root.append(head, frame);
  el.append(root);

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
  model.on("change:url", show);
  model.on("change:height", show);
  show();
  return () => {
    model.off("change:url", show);
    model.off("change:height", show);
  };
}

export default { render };
