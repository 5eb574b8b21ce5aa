// A line chart in SVG: some series of [seconds, value], from zero.

const SPACE = { left: 44, right: 8, top: 6, bottom: 20 };

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** The least of 1, 2, 5, 10, 20, … that is not less. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((factor) => factor * power >= value) * power;
}

export class Chart {
  constructor(svg, { least, format }) {
    this.svg = svg;
    this.least = least;
    this.format = format;
    this.draw([], 1);
    new ResizeObserver(() => this.draw(this.series, this.seconds)).observe(svg);
  }

  draw(series, seconds) {
    this.series = series;
    this.seconds = seconds;
    const values = series.flatMap((one) => one.points.map(([, value]) => value));
    const top = roundUp(Math.max(this.least, ...values));
    const width = this.svg.clientWidth - SPACE.left - SPACE.right;
    const height = this.svg.clientHeight - SPACE.top - SPACE.bottom;
    const x = (value) => SPACE.left + (value / seconds) * width;
    const y = (value) => SPACE.top + (1 - value / top) * height;
    const drawn = [];
    for (const value of [0, top / 2, top]) {
      const at = { x1: x(0), x2: x(seconds), y1: y(value), y2: y(value) };
      drawn.push(element("line", { class: "grid", ...at }));
      const place = { x: SPACE.left - 8, y: y(value) + 4, "text-anchor": "end" };
      drawn.push(element("text", place, this.format(value)));
    }
    const foot = SPACE.top + height + 16;
    drawn.push(element("text", { x: x(0), y: foot }, "0 s"));
    const end = { x: x(seconds), y: foot, "text-anchor": "end" };
    drawn.push(element("text", end, `${seconds.toFixed(1)} s`));
    for (const one of series) {
      const line = one.points.map(([time, value]) => `${x(time)},${y(value)}`).join(" ");
      drawn.push(element("polyline", { class: one.name, points: line }));
    }
    this.svg.replaceChildren(...drawn);
  }
}
