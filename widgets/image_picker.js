// Choosing another image: scenes of the generated world, or a file from the user's computer.

const HEAD_BYTES = 4096; // enough to tell a file's format
const MAX_SENT_SIDE = 4096; // pixels, of an image that is shrunk
const SENT_QUALITY = 0.92;
const SHRINK = 0.8; // per side, repeated until the file is small enough

/** An image file as a smaller JPEG of at most `limit` bytes; null where this browser cannot read it. */
async function shrunk(file, limit) {
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) return null;
  const before = [image.width, image.height];
  let scale = Math.min(MAX_SENT_SIDE / Math.max(...before), 1);
  for (;;) {
    const [width, height] = before.map((side) => Math.max(Math.round(side * scale), 1));
    const canvas = node("canvas", { width, height });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff"; // behind transparent pixels, as in Python
    pen.fillRect(0, 0, width, height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, 0, 0, width, height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", SENT_QUALITY));
    if (!blob) return null;
    if (blob.size <= limit) return { blob, sizes: [...before, width, height] };
    scale *= SHRINK;
  }
}

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
  const drop = node("label", { className: "drop" }, "Choose a file, or drop or paste one anywhere on this chat ", file);
  const root = node(
    "div",
    { className: "gpt4roi-picker" },
    node("div", { className: "head" }, node("strong", { textContent: "Another image" }), more, close),
    scenes, drop, words,
  );

  const showProblem = () => {
    words.textContent = model.get("problem");
    words.classList.toggle("problem", Boolean(model.get("problem")));
    if (model.get("problem")) words.scrollIntoView({ block: "nearest" }); // a file may be dropped far below it
  };
  const upload = async (files) => {
    const chosen = files.find((file) => file.type.startsWith("image/")) ?? files[0];
    if (!chosen) return;
    const others = files.length - 1;
    const limit = model.get("max_bytes");
    const { name, size } = chosen;
    words.classList.remove("problem");
    words.textContent = `Opening ${name}…`;
    const smaller = size > limit || /\.hei[cf]$/i.test(name) ? await shrunk(chosen, limit) : null;
    words.textContent = "";
    if (smaller) {
      model.send({ type: "file", name, others, shrunk: smaller.sizes }, undefined, [await smaller.blob.arrayBuffer()]);
    } else if (size > limit) {
      model.send({ type: "unreadable", name }, undefined, [await chosen.slice(0, HEAD_BYTES).arrayBuffer()]);
    } else {
      model.send({ type: "file", name, others }, undefined, [await chosen.arrayBuffer()]);
    }
  };
  file.addEventListener("change", () => {
    upload([...file.files]);
    file.value = ""; // the same file can be chosen again
  });

  // A file may be dropped anywhere on the chat, and an image pasted there. Caught early: the notebook would handle
  // dropped files itself, and a browser would leave the page for one.
  const ends = new AbortController();
  const onChat = (type, listener) => {
    const hear = (event) => {
      const chat = root.closest(".gpt4roi-chat");
      if (chat?.contains(event.target) && !root.closest(".gpt4roi-lost")) listener(event, chat);
    };
    window.addEventListener(type, hear, { capture: true, signal: ends.signal });
  };
  const mark = (chat, over) => chat.classList.toggle("gpt4roi-over", over);
  const bringsFiles = (event) => event.dataTransfer?.types.includes("Files");
  onChat("dragover", (event, chat) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    mark(chat, true);
  });
  onChat("dragleave", (event, chat) => !chat.contains(event.relatedTarget) && mark(chat, false));
  onChat("drop", (event, chat) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    mark(chat, false);
    upload([...event.dataTransfer.files]);
  });
  onChat("paste", (event) => {
    const images = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    // Text is for the question line, also that of programs which copy a picture of it as well.
    const intoLine = event.target.closest?.("textarea, input") && event.clipboardData.types.includes("text/plain");
    if (!images.length || intoLine) return;
    event.preventDefault();
    event.stopPropagation();
    upload(images);
  });

  let addresses = [];
  const forget = () => addresses.forEach((address) => URL.revokeObjectURL(address));
  const showScenes = () => {
    forget();
    addresses = [];
    const views = model.get("thumbnails").map(({ seed, data }, index) => {
      const address = URL.createObjectURL(new Blob([data]));
      addresses.push(address);
      const image = node("img", { src: address, alt: `scene ${index + 1}` });
      const choose = node("button", { type: "button", title: `Scene ${seed}` }, image);
      choose.dataset.seed = seed;
      choose.addEventListener("click", () => model.send({ type: "scene", seed }));
      return choose;
    });
    scenes.replaceChildren(...(views.length ? views : [node("span", { textContent: "Rendering scenes…" })]));
  };
  const showOpened = () => {
    root.hidden = !model.get("opened");
    showProblem();
  };
  // It opens above the image, where it may be out of sight, and takes the focus with it when it closes.
  const follow = () => {
    const chat = root.closest(".gpt4roi-chat");
    const here = chat?.contains(document.activeElement);
    const within = root.contains(document.activeElement);
    showOpened();
    if (model.get("opened") && here) {
      root.scrollIntoView({ block: "start" });
      close.focus({ preventScroll: true });
    } else if (within) chat?.querySelector("button[data-action='image']")?.focus({ preventScroll: true });
  };
  const unmount = mount(model, el, root, [
    ["change:thumbnails", showScenes],
    ["change:opened", follow],
    ["change:problem", showProblem],
  ]);
  showScenes();
  showOpened();
  return () => {
    ends.abort();
    unmount();
    forget();
  };
}

export default { render };
