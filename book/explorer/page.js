// The page of the explorer: picture, box, switches, ranking.
"use strict";
(() => {
  const root = document.querySelector(".explorer");
  if (!root) return;
  const folder = root.dataset.folder, engine = window.explorer, svg = "http://www.w3.org/2000/svg";
  let query = 0, box = [0, 0, 1, 1], many = 24, drag = null;

  const make = (tag, attributes = {}, ...inside) => {
    const element = ["svg", "rect"].includes(tag) ? document.createElementNS(svg, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...inside);
    return element;
  };
  const choice = (label, name, options) =>  // an option: a value, or a value and its text
    make("label", {}, `${label} `, make("select", {name}, ...options.map((each) => [each].flat()).map((each) =>
      make("option", {value: each[0]}, each.at(-1)))));

  function start() {
    const about = engine.about(), {sheet, images, queries} = about;
    const thumbnail = (image) => {
      const x = image % sheet.columns, y = Math.floor(image / sheet.columns), side = sheet.side;
      return `background: url("${folder}/thumbnails.jpg") -${x * side}px -${y * side}px; width: ${side}px; height: ${side}px`;
    };
    const pictures = make("div", {class: "queries", role: "group", "aria-label": "Query pictures"}, ...queries.map((each, number) =>
      make("button", {"aria-label": each.name, style: thumbnail(each.image), "data-query": number})));
    const picture = make("img", {alt: ""}), overlay = make("svg", {preserveAspectRatio: "none", viewBox: "0 0 1 1", "aria-hidden": "true"});
    const stage = make("div", {class: "stage", tabindex: "0", role: "application",
      "aria-label": "Box: arrow keys move it, with shift resize it, escape: the whole picture"}, picture, overlay);
    const form = make("form", {class: "switches"},
      choice("Network", "network", ["trained", "untrained"]),
      choice("Levels", "levels", about.levels),
      choice("Resolutions", "several", [[0, "one"], [1, "three"]]),
      choice("DBA", "dba", [[0, "off"], 5, 10, 20]),
      choice("QE", "qe", [[0, "off"], 1, 2, 5]),
      choice("Bytes", "bytes", [about.dims, ...about.codes]));
    form.elements.levels.value = 2;
    const status = make("p", {class: "status", role: "status"}), ranking = make("ol", {class: "ranking"});
    const more = make("button", {class: "more"}, "Show more");
    root.replaceChildren(pictures, make("div", {class: "bench"}, stage, make("div", {}, form, status)), ranking, more);

    const settings = () => {
      const {network, ...numbers} = Object.fromEntries(new FormData(form));
      for (const name in numbers) numbers[name] = +numbers[name];
      return {network, ...numbers, several: numbers.several > 0};
    };

    function draw() {
      const [rows, columns] = about.shapes[query][about.single], part = engine.cellsOf(box, rows, columns);
      const squares = engine.rigidGrid(part.rows, part.columns, settings().levels);
      overlay.replaceChildren(...squares.map(([x, y, side]) => make("rect", {class: "square", x: (part.x + x) / columns,
        y: (part.y + y) / rows, width: side / columns, height: side / rows})),
        make("rect", {class: "box", x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1]}));
    }

    function search() {
      draw();
      const given = settings();
      engine.rank(query, box, given);  // makes the database of new settings: not timed
      const began = performance.now(), found = engine.rank(query, box, given), took = performance.now() - began;
      const {positives, junk} = queries[query];
      const kind = (image) => (positives.includes(image) ? "good" : junk.includes(image) ? "junk" : "other");
      status.textContent = `Average precision ${(100 * engine.averagePrecision(query, found)).toFixed(1)} %. ` +
        `${images.length} pictures ranked in ${took.toFixed()} ms, ${positives.length} show this monument.`;
      ranking.replaceChildren(...found.slice(0, many).map((image, place) => make("li", {class: kind(image), style: thumbnail(image),
        title: `${place + 1}: ${images[image]}, ${kind(image)}`})));
      more.hidden = many >= images.length;
    }

    function choose(number) {
      query = number;
      const {file, width, height, box: given} = queries[query];
      picture.src = `${folder}/${file}`;
      picture.alt = `The query ${queries[query].name}`;
      stage.style.aspectRatio = `${width} / ${height}`;
      stage.style.width = `${22 * Math.min(1, width / height)}rem`;
      box = given ? [given[0] / width, given[1] / height, given[2] / width, given[3] / height] : [0, 0, 1, 1];
      for (const each of pictures.children) each.setAttribute("aria-pressed", +each.dataset.query === query);
      search();
    }

    const place = (event) => {
      const {left, top, width, height} = stage.getBoundingClientRect();
      return [(event.clientX - left) / width, (event.clientY - top) / height].map((value) => Math.min(Math.max(value, 0), 1));
    };
    stage.addEventListener("pointerdown", (event) => { drag = place(event); stage.setPointerCapture(event.pointerId); });
    stage.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const [x, y] = place(event);
      box = [Math.min(x, drag[0]), Math.min(y, drag[1]), Math.max(x, drag[0]), Math.max(y, drag[1])];
      draw();
    });
    const end = () => {
      if (!drag) return;
      drag = null;
      if (box[2] - box[0] < 0.03 || box[3] - box[1] < 0.03) box = [0, 0, 1, 1];  // a click
      search();
    };
    stage.addEventListener("pointerup", end);
    stage.addEventListener("pointercancel", end);
    stage.addEventListener("keydown", (event) => {
      const [x, y] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key] ?? [0, 0];
      if (event.key === "Escape") box = [0, 0, 1, 1];
      else if (!x && !y) return;
      else if (event.shiftKey) {
        const moved = (i, by) => Math.min(1, Math.max(box[i - 2] + 0.05, box[i] + 0.04 * by));
        box = [box[0], box[1], moved(2, x), moved(3, y)];
      } else {
        const shift = [0.04 * x, 0.04 * y].map((by, i) => Math.min(1 - box[i + 2], Math.max(-box[i], by)));
        box = box.map((value, i) => value + shift[i % 2]);
      }
      event.preventDefault();
      search();
    });
    form.addEventListener("change", search);
    pictures.addEventListener("click", (event) => { if (event.target.dataset.query) choose(+event.target.dataset.query); });
    more.addEventListener("click", () => { many *= 2; search(); });
    choose(0);
  }

  // The data are large: after the page. Without a server only a script can read them.
  window.addEventListener("load", () => {
    const data = make("script", {src: `${folder}/data.js`});
    data.addEventListener("load", () => engine.load(window.explorerData).then(start));
    document.body.append(data);
  });
})();
