// Another image: scenes of the generated world, or a file from the user's computer.

const MEBIBYTE = 2 ** 20;

function render({ model, el }) {
  const scenes = node("div", { className: "scenes", role: "group", ariaLabel: "Generated scenes" });
  const more = node("button", { type: "button", textContent: "More scenes" });
  more.dataset.action = "more";
  more.addEventListener("click", () => model.send({ type: "more" }));
  const close = node("button", { type: "button", textContent: "Close" });
  close.dataset.action = "close";
  close.addEventListener("click", () => {
    model.set("opened", false);
    model.save_changes();
  });
  const words = node("div", { className: "words", role: "alert" });
  const file = node("input", { type: "file", accept: "image/*" });
  const drop = node("label", { className: "drop" }, "Choose a file of yours, or drop one here ", file);
  const root = node(
    "div",
    { className: "gpt4roi-picker" },
    node("div", { className: "head" }, node("strong", { textContent: "Another image" }), more, close),
    scenes, drop, words,
  );

  const upload = async (chosen) => {
    if (!chosen) return;
    const limit = model.get("max_bytes");
    if (chosen.size > limit) {
      words.textContent =
        `${chosen.name} has ${(chosen.size / MEBIBYTE).toFixed(1)} MB; the notebook's connection takes ` +
        `${Math.floor(limit / MEBIBYTE)} MB. Open it from Python: chat.set_image("path/to/it").`;
      return;
    }
    words.textContent = "";
    model.send({ type: "file", name: chosen.name }, undefined, [await chosen.arrayBuffer()]);
  };
  file.addEventListener("change", () => {
    upload(file.files[0]);
    file.value = ""; // the same file can be chosen again
  });
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation(); // the notebook has plans of its own for dropped files
    drop.classList.remove("over");
    upload(event.dataTransfer.files[0]);
  });

  let addresses = [];
  const forget = () => addresses.forEach((address) => URL.revokeObjectURL(address));
  const showScenes = () => {
    forget();
    addresses = [];
    const views = model.get("thumbnails").map(({ seed, data }, index) => {
      const address = URL.createObjectURL(new Blob([data]));
      addresses.push(address);
      const picture = node("img", { src: address, alt: `scene ${index + 1}` });
      const choose = node("button", { type: "button", title: `Scene ${seed}` }, picture);
      choose.dataset.seed = seed;
      choose.addEventListener("click", () => model.send({ type: "scene", seed }));
      return choose;
    });
    scenes.replaceChildren(...(views.length ? views : [node("span", { textContent: "Setting scenes up…" })]));
  };
  const showOpened = () => {
    root.hidden = !model.get("opened");
    words.textContent = "";
  };
  const unmount = mount(model, el, root, [["change:thumbnails", showScenes], ["change:opened", showOpened]]);
  showScenes();
  showOpened();
  return () => {
    unmount();
    forget();
  };
}

export default { render };
