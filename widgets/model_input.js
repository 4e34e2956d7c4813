// What the model was told in a turn: behind a small link, since most readers want the answer alone.

/** A link below an answer, and the panel that it opens. The kernel sends what is in it, the first time.
 *
 * turn: what names the answer in messages. whose: what names it for people who hear the page.
 */
function makeModelInput(model, turn, whose = `answer ${turn + 1}`) {
  const panel = node("div", { className: "told", hidden: true });
  panel.dataset.told = turn;
  const link = button("told", "What the model was told", "The text and the images that the model got", () => {
    panel.hidden = !panel.hidden;
    link.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden && !panel.childElementCount) model.send({ type: "told", turn });
  });
  link.ariaLabel = `What the model was told for ${whose}`;
  link.setAttribute("aria-expanded", "false");
  return [link, panel];
}

/** Fills the panel of a turn with what the kernel has sent. */
function showModelInput(log, content, buffers) {
  const panel = content?.type === "told" && log.querySelector(`.told[data-told="${content.turn}"]`);
  if (!panel) return;
  const images = buffers.map((buffer, index) => {
    const address = URL.createObjectURL(new Blob([buffer]));
    const image = node("img", { src: address, alt: `Image ${index + 1} that the model was shown` });
    image.addEventListener("load", () => URL.revokeObjectURL(address));
    return image;
  });
  const notes = content.note.map(([name, value]) => node("div", { className: "note", textContent: `${name}: ${value}` }));
  panel.replaceChildren(node("div", { className: "text", dir: "auto", textContent: content.text }), ...images, ...notes);
  panel.scrollIntoView({ block: "nearest" });
}
