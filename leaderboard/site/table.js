"use strict";
// The tables: TanStack's table-core sorts and filters, and this file makes elements of the rows.

const { createTable, getCoreRowModel, getFilteredRowModel, getSortedRowModel } = TableCore;

// Return the rows of a board that the filters leave, sorted. The unedited model always comes last.
function shownRows(board, columns, state) {
  const sorting = sortOf(columns, state);
  const table = createTable({
    data: board.rows.filter((row) => !row.base),
    columns: [
      { id: "method", accessorFn: (row) => row.label, filterFn: "includesString" },
      { id: "family", accessorFn: (row) => row.family, filterFn: "equalsString" },
      ...columns.map((column) => ({
        id: column.id,
        accessorFn: (row) => row.values[column.id]?.mean ?? undefined,
        sortingFn: "basic",
        sortUndefined: "last",
      })),
    ],
    state: {},
    onStateChange() {},
    renderFallbackValue: null,
    getCoreRowModel: getCoreRowModel(),
    getFilteredRowModel: getFilteredRowModel(),
    getSortedRowModel: getSortedRowModel(),
  });
  const columnFilters = [
    { id: "family", value: state.family },
    { id: "method", value: state.search },
  ].filter((filter) => filter.value);
  table.setOptions((options) => ({
    ...options,
    state: { ...table.initialState, columnFilters, sorting },
  }));
  const rows = table.getRowModel().rows.map((row) => row.original);
  return [...rows, ...board.rows.filter((row) => row.base)];
}

// Without a choice of the reader's, tables are ranked by score.
function sortOf(columns, state) {
  const [id, direction] = state.sort.split(":");
  const known = id === "method" || columns.some((column) => column.id === decodeURIComponent(id));
  if (known) return [{ id: decodeURIComponent(id), desc: direction === "down" }];
  return columns.some((column) => column.id === "score") ? [{ id: "score", desc: true }] : [];
}

// The first click sorts the best to the top, the next one the worst.
function nextSort(column, sorting) {
  const best = column.better === "low" || column.id === "method" ? "up" : "down";
  const other = best === "up" ? "down" : "up";
  const now = sorting[0]?.id === column.id ? (sorting[0].desc ? "down" : "up") : null;
  return `${encodeURIComponent(column.id)}:${now === best ? other : best}`;
}

function drawTable(section, protocol, board, columns, state, change) {
  const sorting = sortOf(columns, state);
  const method = { id: "method", title: "Method", note: "", about: "" };
  const heads = [method, ...columns].map((column) => headCell(column, sorting, change));
  const body = shownRows(board, columns, state).map((row) =>
    element(
      "tr",
      { class: row.base ? "base" : null },
      nameCell(section, protocol, row),
      ...columns.map((column) => valueCell(section, protocol, row, column)),
    ),
  );
  return element(
    "div",
    { class: "wide", tabindex: "0" },
    element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body)),
  );
}

function headCell(column, sorting, change) {
  const sorted = sorting[0]?.id === column.id ? (sorting[0].desc ? "descending" : "ascending") : null;
  const button = element("button", { type: "button" }, column.title);
  if (column.note) button.append(element("small", {}, column.note));
  button.addEventListener("click", () => change({ sort: nextSort(column, sorting) }));
  explain(button, column.about);
  return element("th", { scope: "col", "aria-sort": sorted, "data-column": column.id }, button);
}

function nameCell(section, protocol, row) {
  const name = row.texts
    ? element("a", { href: textsOf(section, protocol, row, "all") }, row.label)
    : element("span", {}, row.label);
  const cell = element("th", { scope: "row" }, name);
  if (row.marks) cell.append(" ", element("span", { class: "quiet" }, row.marks));
  cell.append(element("small", {}, [row.family, row.status].filter(Boolean).join(", ")));
  return cell;
}

// A value is a number and, below it, what belongs to it: its interval, what was lost and gained.
function valueCell(section, protocol, row, column) {
  const value = row.values[column.id];
  if (!value) return element("td", {}, "–");
  const parts = /^(scores )?(\S+(?: [GM]iB)?) ?([[+][^(]*)?(\(.*\))?$/.exec(value.text) ?? [];
  const [, base, number = value.text, interval, moved] = parts;
  const shown = [element(value.ahead ? "b" : "span", { class: "number" }, number)];
  for (const below of [interval?.trim(), moved?.slice(1, -1), base ? "its score" : ""]) {
    if (below) shown.push(element("small", {}, below));
  }
  const linked = row.texts && column.texts;
  return element(
    "td",
    {},
    linked ? element("a", { href: textsOf(section, protocol, row, column.texts) }, ...shown) : element("span", {}, ...shown),
  );
}

// Return the address of the texts behind a value, which the texts' page reads.
function textsOf(section, protocol, row, what) {
  const fields = { method: row.key, what };
  if (protocol !== "generation") fields.protocol = protocol;
  if (what.startsWith("evaluator:")) fields.show = "all"; // its scores are neither right nor wrong
  return section.texts + "#" + new URLSearchParams(fields);
}
