"use strict";
// What an edit gained against what it cost: any two columns, and a third as the size of the points.

const COLORS = ["#3b76b8", "#c9722b", "#4c9a5a", "#8a63b0", "#b8577f", "#7d7d34", "#4aa0a8", "#a0522d"];
const LOGARITHMIC = /^(seconds$|phase:|work:)/;

function families(boards) {
  return [...new Set(boards.flatMap((board) => board.rows.map((row) => row.family)))].sort();
}

// Return the columns that have numbers, in groups for a select.
function axisOptions(board) {
  const measured = board.columns.filter((column) => board.rows.some((row) => Number.isFinite(row.values[column.id]?.mean)));
  return Object.entries(data.views)
    .map(([view, group]) => ({
      group,
      options: measured.filter((column) => column.view === view).map((column) => [column.id, column.title.replace(/ [↑↓]/, "")]),
    }))
    .filter((group) => group.options.length);
}

// Return the axes of the plot: what the reader chose, where this board has it, or the usual ones.
function axesOf(board, state) {
  const known = new Set(axisOptions(board).flatMap((group) => group.options.map(([id]) => id)));
  const first = (...names) => names.find((name) => known.has(name)) ?? [...known][0];
  return {
    x: first(state.x, "efficacy", "retention"),
    y: first(state.y, "retention", "specificity"),
    size: state.size === "none" ? "none" : first(state.size, "seconds", "memory"),
  };
}

function pointsOf(section, protocol, rows, axes) {
  const largest = Math.max(...rows.map((row) => row.values[axes.size]?.mean ?? 0)) || 1;
  return rows
    .map((row) => {
      const [x, y, size] = [axes.x, axes.y, axes.size].map((id) => row.values[id] ?? {});
      return {
        label: row.label, family: row.family, base: row.base, x: x.mean, y: y.mean,
        // The area of a point shows its size, and none is too small to be hit.
        radius: axes.size === "none" ? 6 : 5 + 11 * Math.sqrt(Math.max(0, size.mean ?? 0) / largest),
        left: x.low ?? x.mean, right: x.high ?? x.mean, bottom: y.low ?? y.mean, top: y.high ?? y.mean,
        texts: { x: x.text, y: y.text, size: size.text }, href: row.texts ? textsOf(section, protocol, row, "all") : null,
      };
    })
    .filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y));
}

function drawPlot(section, protocol, board, rows, state, width) {
  const axes = axesOf(board, state);
  const title = (id) => board.columns.find((column) => column.id === id)?.title ?? "";
  const points = pointsOf(section, protocol, rows, axes);
  if (!points.length) return element("p", { class: "quiet" }, "No row has both of these numbers, so there is nothing to draw.");
  const scale = (id, name, pixels) => ({
    label: title(id), nice: true, inset: 12, labelArrow: "none", ticks: Math.max(3, Math.round(pixels / 90)),
    type: LOGARITHMIC.test(id) && points.every((point) => point[name] > 0) ? "log" : "linear",
  });
  const told = (point) =>
    [point.label, `${title(axes.x)}: ${point.texts.x}`, `${title(axes.y)}: ${point.texts.y}`]
      .concat(axes.size === "none" ? [] : [`${title(axes.size)}: ${point.texts.size ?? "–"}`])
      .join("\n");
  const ink = { stroke: "family", strokeWidth: 1.2, strokeOpacity: 0.55 };
  const height = Math.min(460, Math.max(320, width * 0.5));
  const figure = Plot.plot({
    width, height, marginLeft: 52, marginBottom: 44, marginTop: 36,
    grid: true, x: scale(axes.x, "x", width), y: scale(axes.y, "y", height),
    style: { background: "transparent", color: "inherit", fontFamily: "inherit", fontSize: "12px" },
    color: { domain: families([board]), range: COLORS, legend: true },
    r: { type: "identity" },
    symbol: { type: "identity" },
    marks: [
      Plot.ruleY(points, { y: "y", x1: "left", x2: "right", ...ink }),
      Plot.ruleX(points, { x: "x", y1: "bottom", y2: "top", ...ink }),
      Plot.dot(points, {
        x: "x", y: "y", r: "radius", fill: "family", fillOpacity: 0.8, stroke: "var(--page)",
        symbol: (point) => (point.base ? "diamond" : "circle"), href: "href", ariaLabel: told,
      }),
      ...points.map((point) => Plot.text([point], {
        x: "x", y: "y", text: "label", dy: -point.radius - 3, lineAnchor: "bottom", fill: "currentColor", stroke: "var(--page)", strokeWidth: 4,
      })),
      // A tip that takes no clicks: it begins at its point, whose link it would cover.
      Plot.tip(points, Plot.pointer({
        x: "x", y: "y", title: told, fill: "var(--page)", stroke: "var(--line)", pointerEvents: "none",
      })),
    ],
  });
  figure.setAttribute("role", "group");
  return figure;
}

function plotBar(board, state, change) {
  const options = axisOptions(board);
  const axes = axesOf(board, state);
  return element(
    "form",
    { class: "bar" },
    select("x", "Across", options, axes.x, change),
    select("y", "Up", options, axes.y, change),
    select("size", "Size of a point", [["none", "all alike"], ...options], axes.size, change),
  );
}
