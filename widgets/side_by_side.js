// One failure under several models: the image once, a column per model, and a question line that asks all of them.
// Whatever people or models write enters the page as text, never as markup.

const STATES = {
  waiting: "waits for the answers before it",
  writing: "answering…",
  stopped: "stopped",
  cannot: "no answer",
};
const SIGNS = { wrong: "✗", right: "✓" };

function makeImage(model) {
  const image = node("img", { alt: "The image of this question, with its regions numbered" });
  let address = "";
  const show = () => {
    const file = model.get("image");
    URL.revokeObjectURL(address);
    image.hidden = !file?.byteLength;
    if (image.hidden) return;
    address = URL.createObjectURL(new Blob([file]));
    image.src = address;
  };
  show();
  return [image, () => URL.revokeObjectURL(address), { "change:image": show }];
}

/** A row of cells, one per model. Each cell begins with its model's letter and name, since cells wrap on a narrow page. */
function row(model, name, cells) {
  const columns = model.get("columns").map((column, index) => {
    const who = node("div", { className: "who" }, node("b", { textContent: column.letter }), ` ${column.name}`);
    const cell = node("div", { className: "cell" }, who, ...cells[index]);
    cell.dataset.letter = column.letter;
    return cell;
  });
  return node("div", { className: `row ${name}` }, ...columns);
}

function words(className, text) {
  return text ? [node("div", { className, textContent: text, dir: "auto" })] : [];
}

function asked(question) {
  return words("asked", question && `asked: ${question}`);
}

function modelInput(model, turn, column) {
  const { letter, can } = model.get("columns")[column];
  return can ? makeModelInput(model, `${turn}.${column}`, turn < 0 ? `${letter}'s stored answer` : `answer ${turn + 1} of ${letter}`) : [];
}

function storedCell(model, one, column) {
  const { way, notes } = model.get("columns")[column];
  const head = [...words("way", `boxes as: ${way}`), ...notes.flatMap((note) => words("note", note))];
  if (one.absent) return [...head, ...words("absent", one.absent)];
  const sign = SIGNS[one.wrong ? "wrong" : one.verdict];
  const verdict = node("div", { className: `verdict ${one.wrong ? "wrong" : ""}`, textContent: sign ? `${sign} ${one.verdict}` : one.verdict });
  return [
    ...head,
    ...asked(one.question),
    ...words("answer", one.answer || "(nothing)"),
    verdict,
    ...words("facts", one.facts),
    ...modelInput(model, -1, column),
  ];
}

function answerCell(model, { text, state, question }, turn, column) {
  const said = node("div", { className: `answer ${state}`, textContent: text, dir: "auto" });
  return [
    ...asked(question),
    said,
    ...words("state", STATES[state]),
    ...(state === "done" || state === "stopped" ? modelInput(model, turn, column) : []),
  ];
}

function makeTurns(model) {
  const turns = node("div", { className: "turns", role: "log", ariaLabel: "Asked again" });
  turns.setAttribute("aria-live", "polite");
  const views = []; // what is shown of each turn: one that has not changed keeps what was opened in it
  const show = () => {
    const now = model.get("turns");
    views.splice(now.length).forEach(({ view }) => view.remove());
    now.forEach((turn, index) => {
      const key = JSON.stringify(turn);
      if (views[index]?.key === key) return;
      const view = node(
        "section",
        { className: "turn" },
        node("div", { className: "question", textContent: turn.question, dir: "auto" }),
        row(model, "again", turn.answers.map((answer, column) => answerCell(model, answer, index, column))),
      );
      view.dataset.turn = index + 1;
      if (views[index]) views[index].view.replaceWith(view);
      else turns.append(view);
      views[index] = { key, view };
    });
    // A screen reader waits for whole answers instead of reading every new word.
    turns.setAttribute("aria-busy", String(model.get("stoppable")));
  };
  show();
  return [turns, { "change:turns": show, "change:stoppable": show }];
}

function makeLine(model) {
  const field = node("textarea", { rows: 2, dir: "auto" });
  field.setAttribute("aria-label", "Question to all models. Press Enter to ask, Shift and Enter for a new line.");
  field.value = model.get("line");
  const ask = () => !askButton.disabled && model.send({ type: "ask", text: field.value });
  const letters = model.get("columns").filter(({ can }) => can).map(({ letter }) => letter);
  const askButton = button("ask", "Ask again", `Ask ${letters.join(" and ")} this question (Enter)`, ask);
  askButton.classList.add("primary");
  const stopButton = button("stop", "Stop", "Stop the answers; the text so far stays", () => model.send({ type: "stop" }));
  field.addEventListener("keydown", (event) => {
    // While an input method composes a character, Enter chooses the character.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });
  const showLine = () => {
    field.value = model.get("line");
  };
  const showBusy = () => {
    askButton.disabled = Boolean(model.get("busy")) || !letters.length;
    stopButton.hidden = !model.get("stoppable");
  };
  showBusy();
  const line = node("div", { className: "line" }, field, askButton, stopButton);
  return [line, { "change:line": showLine, "change:busy": showBusy, "change:stoppable": showBusy }];
}

function render({ model, el }) {
  const [image, forget, imageListeners] = makeImage(model);
  const stored = node("div", { className: "stored" });
  const showStored = () => {
    const cells = model.get("stored").map((one, column) => storedCell(model, one, column));
    stored.replaceChildren(...(cells.length ? [row(model, "measured", cells)] : []));
  };
  showStored();
  const [turns, turnListeners] = makeTurns(model);
  const [line, lineListeners] = makeLine(model);
  const [problem, status, wordListeners] = makeWords(model);
  const root = node("div", { className: "gpt4roi-beside" }, image, stored, turns, problem, line, status);
  const listeners = [
    imageListeners,
    { "change:stored": showStored, "msg:custom": (content, buffers) => showModelInput(root, content, buffers) },
    turnListeners, lineListeners, wordListeners,
  ].flatMap(Object.entries);
  const unmount = mount(model, el, root, listeners);
  return () => {
    forget();
    unmount();
  };
}

export default { render };
