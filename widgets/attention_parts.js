// The parts of an attention inspector: token row, shares, layer × head matrix, verdicts. Each is told what to show.

const MEAN = -1;

/** One answer's numbers, with the maps that have come so far. Axes of `mass` and `peaks`: the mean, then each number. */
class AnswerData {
  constructor(payload) {
    Object.assign(this, payload);
    this.mass = floats(payload.mass);
    this.on_sinks = floats(payload.on_sinks);
    this.peaks = floats(payload.peaks);
    this.cells = this.grid * this.columns;
    this.hiddenCells = this.sinks.map((sink) => sink.cell).filter((cell) => cell >= 0);
    this.known = new Map();
    const all = floats(payload.maps);
    const each = this.tokens.length * this.cells;
    payload.sent.forEach(([layer, head], i) => this.keep({ method: "raw", layer, head }, all.subarray(i * each, (i + 1) * each)));
  }

  key({ method, layer, head, token }) {
    if (method === "raw") return `raw ${layer} ${head}`;
    return method === "rollout" ? "rollout" : `relevancy ${token}`;
  }

  keep(wanted, maps, shares = null) {
    this.known.set(this.key(wanted), { maps, shares });
  }

  row(layer, head, token) {
    const index = (number, numbers) => (number === MEAN ? 0 : numbers.indexOf(number) + 1);
    return (index(layer, this.layers) * (this.heads.length + 1) + index(head, this.heads)) * this.tokens.length + token;
  }

  /** {values, shares: one per span, onSinks, total}, or null if it must be requested. */
  look(wanted) {
    const found = this.known.get(this.key(wanted));
    if (!found) return null;
    const place = wanted.method === "relevancy" ? 0 : wanted.token;
    const values = found.maps.subarray(place * this.cells, (place + 1) * this.cells);
    if (found.shares) {
      const { spans, on_sinks, total } = found.shares;
      return { values, shares: spans[place], onSinks: on_sinks[place], total: total[place] };
    }
    return { values, ...this.sharesOf(wanted.layer, wanted.head, wanted.token), total: 1 };
  }

  sharesOf(layer, head, token) {
    const count = this.spans.length;
    const start = this.row(layer, head, token) * count;
    return { shares: this.mass.subarray(start, start + count), onSinks: this.on_sinks.subarray(start, start + count) };
  }

  /** The end of the absolute scale: the largest cell of all maps of this kind, so that their colors can be compared.
   * Relevancy comes one token at a time, so there it is the largest of the maps that have come. */
  largest({ method, layer, head }, hide) {
    let largest = 0;
    if (method !== "raw") {
      const hidden = new Set(hide ? this.hiddenCells : []);
      for (const [key, { maps }] of this.known) {
        if (!key.startsWith(method)) continue;
        maps.forEach((value, i) => !hidden.has(i % this.cells) && value > largest && (largest = value));
      }
      return largest;
    }
    const layers = layer === MEAN ? [MEAN] : this.layers;
    const heads = head === MEAN ? [MEAN] : this.heads;
    for (const l of layers)
      for (const h of heads)
        for (let token = 0; token < this.tokens.length; token += 1)
          largest = Math.max(largest, this.peaks[2 * this.row(l, h, token) + Number(hide)]);
    return largest;
  }

  /** "the second of 2", to tell repeated words apart. */
  nth(token) {
    const same = this.tokens.flatMap((text, i) => (text.trim() === this.tokens[token].trim() ? [i] : []));
    return same.length > 1 ? `occurrence ${same.indexOf(token) + 1} of ${same.length}` : "";
  }

  name(token) {
    const nth = this.nth(token);
    return `“${this.tokens[token].trim() || "␣"}” (token ${token + 1} of ${this.tokens.length}${nth && `, ${nth}`})`;
  }
}

function spoken(span) {
  return span.replace(/^region(\d+)$/, "region $1");
}

function makeTokens(data, { hover, choose }) {
  const row = node("div", { className: "tokens", role: "radiogroup", ariaLabel: "Tokens of the answer" });
  const buttons = data.tokens.map((text, token) => {
    const shown = node("span", { className: "word", textContent: text.trim() || "␣" });
    const strip = node("span", { className: "strip", ariaHidden: "true" });
    const place = node("span", { className: "place", textContent: token + 1, ariaHidden: "true" });
    const element = node("button", { type: "button", role: "radio", ariaLabel: data.name(token) }, shown, strip, place);
    element.dataset.token = token;
    element.title = `${data.name(token)}, log-probability ${data.logprobs[token].toFixed(2)}`;
    element.addEventListener("mouseenter", () => hover(token));
    element.addEventListener("mouseleave", () => hover(null));
    element.addEventListener("click", () => choose(token));
    element.addEventListener("keydown", (event) => {
      const last = buttons.length - 1;
      const to = { ArrowRight: token + 1, ArrowDown: token + 1, ArrowLeft: token - 1, ArrowUp: token - 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault(); // the page would scroll
      if (!buttons[to]) return;
      buttons[to].focus();
      choose(to);
    });
    return element;
  });
  row.append(...buttons);
  const show = ({ token, hovered, masses }) => {
    buttons.forEach((element, i) => {
      element.ariaChecked = String(i === token);
      element.tabIndex = i === token ? 0 : -1;
      element.classList.toggle("hovered", i === hovered);
      const strip = element.querySelector(".strip");
      strip.replaceChildren(
        ...(masses(i) ?? []).map((share, span) => {
          const part = node("i");
          part.style.width = `${100 * share}%`;
          part.style.background = data.spans[span].color;
          return part;
        }),
      );
    });
  };
  return [row, show];
}

function makeShares(data, choose) {
  const list = node("div", { className: "shares", role: "group", ariaLabel: "Share of the attention per part of the prompt" });
  const rows = data.spans.map(({ name, color }) => {
    const bar = node("span", { className: "fill" });
    bar.style.background = color;
    const value = node("span", { className: "value" });
    const label = node("span", { className: "name", textContent: spoken(name) });
    const row = node("button", { type: "button", title: `Show the layer × head matrix of ${name}` }, label, node("span", { className: "track" }, bar), value);
    row.dataset.span = name;
    row.addEventListener("click", () => choose(name));
    return { row, bar, value, name };
  });
  const sinks = node("div", { className: "hint" });
  list.append(...rows.map(({ row }) => row), sinks);
  const show = ({ shares, onSinks, hide, span }) => {
    let hidden = 0;
    rows.forEach(({ row, bar, value, name }, i) => {
      const share = shares[i] - (hide ? onSinks[i] : 0);
      hidden += onSinks[i];
      bar.style.width = `${100 * Math.max(share, 0)}%`;
      value.textContent = percent(Math.max(share, 0));
      row.ariaPressed = String(name === span);
    });
    sinks.textContent = sinkWords(data, hidden, hide);
  };
  return [list, show];
}

function sinkWords(data, share, hide) {
  if (data.methods.length === 1) return "Sinks are looked for in a GPT4RoI alone: part of this attention may go to tokens that draw it whatever they hold.";
  if (!data.sinks.length) return "No sinks were found in this prompt.";
  const names = data.sinks.slice(0, 3).map(({ span, token }) => (span === "image" ? "an image cell" : `“${token.trim() || token}” (${span})`));
  const more = data.sinks.length > 3 ? ` and ${data.sinks.length - 3} more` : "";
  return `Sinks, which attract attention whatever their content: ${names.join(", ")}${more}; ${percent(share)} ${hide ? "hidden" : "in all"}.`;
}

function makeMatrix(data, table, choose) {
  const grid = node("div", { className: "matrix", role: "group" });
  grid.style.gridTemplateColumns = `auto repeat(${data.heads.length}, minmax(4px, 22px))`;
  const cells = [];
  grid.append(node("span", { className: "axis", textContent: "layer \\ head" }));
  const label = (numbers, i) => (numbers.length <= 12 || i % 4 === 0 ? numbers[i] : "");
  data.heads.forEach((_, i) => grid.append(node("span", { className: "axis head", textContent: label(data.heads, i) })));
  data.layers.forEach((layer, i) => {
    grid.append(node("span", { className: "axis", textContent: label(data.layers, i) }));
    for (const head of data.heads) {
      const cell = node("button", { type: "button", tabIndex: -1 });
      Object.assign(cell.dataset, { layer, head });
      cell.addEventListener("click", () => choose(layer, head));
      cells.push(cell);
      grid.append(cell);
    }
  });
  const title = node("div", { className: "title" });
  const show = ({ token, layer, head, span, hide }) => {
    const index = Math.max(data.spans.findIndex(({ name }) => name === span), 0);
    const values = cells.map(({ dataset }) => {
      const { shares, onSinks } = data.sharesOf(Number(dataset.layer), Number(dataset.head), token);
      return shares[index] - (hide ? onSinks[index] : 0);
    });
    const largest = Math.max(...values);
    cells.forEach((cell, i) => {
      cell.style.background = colorOf(table, step(values[i], 0, largest));
      cell.title = cell.ariaLabel = `layer ${cell.dataset.layer}, head ${cell.dataset.head}: ${percent(values[i])} on ${spoken(span)}`;
      const [l, h] = [Number(cell.dataset.layer), Number(cell.dataset.head)];
      cell.classList.toggle("chosen", (layer === l && (head === h || head === MEAN)) || (layer === MEAN && head === h));
    });
    const best = cells[values.indexOf(largest)].dataset;
    title.textContent = `Attention to ${spoken(span)}, 0 … ${percent(largest)} (layer ${best.layer}, head ${best.head})`;
    grid.ariaLabel = `${title.textContent}. Layer and head can also be chosen above.`;
  };
  return [node("div", { className: "part" }, title, grid), show];
}

function makeVerdicts(data, hows, chooseHow) {
  const list = node("ul");
  const how = choices("how", "How a region is tested", hows.map((name) => [name, name.replace("_", " ")]), chooseHow);
  const part = node(
    "div",
    { className: "part verdicts" },
    node("div", { className: "title" }, "Does it matter? Tested by: ", how),
    list,
  );
  const show = ({ token, chosen, ablations }) => {
    how.value = chosen;
    if (!data.regions.length) {
      list.replaceChildren(node("li", { textContent: "The conversation has no region to remove." }));
      return;
    }
    list.replaceChildren(
      ...data.regions.map(({ number, color }) => {
        const found = ablations.find((entry) => entry.region === number);
        const item = node("li", { textContent: !found ? "…" : found.problem || sentence(found.verdicts[token]) });
        item.dataset.region = number;
        item.style.borderColor = color;
        if (found?.said) item.append(node("div", { className: "hint", textContent: `The model would say: ${found.said}` }));
        return item;
      }),
    );
  };
  return [part, show];
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

