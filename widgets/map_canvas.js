// Maps over an image: colors, canvas, boxes, colour bar, downloads. Put in front of the inspectors' own modules.

const SVG = "http://www.w3.org/2000/svg";

function choices(name, words, options, change) {
  const field = node("select", { ariaLabel: words });
  field.dataset.choice = name;
  for (const [value, text] of options) field.append(node("option", { value, textContent: text }));
  field.addEventListener("change", () => change(field.value));
  return field;
}

/** The kernel's bytes as float32, at any offset in their message. */
function floats(view) {
  return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function bytes(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** A share in percent, with as many digits as are meaningful. */
function percent(share) {
  const value = 100 * share;
  if (value === 0) return "0 %";
  if (value < 0.005) return "< 0.01 %";
  return `${value >= 9.995 ? value.toFixed(0) : value >= 0.9995 ? value.toFixed(1) : value.toFixed(2)} %`;
}

/** Index into the color table for a value between low and high. */
function step(value, low, high) {
  const place = high > low ? (value - low) / (high - low) : 0;
  return Math.round(255 * Math.min(Math.max(place, 0), 1));
}

function colorOf(table, index) {
  return `rgb(${table[3 * index]}, ${table[3 * index + 1]}, ${table[3 * index + 2]})`;
}

/** One opaque canvas pixel per cell, so that reading a pixel gives what was drawn. `hidden` cells stay empty. */
function paint(canvas, values, columns, low, high, table, hidden = []) {
  const rows = values.length / columns;
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = context.createImageData(columns, rows);
  const out = pixels.data;
  for (let cell = 0; cell < values.length; cell += 1) {
    const color = 3 * step(values[cell], low, high);
    out[4 * cell] = table[color];
    out[4 * cell + 1] = table[color + 1];
    out[4 * cell + 2] = table[color + 2];
    out[4 * cell + 3] = 255;
  }
  for (const cell of hidden) out[4 * cell + 3] = 0;
  context.putImageData(pixels, 0, 0);
}

/** Already colored pixels: rgb (rows × columns × 3) between 0 and 1. */
function paintColors(canvas, rgb, columns) {
  const cells = rgb.length / 3;
  Object.assign(canvas, { width: columns, height: cells / columns });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, cells / columns);
  for (let cell = 0; cell < cells; cell += 1) {
    for (let i = 0; i < 3; i += 1) pixels.data[4 * cell + i] = Math.round(255 * rgb[3 * cell + i]);
    pixels.data[4 * cell + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

/** The regions' boxes and numbers, to put over an image. size: of the image that the boxes are in, in pixels. */
function drawBoxes(layer, size, regions) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const chips = [];
  for (const { number, color, box } of regions) {
    const [x1, y1, x2, y2] = box;
    for (const [paintColor, width] of [["#fff", 5], [color, 3]]) {
      const rect = document.createElementNS(SVG, "rect");
      const attributes = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, fill: "none", stroke: paintColor };
      Object.entries(attributes).forEach(([name, value]) => rect.setAttribute(name, value));
      rect.setAttribute("stroke-width", width);
      rect.setAttribute("vector-effect", "non-scaling-stroke");
      rect.dataset.region = number;
      svg.append(rect);
    }
    const chip = node("span", { className: "number", textContent: number });
    chip.style.background = color;
    chip.style.left = `${(100 * x1) / size[0]}%`;
    chip.style.top = `${(100 * y1) / size[1]}%`;
    chips.push(chip);
  }
  layer.replaceChildren(svg, ...chips);
}

/** An image, a map over it and boxes over both. frame: what the map covers; what lies beside the image is not shown. */
function makeStage(url, size, frame = [0, 0, ...size]) {
  const image = node("img", { src: url, alt: "" });
  const canvas = node("canvas", { role: "img" });
  const [x1, y1, x2, y2] = frame;
  const [width, height] = [x2 - x1, y2 - y1];
  const share = (part, whole) => `${(100 * part) / whole}%`;
  Object.assign(canvas.style, {
    left: share(x1, size[0]), top: share(y1, size[1]), width: share(width, size[0]), height: share(height, size[1]),
  });
  const beside = [share(Math.max(-y1, 0), height), share(Math.max(x2 - size[0], 0), width), share(Math.max(y2 - size[1], 0), height), share(Math.max(-x1, 0), width)];
  if (beside.some((side) => side !== "0%")) canvas.style.clipPath = `inset(${beside.join(" ")})`;
  const boxes = node("div", { className: "boxes" });
  const element = node("div", { className: "stage" }, image, canvas, boxes);
  element.style.aspectRatio = `${size[0]} / ${size[1]}`;
  return { element, image, canvas, boxes };
}

/** A colour bar with labels at its ends. */
function makeBar(table) {
  const canvas = node("canvas", { width: 256, height: 1, ariaHidden: "true" });
  paint(canvas, Float32Array.from({ length: 256 }, (_, i) => i), 256, 0, 255, table);
  const low = node("span");
  const high = node("span");
  const words = node("span", { className: "hint" });
  return { element: node("div", { className: "colorbar" }, low, canvas, high, words), low, high, words };
}

function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = node("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function dataUrl(view, type = "image/png") {
  let text = "";
  const values = bytes(view);
  for (let i = 0; i < values.length; i += 4096) text += String.fromCharCode(...values.subarray(i, i + 4096));
  return `data:${values[0] === 0xff ? "image/jpeg" : type};base64,${btoa(text)}`;
}

/** Words in lines of at most so many characters. */
function wrapped(text, length) {
  const lines = [];
  for (const word of text.split(" ")) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + word.length < length) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** What a stage shows, with a caption, as a self-contained SVG document. */
function stageSvg({ url, size, map, columns, frame = [0, 0, ...size], opacity, regions, caption }) {
  const [width, height] = size;
  const [left, top, right, bottom] = frame;
  const line = Math.max(Math.sqrt(width * height) / 180, 1);
  const font = 7 * line;
  const escape = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
  const rows = map.length / columns;
  const cells = map.map((color, cell) => {
    if (!color) return "";
    const [across, down] = [(right - left) / columns, (bottom - top) / rows];
    const x = left + (cell % columns) * across;
    const y = top + Math.floor(cell / columns) * down;
    const [x1, y1] = [Math.max(x, 0), Math.max(y, 0)];
    const [w, h] = [Math.min(x + across, width) - x1, Math.min(y + down, height) - y1];
    return w > 0 && h > 0 ? `<rect x="${x1}" y="${y1}" width="${w}" height="${h}" fill="${color}"/>` : "";
  });
  const boxes = regions.map(({ number, color, box: [x1, y1, x2, y2] }) => {
    const place = `x="${x1}" y="${y1}" width="${x2 - x1}" height="${y2 - y1}" fill="none"`;
    return (
      `<rect ${place} stroke="#fff" stroke-width="${2 * line}"/><rect ${place} stroke="${color}" stroke-width="${line}"/>` +
      `<rect x="${x1}" y="${y1}" width="${font}" height="${1.3 * font}" fill="${color}"/>` +
      `<text x="${x1 + font / 2}" y="${y1 + font}" text-anchor="middle" fill="#fff" font-weight="bold">${number}</text>`
    );
  });
  const rowsOfText = caption.flatMap((text) => wrapped(text, Math.floor(width / (0.56 * font))));
  const lines = rowsOfText.map(
    (text, i) => `<text x="${font / 2}" y="${height + (i + 1) * 1.4 * font}" fill="#222">${escape(text)}</text>`,
  );
  const total = height + (rowsOfText.length + 0.6) * 1.4 * font;
  return (
    `<svg xmlns="${SVG}" viewBox="0 0 ${width} ${total}" width="${width}" height="${total}" font-family="sans-serif" ` +
    `font-size="${font}"><rect width="100%" height="100%" fill="#fff"/><image href="${url}" width="${width}" ` +
    `height="${height}" preserveAspectRatio="none" style="filter: grayscale(1)"/>` +
    `<g opacity="${opacity}" shape-rendering="crispEdges">${cells.join("")}</g>${boxes.join("")}${lines.join("")}</svg>`
  );
}

/** The same as PNG, at twice the resolution. */
async function svgToPng(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;base64,${btoa(unescape(encodeURIComponent(svg)))}`;
  await image.decode();
  const canvas = node("canvas", { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

