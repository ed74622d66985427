"use strict";
// Sorting and searching of tables, and the charts of a grouping. The bytes of a grouping are laid out as
// grouping_charts.py writes them.

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("script");

  // ---- numbers

  const minus = (text) => text.replace("-", "−");
  const fixed = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

  /** A probability of which log10 is known, which may be far below the smallest number of JavaScript. */
  function probability(log10) {
    if (Number.isNaN(log10)) return "–";
    if (log10 === -Infinity) return "< 1e-300";
    if (log10 > -3) return String(Number((10 ** log10).toPrecision(2)));
    let exponent = Math.floor(log10);
    let digits = (10 ** (log10 - exponent)).toFixed(1);
    if (digits === "10.0") [digits, exponent] = ["1.0", exponent + 1];
    return `${digits}e${exponent}`;
  }

  /** Round numbers between low and high, about as many as asked for. */
  function ticks(low, high, about) {
    const rough = (high - low) / about || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) {
      found.push(Number((at * step).toPrecision(12)));
    }
    return found;
  }

  // ---- tables

  function cellValue(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text.replace(/,/g, ""));
    return text !== "" && !Number.isNaN(number) ? number : text;
  }

  function compare(first, second) {
    const [isFirst, isSecond] = [typeof first === "number", typeof second === "number"];
    if (isFirst && isSecond) return first - second;
    if (isFirst !== isSecond) return isFirst ? -1 : 1;
    return first.localeCompare(second, "en", { numeric: true });
  }

  function sortBy(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const descending = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [cellValue(row, column), row]);
    rows.sort((first, second) => (descending ? -1 : 1) * compare(first[0], second[0]));
    table.tBodies[0].append(...rows.map((pair) => pair[1]));
  }

  function filterRows(input) {
    const wanted = input.value.trim().toLowerCase();
    const rows = [...byId(input.dataset.searches).tBodies[0].rows];
    rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
    const found = rows.filter((row) => !row.hidden).length;
    byId(`${input.dataset.searches}-found`).textContent = wanted ? `${found} of ${rows.length} rows` : "";
  }

  document.querySelectorAll("table[data-sortable]").forEach((table) => {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sortBy(table, column));
      head.replaceChildren(button);
    });
  });
  document.querySelectorAll("input[data-searches]").forEach((input) => {
    input.addEventListener("input", () => filterRows(input));
  });

  // ---- paper, which nobody can unfold

  const unfolded = [];
  window.addEventListener("beforeprint", () => {
    unfolded.push(...document.querySelectorAll("details:not([open])"));
    unfolded.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => {
    unfolded.splice(0).forEach((details) => { details.open = false; });
  });

  if (!data.charts || !data.charts.length) return;

  // ---- the bytes of a grouping

  const [EFFECT_BINS, P_BINS, HISTOGRAM_BINS, QQ_POINTS] = data.layout;

  function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    const whole = (number) => Array.from({ length: number }, () => view.getUint32((at += 4) - 4, true));
    const real = (number) => Array.from({ length: number }, () => view.getFloat32((at += 4) - 4, true));
    const [nTests, nTop] = whole(2);
    const [low, high, top] = real(3);
    const shades = [];
    for (let pair = 0; pair < (EFFECT_BINS * P_BINS) / 2; pair += 1) {
      shades.push(bytes[at] & 15, bytes[at] >> 4);
      at += 1;
    }
    const histogram = whole(HISTOGRAM_BINS);
    const expected = real(QQ_POINTS);
    const observed = real(QQ_POINTS);
    const [topGenes, effects] = [whole(nTop), real(nTop)];
    const further = Array.from({ length: data.further }, () => real(nTop));
    const [log10P, log10Q] = [real(nTop), real(nTop)];
    const genes = topGenes.map((gene, row) => ({
      name: data.genes[gene],
      effect: effects[row],
      further: further.map((column) => column[row]),
      log10P: log10P[row],
      log10Q: log10Q[row],
      isHit: log10Q[row] <= Math.log10(data.qcut),
    }));
    const qq = expected.map((value, point) => [value, observed[point]]).filter((pair) => !Number.isNaN(pair[0]));
    return { nTests, background: { low, high, top, shades }, histogram, qq, genes };
  }

  // ---- drawing

  function draw(parent, name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  /** An empty chart with axes, in place of what is in the box; returns where numbers are. */
  function chart(box, { width, height, x, y, xLabel, yLabel, says }) {
    const [left, right, top, bottom] = [60, width - 12, 12, height - 42];
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", says);
    byId(box).replaceChildren(svg);
    const atX = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (right - left);
    const atY = (value) => bottom - ((value - y[0]) / (y[1] - y[0])) * (bottom - top);
    const word = { fill: "var(--ink)", "font-size": 12, "text-anchor": "middle" };
    const line = { stroke: "var(--grid)", "stroke-width": 1 };
    ticks(x[0], x[1], 6).forEach((value) => {
      draw(svg, "line", { x1: atX(value), x2: atX(value), y1: top, y2: bottom, ...line });
      draw(svg, "text", { x: atX(value), y: bottom + 16, ...word }, minus(value.toLocaleString("en")));
    });
    ticks(y[0], y[1], 5).forEach((value) => {
      draw(svg, "line", { x1: left, x2: right, y1: atY(value), y2: atY(value), ...line });
      draw(svg, "text", { x: left - 6, y: atY(value) + 4, ...word, "text-anchor": "end" }, minus(value.toLocaleString("en")));
    });
    draw(svg, "line", { x1: left, x2: right, y1: bottom, y2: bottom, stroke: "var(--muted)" });
    draw(svg, "line", { x1: left, x2: left, y1: top, y2: bottom, stroke: "var(--muted)" });
    draw(svg, "text", { x: (left + right) / 2, y: height - 6, ...word, "font-size": 13 }, xLabel);
    draw(svg, "text", {
      x: 0, y: 0, ...word, "font-size": 13, transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`,
    }, yLabel);
    return { svg, atX, atY, left, right, top, bottom };
  }

  function drawVolcano(grouping, name, target) {
    const { background, genes } = grouping;
    const sizes = genes.map((gene) => -gene.log10P);
    const finite = sizes.filter(Number.isFinite);
    const effects = genes.map((gene) => gene.effect).filter(Number.isFinite).concat(background.low, background.high);
    const highest = Math.max(1, background.top, ...finite) * 1.06;
    const pad = 0.05 * (Math.max(...effects) - Math.min(...effects)) || 0.5;
    const hits = genes.filter((gene) => gene.isHit);
    const named = genes.slice(0, 3).map((gene) => gene.name).join(", ");
    const place = chart("volcano", {
      width: 720, height: 430, x: [Math.min(0, ...effects) - pad, Math.max(0, ...effects) + pad], y: [0, highest],
      xLabel: data.effect, yLabel: "−log10 P",
      says: `Volcano plot of ${name}: effects of ${grouping.nTests} genes against P-values. Smallest P: ${named}. The table of top genes has numbers.`,
    });
    const { svg, atX, atY } = place;
    const stepX = (background.high - background.low) / EFFECT_BINS;
    const stepY = background.top / P_BINS;
    background.shades.forEach((shade, bin) => {
      if (!shade) return;
      const x = background.low + Math.floor(bin / P_BINS) * stepX;
      const y = ((bin % P_BINS) + 1) * stepY;
      draw(svg, "rect", {
        x: atX(x), y: atY(y), width: Math.max(1, atX(x + stepX) - atX(x)), height: Math.max(1, atY(y - stepY) - atY(y)),
        fill: "var(--muted)", opacity: 0.1 + (0.7 * shade) / 15, "shape-rendering": "crispEdges",
      });
    });
    const sizeOf = (gene) => Math.min(-gene.log10P, highest);
    const labels = draw(svg, "g", {});
    [...genes].reverse().forEach((gene) => {
      if (!Number.isFinite(gene.effect)) return;
      const side = gene.effect > 0 ? "var(--positive)" : "var(--negative)";
      const isTarget = target && gene.name === target;
      const point = draw(svg, "circle", {
        class: "point", cx: atX(gene.effect), cy: atY(sizeOf(gene)), r: gene.isHit ? 3.6 : 2.4,
        fill: gene.isHit ? side : "var(--muted)", stroke: isTarget ? "var(--ink)" : "none", "stroke-width": 2,
      });
      draw(point, "title", {}, `${gene.name}: effect ${fixed(gene.effect, 3)}, P ${probability(gene.log10P)}, Q ${probability(gene.log10Q)}`);
    });
    const ofTarget = genes.filter((gene) => target && gene.name === target);
    const labelled = [...ofTarget, ...hits.slice(0, 14).filter((gene) => gene.name !== target)];
    labelPoints({ ...place, svg: labels }, labelled.filter((gene) => Number.isFinite(gene.effect)), sizeOf);
  }

  /** Names beside points, in their order; one that would cover another is tried on the other sides, then left out. */
  function labelPoints({ svg, atX, atY, left, right, top }, genes, sizeOf) {
    const taken = genes.map((gene) => {
      const [x, y] = [atX(gene.effect), atY(sizeOf(gene))];
      return [x - 3, x + 3, y - 3, y + 3];
    });
    genes.forEach((gene, own) => {
      const [x, y] = [atX(gene.effect), atY(sizeOf(gene))];
      const width = 7.4 * gene.name.length;
      const places = [[x + 6, x + 6 + width, y + 4], [x - 6 - width, x - 6, y + 4], [x - width / 2, x + width / 2, y - 7], [x - width / 2, x + width / 2, y + 16]];
      const free = places.find(([from, to, base]) => from >= left && to <= right && base - 10 >= top && taken.every(
        (box, other) => other === own || to < box[0] || from > box[1] || base + 2 < box[2] || base - 10 > box[3],
      ));
      if (!free) return;
      draw(svg, "text", {
        x: free[0], y: free[2], "font-size": 12, fill: "var(--ink)", stroke: "var(--card)", "stroke-width": 3, "paint-order": "stroke",
      }, gene.name);
      taken.push([free[0], free[1], free[2] - 10, free[2] + 2]);
    });
  }

  function drawHistogram(grouping, name) {
    const { histogram, nTests } = grouping;
    const even = nTests / HISTOGRAM_BINS;
    const { svg, atX, atY, left, right } = chart("p-histogram", {
      width: 460, height: 320, x: [0, 1], y: [0, Math.max(...histogram, even) * 1.05 || 1], xLabel: "P", yLabel: "genes",
      says: `Histogram of the P-values of ${name}: ${histogram[0]} of ${nTests} genes have P below ${1 / HISTOGRAM_BINS}; without effects ${Math.round(even)} are expected.`,
    });
    histogram.forEach((number, bin) => {
      const x = atX(bin / HISTOGRAM_BINS);
      draw(svg, "rect", { x: x + 0.5, y: atY(number), width: atX((bin + 1) / HISTOGRAM_BINS) - x - 1, height: atY(0) - atY(number), fill: "var(--first)" });
    });
    draw(svg, "line", { x1: left, x2: right, y1: atY(even), y2: atY(even), stroke: "var(--ink)", "stroke-dasharray": "5 4" });
  }

  function drawQuantiles(grouping, row, name) {
    const points = grouping.qq;
    const longest = Math.max(1, ...points.map((pair) => pair[0])) * 1.05;
    const highest = Math.min(Math.max(longest, ...points.map((pair) => pair[1]).filter(Number.isFinite)), Math.max(4 * longest, 12)) * 1.03;
    const inflation = data.inflation[row];
    const { svg, atX, atY, left, top } = chart("qq-plot", {
      width: 460, height: 320, x: [0, longest], y: [0, highest], xLabel: "Expected −log10 P", yLabel: "Observed −log10 P",
      says: `QQ plot of ${name}: genomic inflation ${inflation ?? "unknown"}.`,
    });
    draw(svg, "line", { x1: atX(0), y1: atY(0), x2: atX(longest), y2: atY(longest), stroke: "var(--muted)", "stroke-dasharray": "5 4", "stroke-width": 1.5 });
    [...data.null, { label: name, points, colour: "var(--first)" }].forEach(({ label, points: pairs, colour }, order) => {
      pairs.filter((pair) => pair[0] <= longest).forEach(([x, y]) => {
        if (y > highest) draw(svg, "path", { class: "beyond", d: `M ${atX(x)} ${top - 3} l 4 7 h -8 z`, fill: colour });
        else draw(svg, "circle", { cx: atX(x), cy: atY(y), r: 2.6, fill: colour });
      });
      const y = top + 10 + 17 * order;
      draw(svg, "circle", { cx: left + 14, cy: y - 4, r: 4, fill: colour });
      draw(svg, "text", { x: left + 24, y, "font-size": 12, fill: "var(--ink)" }, label.length > 40 ? `${label.slice(0, 39)}…` : label);
    });
  }

  function fillTop(genes) {
    const rows = genes.map((gene) => {
      const row = document.createElement("tr");
      row.className = gene.isHit ? "hit" : "";
      [
        [gene.name, gene.name], ...[gene.effect, ...gene.further].map((value) => [fixed(value, 3), value]),
        [probability(gene.log10P), gene.log10P], [probability(gene.log10Q), gene.log10Q],
      ].forEach(([text, value]) => {
        const cell = row.insertCell();
        cell.textContent = text;
        cell.dataset.value = value;
        if (typeof value === "string") cell.className = "text";
      });
      return row;
    });
    const table = byId("top");
    table.tBodies[0].replaceChildren(...rows);
    [...table.tHead.rows[0].cells].forEach((head) => head.removeAttribute("aria-sort"));
    filterRows(byId("top-search"));
  }

  function show(row) {
    const name = data.names[row];
    const grouping = unpack(data.charts[row]);
    const target = data.targets[row];
    byId("picker").value = String(row);
    byId("previous").disabled = row === 0;
    byId("next").disabled = row === data.names.length - 1;
    byId("chosen-name").textContent = `${data.noun} ${name}`;
    byId("chosen-facts").textContent = [
      target ? `target ${target}` : "", data.sizes[row],
      `${data.hits[row].toLocaleString("en")} of ${grouping.nTests.toLocaleString("en")} genes with Q ≤ ${data.qcut}`,
      `genomic inflation ${data.inflation[row] === null ? "unknown" : data.inflation[row].toFixed(3)}`,
    ].filter(Boolean).join(", ");
    drawVolcano(grouping, name, target);
    drawHistogram(grouping, name);
    drawQuantiles(grouping, row, name);
    fillTop(grouping.genes);
    document.querySelectorAll("[data-row]").forEach((button) => {
      const isChosen = button.dataset.row === String(row);
      button.closest("tr").classList.toggle("chosen", isChosen);
      if (isChosen) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  }

  const picker = byId("picker");
  data.names.forEach((name, row) => picker.add(new Option(name, String(row))));
  picker.addEventListener("change", () => show(Number(picker.value)));
  byId("previous").addEventListener("click", () => show(Number(picker.value) - 1));
  byId("next").addEventListener("click", () => show(Number(picker.value) + 1));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-row]");
    if (!button) return;
    show(Number(button.dataset.row));
    picker.focus();
    byId("explorer").scrollIntoView();
  });
  show(data.hits.indexOf(Math.max(...data.hits)));
})();
