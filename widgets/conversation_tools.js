// The tools below the question line: undo, a new conversation, another image, settings, copying and saving.

/** A button that opens and closes a panel. */
function disclosure(name, text, title, ...content) {
  const panel = node("div", { className: "panel", hidden: true }, ...content);
  panel.dataset.panel = name;
  const opener = button(name, text, title, () => {
    panel.hidden = !panel.hidden;
    opener.setAttribute("aria-expanded", String(!panel.hidden));
    panel.scrollIntoView({ block: "nearest" }); // otherwise nobody sees a panel that opens below the fold
  });
  opener.setAttribute("aria-expanded", "false");
  return [opener, panel];
}

// ------------------------------------------------------------------------------------------------------ settings

const SETTINGS = [
  {
    name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1,
    hint: "0 always takes the likeliest word; higher values vary more.",
  },
  { name: "max_new_tokens", label: "Longest answer", min: 1, max: 4096, step: 1, hint: "in tokens (pieces of words)" },
  {
    name: "seed", label: "Seed", min: 0, max: 4294967295, step: 1, optional: true,
    hint: "makes a varied answer repeatable; empty: a new one each time",
  },
];

function makeSetting(model, { name, label, min, max, step, hint, optional = false }) {
  const field = node("input", { type: "number", min, max, step });
  field.dataset.setting = name;
  const problem = node("span", { className: "wrong", role: "alert", hidden: true });
  const show = () => {
    field.value = model.get(name) ?? "";
  };
  field.addEventListener("change", () => {
    const empty = field.value === "" && !field.validity.badInput;
    const value = empty && optional ? null : field.valueAsNumber;
    const whole = step === 1 && value !== null && !Number.isInteger(value);
    const wrong = value !== null && (Number.isNaN(value) || value < min || value > max || whole);
    problem.hidden = !wrong;
    problem.textContent = wrong
      ? `${label} must be a ${step === 1 ? "whole " : ""}number from ${min} to ${max}; the old value was restored.`
      : "";
    if (!wrong) {
      model.set(name, value);
      model.save_changes();
    }
    show();
  });
  const forgive = () => {
    problem.hidden = true; // what was wrong is long restored
  };
  field.addEventListener("input", forgive);
  show();
  const words = node("span", { className: "hint", textContent: hint });
  const row = node("label", { className: "setting" }, node("span", { textContent: label }), field, words);
  return [node("div", {}, row, problem), { [`change:${name}`]: show, "change:turns": forgive }];
}

// ------------------------------------------------------------------------------------------- to keep and to share

/** The conversation as plain text. */
function asText(model) {
  const named = (text) => text.replace(MENTION, (_, bracketed, plain) => labelOf(model, Number(bracketed ?? plain)));
  const said = ({ question, answer, stopped }) => `You: ${named(question)}\nModel: ${named(answer)}${stopped ? " (stopped)" : ""}`;
  return model.get("turns").map(said).join("\n\n");
}

/** Puts a text on the clipboard; a page that is not served securely only has the older way. */
async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      return await navigator.clipboard.writeText(text);
    } catch {
      // refused: the older way
    }
  }
  const field = node("textarea", { value: text });
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("the browser refused");
}

function download(name, mime, data) {
  const address = URL.createObjectURL(new Blob([data], { type: mime }));
  node("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function makeKeeping(model) {
  const said = node("span", { className: "hint", role: "status" });
  const say = (text) => {
    said.textContent = text;
  };
  const copyButton = button("copy", "Copy", "Copy the conversation as text", async () => {
    try {
      await copy(asText(model));
      say("Copied.");
    } catch {
      say("The browser did not allow copying; select the text and copy it, or use Markdown.");
    }
  });
  const export_ = (format) => () => {
    say("Preparing the file…"); // a large image takes seconds
    model.send({ type: "export", format });
  };
  const markdown = button("markdown", "Markdown", "Download as one Markdown file, with the image in it", export_("md"));
  const page = button("html", "HTML", "Download as one HTML page, with the image in it", export_("html"));
  const save = button("save", "Save", "Save beside the notebook, to open and continue later", () => {
    say("Saving…");
    model.send({ type: "save" });
  });
  const receive = (content, buffers) => {
    if (content?.type === "file") {
      download(content.name, content.mime, buffers[0]);
      say(`Downloaded as ${content.name}.`);
    } else if (content?.type === "saved") say(content.text);
  };
  const choices = node("div", { className: "choices" }, copyButton, markdown, page, save);
  const giveUp = () => model.get("problem") && say(""); // it says what went wrong
  const listeners = { "msg:custom": receive, "change:problem": giveUp };
  return [choices, said, [copyButton, markdown, page, save], listeners];
}

// ------------------------------------------------------------------------------------------------------- all of it

function makeTools(model) {
  const send = (type) => () => model.send({ type });
  const undo = button("undo", "Undo", "", send("undo"));
  const fresh = button("new", "New conversation", "Forget the conversation; the image stays", send("new"));
  const image = button("image", "Other image…", "A scene from the gallery, or your own file", send("image"));
  const settings = SETTINGS.map((setting) => makeSetting(model, setting));
  const [openSettings, settingsPanel] = disclosure(
    "settings", "Settings", "Temperature, length and seed of the answers", ...settings.map(([row]) => row),
  );
  const [choices, said, keepers, keepingListeners] = makeKeeping(model);
  const [openKeeping, keepingPanel] = disclosure(
    "keep", "Copy or save", "Copy, save or export the conversation", choices, said,
  );
  const show = () => {
    const busy = Boolean(model.get("busy"));
    const silent = !model.get("turns").length;
    undo.disabled = busy || (silent && !model.get("earlier"));
    undo.title =
      silent && model.get("earlier")
        ? "Bring back the conversation before this one, with its image and boxes"
        : "Remove the last question and its answer";
    fresh.disabled = busy || silent;
    image.disabled = busy;
    for (const keeper of keepers) keeper.disabled = busy || silent;
  };
  show();
  const bar = node("div", { className: "toolbar" }, undo, fresh, image, openSettings, openKeeping);
  const listeners = [
    ["change:busy", show],
    ["change:turns", show],
    ["change:earlier", show],
    ...settings.flatMap(([, own]) => Object.entries(own)),
    ...Object.entries(keepingListeners),
  ];
  return [node("div", { className: "tools" }, bar, settingsPanel, keepingPanel), listeners];
}
