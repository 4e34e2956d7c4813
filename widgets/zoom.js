// Zoom and pan of the box widget's image: it is laid out larger inside a viewport that scrolls. Nothing is transformed,
// so the box widget's own arithmetic stays right, and lines, handles and labels keep their size on the screen.

const ZOOM_STEP = 1.5;
const WHEEL_ZOOM = 0.004; // of the exponent, per pixel that the wheel scrolls
const MOST_SCREEN_PIXELS = 16; // per pixel of the image…
const LEAST_LIMIT = 4; // …but a small image can always be magnified this much
const PAN_PIXELS = 60;
const LEAST_ROOM = 100; // pixels of the viewport's height
const DETAIL_MS = 250; // after the last movement
const COARSE = 1.1; // screen pixels per pixel of the image that was sent: above it, a finer one is requested

/** The viewport of the box widget in `canvas`. changed: called with the zoom, which is 1 for the whole image. */
function makeZoom(canvas, model, changed) {
  const viewport = canvas.querySelector(".wrapper");
  const image = canvas.querySelector(".image");
  const detail = node("img", { className: "gpt4roi-detail", alt: "", draggable: false, hidden: true });
  image.append(detail);
  let zoom = 1;
  let held = null; // the fixed point of the last zoom, { clientX, clientY, x, y }: x and y as shares of the image
  let timer = null;

  const style = getComputedStyle(viewport);
  const sides = () => parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  const ends = () => parseFloat(style.paddingTop) + parseFloat(style.paddingBottom);
  /** The size on the screen of the whole image, which is as wide as the viewport unless it would be too high. */
  const fitted = () => {
    const [width, height] = [model.get("width"), model.get("height")];
    const room = Math.max(Math.floor(viewport.offsetWidth - sides()), 1);
    const scale = Math.min(room / width, (parseFloat(style.maxHeight) - ends()) / height);
    return [width * scale, height * scale];
  };
  const layOut = () => {
    if (!viewport.offsetWidth) return; // on a hidden page
    const [width, height] = fitted();
    // Whole pixels, in which the box widget counts.
    image.style.width = `${Math.max(Math.round(width * zoom), 1)}px`;
    image.style.height = `${Math.max(Math.round(height * zoom), 1)}px`;
    viewport.classList.toggle("gpt4roi-zoomed", zoom > 1);
    // A flat strip leaves room to look at a part of it.
    const room = Math.max(Math.round(height), LEAST_ROOM) + ends();
    viewport.style.height = zoom > 1 || height < LEAST_ROOM ? `${room}px` : "";
  };
  const forget = () => {
    detail.hidden = true;
    URL.revokeObjectURL(detail.src);
    detail.removeAttribute("src");
  };
  const askForDetail = () => {
    const [width, height] = [model.get("width"), model.get("height")];
    const frame = image.getBoundingClientRect();
    const finest = model.get("fineness");
    if (!frame.width || finest >= 1 || frame.width * devicePixelRatio <= COARSE * finest * width) return forget();
    const view = viewport.getBoundingClientRect();
    const x = (place) => Math.min(Math.max(((place - frame.left) * width) / frame.width, 0), width);
    const y = (place) => Math.min(Math.max(((place - frame.top) * height) / frame.height, 0), height);
    model.send({ type: "view", box: [x(view.left), y(view.top), x(view.right), y(view.bottom)] });
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(askForDetail, DETAIL_MS);
  };
  const showDetail = (content, buffers) => {
    if (content?.type !== "detail") return;
    forget();
    const [x1, y1, x2, y2] = content.box;
    const [width, height] = [model.get("width") / 100, model.get("height") / 100];
    Object.assign(detail.style, {
      left: `${x1 / width}%`,
      top: `${y1 / height}%`,
      width: `${(x2 - x1) / width}%`,
      height: `${(y2 - y1) / height}%`,
    });
    detail.src = URL.createObjectURL(new Blob([buffers[0]]));
    detail.hidden = false;
  };

  /**
   * at: the point on the screen, { clientX, clientY }, where the image stays fixed; the viewport's middle by default.
   * from: where that part of the image was before, if it moves.
   */
  const zoomTo = (wanted, at, from = at) => {
    const limit = Math.max(LEAST_LIMIT, (MOST_SCREEN_PIXELS * model.get("width")) / fitted()[0]);
    const view = viewport.getBoundingClientRect();
    const to = at ?? { clientX: view.left + view.width / 2, clientY: view.top + view.height / 2 };
    const { clientX, clientY } = from ?? to;
    const before = image.getBoundingClientRect();
    let [x, y] = [(clientX - before.left) / before.width, (clientY - before.top) / before.height];
    // A viewport scrolls by whole pixels, an error that the next zoom would magnify: a resting mouse keeps its point.
    const rests = held?.clientX === clientX && held.clientY === clientY;
    if (rests && Math.hypot((held.x - x) * before.width, (held.y - y) * before.height) < 2) ({ x, y } = held);
    held = { clientX: to.clientX, clientY: to.clientY, x, y };
    zoom = wanted < 1.02 ? 1 : Math.min(wanted, limit);
    layOut();
    const after = image.getBoundingClientRect();
    viewport.scrollLeft += after.left + x * after.width - to.clientX;
    viewport.scrollTop += after.top + y * after.height - to.clientY;
    changed(zoom);
    later();
  };
  const pan = (right, down) => viewport.scrollBy(right, down);
  const reset = () => {
    forget();
    zoomTo(1);
  };
  const onWheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // a pinch on a touchpad comes as a wheel with Ctrl
    event.preventDefault();
    event.stopPropagation();
    const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1);
    zoomTo(zoom * Math.exp(-pixels * WHEEL_ZOOM), event);
  };
  const keys = {
    "+": () => zoomTo(zoom * ZOOM_STEP),
    "=": () => zoomTo(zoom * ZOOM_STEP),
    "-": () => zoomTo(zoom / ZOOM_STEP),
    0: () => zoomTo(1),
    ArrowLeft: () => pan(-PAN_PIXELS, 0),
    ArrowRight: () => pan(PAN_PIXELS, 0),
    ArrowUp: () => pan(0, -PAN_PIXELS),
    ArrowDown: () => pan(0, PAN_PIXELS),
  };

  // While a theme is changed the box widget can measure an image without a width, and would keep it: boxes of no size.
  const remeasure = () =>
    requestAnimationFrame(() => {
      const measured = image.querySelector("svg")?.getAttribute("width");
      if (!measured || !image.clientWidth || Math.abs(Number(measured) - image.clientWidth) < 1) return;
      image.querySelector(".image-measure iframe")?.contentWindow?.dispatchEvent(new Event("resize"));
    });
  const measured = new MutationObserver((changes) => {
    if (changes.some(({ target }) => target.localName === "svg")) remeasure(); // and not for each box that is drawn
  });
  measured.observe(image, { subtree: true, attributeFilter: ["width"] });
  const resized = new ResizeObserver(() => {
    layOut();
    remeasure();
  });
  resized.observe(viewport);
  viewport.addEventListener("wheel", onWheel, { passive: false });
  viewport.addEventListener("scroll", later);
  model.on("msg:custom", showDetail);
  model.on("change:width change:height", reset);
  layOut();
  changed(zoom);
  return {
    by: (factor, at, from) => zoomTo(zoom * factor, at, from),
    fit: () => zoomTo(1),
    pan,
    reset,
    /** Performs a key's action; returns whether it has one. The whole image does not pan: the page scrolls instead. */
    press: (key) => {
      if (!(key in keys) || (zoom <= 1 && key.startsWith("Arrow"))) return false;
      keys[key]();
      return true;
    },
    end: () => {
      clearTimeout(timer);
      resized.disconnect();
      measured.disconnect();
      viewport.removeEventListener("wheel", onWheel);
      viewport.removeEventListener("scroll", later);
      model.off("msg:custom", showDetail);
      model.off("change:width change:height", reset);
      forget();
      detail.remove();
    },
  };
}

/** The zoom buttons. zoom: returns what `makeZoom` made, once it exists. */
function makeZoomBar(zoom) {
  const level = node("span", { className: "level", role: "status" });
  const out = button("zoom-out", "−", "Zoom out (key −, or Ctrl and the wheel)", () => zoom()?.by(1 / ZOOM_STEP));
  const more = button("zoom-in", "+", "Zoom in (key +, or Ctrl and the wheel)", () => zoom()?.by(ZOOM_STEP));
  const fit = button("zoom-fit", "Fit", "Show the whole image (key 0)", () => zoom()?.fit());
  out.ariaLabel = "Zoom out";
  more.ariaLabel = "Zoom in";
  fit.ariaLabel = "Show the whole image";
  const show = (value) => {
    level.textContent = `× ${value.toFixed(value < 10 ? 1 : 0)}`;
    out.disabled = fit.disabled = value <= 1;
  };
  show(1);
  return [node("span", { className: "zoom", role: "group", ariaLabel: "Zoom" }, out, level, more, fit), show];
}
