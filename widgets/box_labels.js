// The labels of the regions on the image. The box widget's own labels would cover one another, its ×, and other boxes.

const LABEL_GAP = 2; // pixels between a label and its box
const CROSS = { left: 13, top: 16, right: 2, bottom: 1 }; // where the × lies, from a box's upper right corner
const LABEL_ROOM = 20; // above the image

function overlap(one, other) {
  const width = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  return Math.max(width, 0) * Math.max(height, 0);
}

/** The position of a label of this size: the first one beside its box that covers nothing, or that covers least. */
function labelPlace({ x, y, width, height, asked }, size, room, taken) {
  const above = y - size.height - LABEL_GAP;
  const below = y + height + LABEL_GAP;
  const left = asked ? x : Math.min(x, x + width - CROSS.left - size.width - LABEL_GAP);
  const inside = x + 2 * LABEL_GAP;
  const corners = [
    [left, above], [x, below], [x + width - size.width, below], [inside, y + 2 * LABEL_GAP],
    [inside, below - size.height - 3 * LABEL_GAP], [x - size.width - LABEL_GAP, y], [x + width + LABEL_GAP, y],
  ];
  for (let row = 1; row < 12; row++) corners.push([inside, y + 2 * LABEL_GAP + row * (size.height + 1)]);
  const places = corners.map(([x, y]) => ({
    x: Math.max(Math.min(x, room.width - size.width), 0),
    y: Math.max(Math.min(y, room.height - size.height), -LABEL_ROOM),
    ...size,
  }));
  const covered = places.map((place) => taken.reduce((sum, other) => sum + overlap(place, other), 0));
  return places[covered.indexOf(Math.min(...covered))];
}

/** Marks each drawn box as asked about or new, for the style sheet, and labels it. */
function label(canvas, model) {
  const image = canvas.querySelector(".image");
  if (!image) return;
  let layer = image.querySelector(".gpt4roi-labels");
  if (!layer) image.append((layer = node("div", { className: "gpt4roi-labels", ariaHidden: "true" })));
  const regions = new Map(model.get("regions").map((region) => [`region${region.number}`, region]));
  const boxes = [...image.querySelectorAll("svg > g")].flatMap((group) => {
    const id = group.querySelector("text")?.textContent ?? "";
    const rect = group.querySelector("rect");
    const region = regions.get(id);
    const asked = region?.asked === true;
    group.classList.toggle("gpt4roi-asked", asked);
    group.classList.toggle("gpt4roi-new", !asked);
    group.dataset.region = id;
    if (!rect) return [];
    const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(rect.getAttribute(name)));
    const text = regionLabel(id.replace("region", ""), region?.name);
    return [{ x, y, width, height, asked, text, color: rect.style.stroke }]; // as the box widget chose it
  });
  while (layer.children.length > boxes.length) layer.lastChild.remove();
  while (layer.children.length < boxes.length) layer.append(node("span"));
  boxes.forEach(({ text, color }, i) => {
    if (layer.children[i].textContent !== text) layer.children[i].textContent = text;
    layer.children[i].style.background = color;
  });
  const room = { width: image.clientWidth, height: image.clientHeight };
  const sizes = [...layer.children].map((child) => ({ width: child.offsetWidth, height: child.offsetHeight }));
  const taken = boxes
    .filter((box) => !box.asked)
    .map((box) => ({
      x: box.x + box.width - CROSS.left,
      y: box.y - CROSS.top,
      width: CROSS.left + CROSS.right,
      height: CROSS.top - CROSS.bottom,
    }));
  boxes.forEach((box, i) => {
    const place = labelPlace(box, sizes[i], room, taken);
    taken.push(place);
    layer.children[i].style.transform = `translate(${Math.round(place.x)}px, ${Math.round(place.y)}px)`;
  });
}

/** Keeps the labels with their boxes; returns a function that stops this. */
function keepLabels(canvas, model) {
  const watch = new MutationObserver(() => update());
  const update = () => {
    label(canvas, model);
    watch.takeRecords(); // ignore the changes that the labels themselves made
  };
  watch.observe(canvas.querySelector(".image"), {
    childList: true,
    characterData: true,
    subtree: true,
    attributeFilter: ["x", "y", "width", "height"],
  });
  model.on("change:regions", update);
  update();
  return () => {
    watch.disconnect();
    model.off("change:regions", update);
    canvas.querySelector(".gpt4roi-labels")?.remove();
  };
}
