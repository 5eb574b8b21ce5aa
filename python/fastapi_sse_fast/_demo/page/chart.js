// A line chart in SVG: some series of points, from zero.

const SPACE = { left: 44, right: 8, top: 6, bottom: 20 };

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const STEPS = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

/** Return the least round number that is not less. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return STEPS.find((factor) => factor * power >= value) * power;
}

export class Chart {
  constructor(svg, { least, format, formatX }) {
    this.svg = svg;
    this.least = least;
    this.format = format;
    this.formatX = formatX;
    this.draw([], 1);
    new ResizeObserver(() => this.draw(this.series, this.end)).observe(svg);
  }

  draw(series, end) {
    this.series = series;
    this.end = end;
    const values = series.flatMap((one) => one.points.map(([, value]) => value));
    const top = roundUp(Math.max(this.least, ...values));
    const width = this.svg.clientWidth - SPACE.left - SPACE.right;
    const height = this.svg.clientHeight - SPACE.top - SPACE.bottom;
    const x = (value) => SPACE.left + (value / end) * width;
    const y = (value) => SPACE.top + (1 - value / top) * height;
    const drawn = [];
    for (const value of [0, top / 2, top]) {
      const at = { x1: x(0), x2: x(end), y1: y(value), y2: y(value) };
      drawn.push(element("line", { class: "grid", ...at }));
      const place = { x: SPACE.left - 8, y: y(value) + 4, "text-anchor": "end" };
      drawn.push(element("text", place, this.format(value)));
    }
    const foot = SPACE.top + height + 16;
    drawn.push(element("text", { x: x(0), y: foot }, this.formatX(0)));
    const right = { x: x(end), y: foot, "text-anchor": "end" };
    drawn.push(element("text", right, this.formatX(end)));
    for (const one of series) {
      const line = one.points.map(([at, value]) => `${x(at)},${y(value)}`).join(" ");
      drawn.push(element("polyline", { class: one.name, points: line }));
    }
    this.svg.replaceChildren(...drawn);
  }
}
