// The conversation: turns with chips in the regions' colors, the question line, the buttons. Whatever people or models
// write enters the page as text, never as markup.

const MENTION = /<region(\d+)>|\bregion ?(\d+)\b/gi;

/** Makes the region's box on the image stand out while the mouse is on its chip. */
function pointAt(chip, number) {
  const boxes = () =>
    chip.closest(".gpt4roi-chat")?.querySelectorAll(`.gpt4roi-canvas g[data-region="region${number}"]`) ?? [];
  chip.addEventListener("mouseenter", () => boxes().forEach((box) => box.classList.add("gpt4roi-pointed")));
  chip.addEventListener("mouseleave", () => boxes().forEach((box) => box.classList.remove("gpt4roi-pointed")));
}

function labelOf(model, number) {
  return regionLabel(number, model.get("regions").find((region) => region.number === number)?.name);
}

function makeChip(number, model) {
  const colors = model.get("colors");
  const chip = node("span", { className: "chip", textContent: labelOf(model, number) });
  chip.style.background = colors[(number - 1) % colors.length];
  chip.dataset.region = number;
  pointAt(chip, number);
  return chip;
}

/** Text with a chip for each mention of one of the conversation's `known` regions. */
function withChips(text, known, model) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(MENTION)) {
    const number = Number(match[1] ?? match[2]);
    if (number < 1 || number > known) continue;
    parts.push(text.slice(end, match.index), makeChip(number, model));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

function message(who, name, parts) {
  const bubble = node("div", { className: "bubble", dir: "auto" }, ...parts);
  return node("div", { className: `message ${who}` }, node("span", { className: "who", textContent: name }), bubble);
}

// ------------------------------------------------------------------------------------------------------- the log

function turnView(model, turn, index) {
  const answer = withChips(turn.answer, turn.regions, model);
  if (turn.stopped) answer.push(node("span", { className: "stopped", textContent: " (stopped)" }));
  const said = message("model", "Model", answer);
  const [link, input] = makeModelInput(model, index);
  const links = node("div", { className: "links" }, link);
  if (model.get("inspectable")) {
    const look = button("inspect", "Look inside", "Where this answer looked, token by token, and whether that mattered", () =>
      model.send({ type: "inspect", turn: index }),
    );
    look.ariaLabel = `Look inside answer ${index + 1}`;
    links.prepend(look);
  }
  said.append(links, input);
  const view = node("div", { className: "turn" }, message("user", "You", withChips(turn.question, turn.regions, model)), said);
  view.dataset.turn = index + 1;
  return view;
}

function makeLog(model) {
  const log = node("div", { className: "log", role: "log", tabIndex: 0, ariaLabel: "Conversation" });
  log.setAttribute("aria-live", "polite");
  const turns = node("div", { className: "turns" });
  const live = node("div", { className: "live" });
  const empty = node("p", { className: "empty" });
  log.append(empty, turns, live);

  // New text scrolls into view, unless the reader has scrolled up to something older.
  const NEAR = 40; // pixels
  let following = true;
  log.addEventListener("scroll", () => {
    following = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
  });
  const follow = () => following && log.scrollTo({ top: log.scrollHeight });
  new ResizeObserver(follow).observe(log);

  const showTurns = () => {
    turns.replaceChildren(...model.get("turns").map((turn, index) => turnView(model, turn, index)));
    following = true;
    showEmpty();
    follow();
  };
  let sent = ""; // asked in this page, and not yet confirmed by the kernel
  const showPending = () => {
    const question = model.get("pending") || sent;
    live.replaceChildren();
    if (question) {
      const known = model.get("regions").length;
      live.append(message("user", "You", withChips(question, known, model)), message("model", "Model", []));
      following = true;
    }
    // A screen reader waits for the whole answer instead of reading every new word.
    log.setAttribute("aria-busy", String(Boolean(question)));
    showEmpty();
    showStreaming();
  };
  const showStreaming = () => {
    const bubble = live.querySelector(".model .bubble");
    if (!bubble) return;
    const parts = withChips(model.get("streaming"), model.get("regions").length, model);
    const cursor = node("span", { className: "cursor", ariaHidden: "true" });
    bubble.replaceChildren(...parts, cursor);
    follow();
  };
  const showEmpty = () => {
    const nothing = !model.get("turns").length && !model.get("pending") && !sent;
    empty.hidden = !nothing;
    empty.replaceChildren();
    if (nothing) {
      const chip = makeChip(1, model);
      empty.append("Draw a box on the image, then ask about it: “What is ", chip, "?”");
    }
  };
  const showNames = () => {
    for (const chip of log.querySelectorAll(".chip")) chip.textContent = labelOf(model, Number(chip.dataset.region));
  };
  const listeners = {
    "change:turns": showTurns,
    "change:pending": showPending,
    "change:streaming": showStreaming,
    "change:regions": showNames,
    "msg:custom": (content, buffers) => showModelInput(log, content, buffers),
  };
  showTurns();
  showPending();
  const showSent = (text) => {
    sent = text;
    showPending();
  };
  return [log, showSent, listeners];
}

// -------------------------------------------------------------------------------------------- the question line

const MAX_LINES = 6;
const LATE_MS = 1000;
const LATE = "The kernel is busy with a cell; the question will be asked when it is done.";
const CUT = "There is no connection to the kernel; the question will be asked when it is back.";
const DOUBLE_CLICK_MS = 500;

function makeQuestionLine(model, showSent) {
  const field = node("textarea", { rows: 1, placeholder: "Ask about the image…", dir: "auto" });
  field.setAttribute("aria-label", "Question. Press Enter to ask, Shift and Enter for a new line.");
  field.value = model.get("draft");
  const grow = () => {
    field.style.height = "auto";
    const line = parseFloat(getComputedStyle(field).lineHeight) || 20;
    field.style.height = `${Math.min(field.scrollHeight + 2, line * MAX_LINES)}px`;
  };
  const keep = () => {
    model.set("draft", field.value); // for other views in this page; the kernel gets it with the question
    grow();
  };
  const write = (text) => {
    field.value = text;
    keep();
  };

  // After Enter the line is empty for the next question, and nothing else is asked until the kernel has answered.
  let waiting = false;
  let askedAt = -Infinity; // by the button
  let sentAt = -Infinity; // in any way
  let patience;
  const late = node("div", { className: "late", role: "status", hidden: true });
  const ask = () => {
    if (waiting || model.get("busy")) return; // the question stays in its line
    const text = field.value;
    // The answer may come between the two presses of a hasty double one on Enter, which must not ask nothing.
    if (!text.trim() && performance.now() - sentAt <= DOUBLE_CLICK_MS) return;
    sentAt = performance.now();
    waiting = true;
    patience = setTimeout(() => {
      const reached = model.widget_manager?.kernel?.connectionStatus ?? "connected"; // in JupyterLab and Notebook
      late.textContent = reached === "connected" ? LATE : CUT;
      late.hidden = false;
    }, LATE_MS);
    write("");
    showSent(text.trim());
    showBusy();
    model.send({ type: "ask", text });
  };
  const heard = () => {
    waiting = false;
    clearTimeout(patience);
    late.hidden = true;
    showSent("");
    showBusy();
  };
  const hear = (content) => {
    if (content?.type === "taken") {
      if (!waiting && field.value === content.text) write(""); // another view has asked it
      heard();
    } else if (content?.type === "back") {
      heard();
      // Another view in this page may have written it already: they share the draft.
      if (field.value === content.text || field.value.startsWith(`${content.text}\n`)) return;
      const since = field.value.trim() ? `\n${field.value}` : ""; // typed meanwhile: neither text is lost
      write(content.text + since);
    } else if (content?.type === "line" && content.instead_of.includes(field.value.trim())) write(content.text);
  };
  field.addEventListener("input", keep);
  field.addEventListener("keydown", (event) => {
    // While an input method composes a character, Enter chooses the character.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.repeat) ask(); // a key that is held down asks once
  });
  const insert = (text) => {
    const { selectionStart: start, selectionEnd: end, value } = field;
    const space = start > 0 && !/\s$/.test(value.slice(0, start)) ? " " : "";
    field.setRangeText(space + text, start, end, "end");
    field.focus();
    keep();
  };
  const fill = (text) => {
    write(text);
    field.focus();
  };
  const askButton = button("ask", "Ask", "Ask (Enter)", () => {
    askedAt = performance.now();
    ask();
  });
  askButton.classList.add("primary");
  const stopButton = button("stop", "Stop", "Stop the answer; the text so far stays", () => {
    // It replaces the Ask button: the second click of a double click on Ask must not count as one on Stop.
    if (performance.now() - askedAt > DOUBLE_CLICK_MS) model.send({ type: "stop" });
  });

  const showDraft = () => {
    if (field.value === model.get("draft")) return;
    field.value = model.get("draft");
    grow();
  };
  const showBusy = () => {
    askButton.hidden = model.get("stoppable");
    askButton.disabled = waiting || Boolean(model.get("busy"));
    stopButton.hidden = !model.get("stoppable");
  };
  showBusy();
  // Lines break elsewhere when the page gets wider or narrower, such as when the file browser closes.
  let width = 0;
  new ResizeObserver(() => {
    if (field.offsetWidth === width) return;
    width = field.offsetWidth;
    requestAnimationFrame(grow);
  }).observe(field);
  const line = node("div", { className: "line" }, field, askButton, stopButton);
  const lock = () => {
    clearTimeout(patience);
    late.hidden = true;
    field.readOnly = true;
    askButton.disabled = stopButton.disabled = true;
    waiting = true;
  };
  const listeners = {
    "change:draft": showDraft,
    "change:busy": showBusy,
    "change:stoppable": showBusy,
    "msg:custom": hear,
  };
  return { line, late, insert, fill, lock, listeners };
}

function makeHelpers(model, { insert, fill }) {
  const row = (className, hint, ariaLabel) => {
    const choices = node("div", { className: "choices", role: "group", ariaLabel });
    return [choices, node("div", { className }, node("span", { className: "hint", textContent: hint }), choices)];
  };
  const [chips, chipRow] = row("insert", "Insert", "Put a region into the question");
  const [examples, exampleRow] = row("examples", "Try", "Example questions");
  const showRegions = () => {
    const regions = model.get("regions");
    chipRow.hidden = !regions.length;
    chips.replaceChildren();
    for (const { number, color } of regions) {
      const chip = button("insert", labelOf(model, number), `Put <region${number}> into the question`, () =>
        insert(`<region${number}>`),
      );
      chip.className = "chip";
      chip.style.background = color;
      chip.dataset.region = number;
      pointAt(chip, number);
      chips.append(chip);
    }
  };
  const showExamples = () => {
    const known = model.get("regions").length;
    exampleRow.hidden = !model.get("examples").length;
    examples.replaceChildren();
    for (const text of model.get("examples")) {
      const example = node("button", { type: "button", title: text }, ...withChips(text, known, model));
      example.dataset.action = "example";
      example.addEventListener("click", () => fill(text));
      examples.append(example);
    }
  };
  showRegions();
  showExamples();
  const both = () => {
    showRegions();
    showExamples();
  };
  return [chipRow, exampleRow, { "change:regions": both, "change:examples": showExamples }];
}

// --------------------------------------------------------------------------------------------------- all of it

const LOST_CHAT = `${LOST} The conversation stays readable until then.`;

/** Says that nothing here can work any more, and disables it, including the image and an open inspector. */
function showLost(root, words, kept, lock) {
  if (!words.hidden) return;
  words.hidden = false;
  lock();
  root.classList.add("lost");
  for (const part of root.children) if (!kept.includes(part)) part.inert = true;
  for (const look of root.querySelectorAll(".log button")) look.disabled = true;
  const around = root.closest(".gpt4roi-chat");
  for (const part of around?.querySelectorAll(".gpt4roi-canvas, .gpt4roi-picker, .gpt4roi-inspections") ?? []) {
    part.inert = true;
    part.classList.add("gpt4roi-lost");
  }
}

function render({ model, el }) {
  const [log, showSent, logListeners] = makeLog(model);
  const question = makeQuestionLine(model, showSent);
  const [chips, examples, helperListeners] = makeHelpers(model, question);
  const [problem, status, wordListeners] = makeWords(model);
  const [tools, toolListeners] = makeTools(model);
  const lost = node("div", { className: "gpt4roi-gone", role: "alert", hidden: true, textContent: LOST_CHAT });
  const about = node("footer", { textContent: model.get("about") });
  const root = node(
    "div",
    { className: "gpt4roi-conversation" },
    log, lost, problem, question.line, status, question.late, chips, examples, tools, about,
  );
  // On a narrow page the image leaves room for the question line; see the style sheet.
  const showShape = () => el.closest(".gpt4roi-chat")?.style.setProperty("--gpt4roi-ratio", model.get("ratio"));
  const listeners = [logListeners, question.listeners, helperListeners, wordListeners, { "change:ratio": showShape }]
    .flatMap(Object.entries)
    .concat(toolListeners);
  const unmount = mount(model, el, root, listeners);
  const unwatch = watchKernel(model, () => showLost(root, lost, [log, lost, question.line, about], question.lock));
  const shape = new ResizeObserver(showShape); // once it is on the page
  shape.observe(root);
  return () => {
    shape.disconnect();
    unwatch();
    unmount();
  };
}

export default { render };
