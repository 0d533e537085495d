"use strict";
// The page of tables: what the filters leave, drawn anew at each change of the address.

const DEFAULTS = {
  model: "", corpus: "", regime: "", protocol: "", family: "", search: "",
  view: "scores", sort: "", x: "", y: "", size: "",
};
const FACETS = { model: "Model", corpus: "Corpus", regime: "Regime" };

function change(fields) {
  const state = { ...readState(DEFAULTS), ...fields };
  history.replaceState(null, "", address(state, DEFAULTS));
  draw();
}

const uniqueOf = (values) => [...new Set(values)].sort();
const every = (text, values) => [...(values.length > 1 ? [["", text]] : []), ...values.map((value) => [value, value])];

function drawFilters(state) {
  const boxes = Object.entries(FACETS).map(([name, label]) =>
    select(name, label, every("all", uniqueOf(data.sections.map((section) => section.facets[name]))), state[name], change),
  );
  const protocols = uniqueOf(data.sections.flatMap((section) => Object.keys(section.protocols)));
  const boards = data.sections.flatMap((section) => Object.values(section.protocols));
  const first = Object.keys(data.sections[0].protocols)[0];
  boxes.push(
    select("protocol", "Protocol", protocols.map((name) => [name, name]), state.protocol || first, change),
    select("family", "Method family", every("all", families(boards)), state.family, change),
  );
  const old = document.querySelector("#filters input");
  const form = document.getElementById("filters");
  // The search box stays while it is typed in.
  if (!old) form.append(searchBox("search", "Method", state.search, change));
  else if (old !== document.activeElement) old.value = state.search;
  form.querySelectorAll("label:not(.search)").forEach((label) => label.remove());
  form.prepend(...boxes);
}

function drawViews(state, sections) {
  const used = new Set(sections.flatMap(([, , board]) => board.columns.map((column) => column.view)));
  const buttons = Object.entries(data.views)
    .filter(([view]) => used.has(view))
    .map(([view, title]) => {
      const button = element("button", { type: "button", "aria-pressed": String(view === state.view) }, title);
      button.addEventListener("click", () => change({ view, sort: "" }));
      return button;
    });
  document.getElementById("views").replaceChildren(...buttons);
}

// Return the settings that the filters leave, each with the protocol and the board to show.
function chosen(state) {
  return data.sections
    .filter((section) => Object.keys(FACETS).every((name) => !state[name] || section.facets[name] === state[name]))
    .map((section) => {
      const protocol = section.protocols[state.protocol] ? state.protocol : Object.keys(section.protocols)[0];
      return [section, protocol, section.protocols[protocol]];
    })
    .filter(([, protocol]) => !state.protocol || protocol === state.protocol);
}

function drawSection(section, protocol, board, state, width) {
  const columns = board.columns.filter((column) => column.view === state.view);
  const rows = shownRows(board, columns, state);
  const parts = [element("h2", { id: `s${section.id}` }, section.title), element("p", { class: "quiet" }, section.line)];
  if (columns.length) {
    parts.push(drawTable(section, protocol, board, columns, state, change), copyButtons(section, protocol, columns, rows));
  } else {
    parts.push(element("p", { class: "quiet" }, "This setting has no such columns."));
  }
  parts.push(element("h3", {}, "Gain against cost"), plotBar(board, state, change), element("figure", {}, drawPlot(section, protocol, board, rows, state, width)));
  const told = [`Protocol ${protocol}. ${board.about}`, ...board.detectable, ...section.notes, `Inputs: ${section.inputs}.`];
  const list = element("ul", {}, ...told.map((text) => element("li", {}, text)));
  parts.push(element("details", { class: "notes", open: true }, element("summary", {}, "Notes and warnings"), list));
  return element("section", {}, ...parts);
}

function draw() {
  const state = readState(DEFAULTS);
  const sections = chosen(state);
  const main = document.getElementById("sections");
  drawFilters(state);
  drawViews(state, sections);
  const made = sections.map((each) => drawSection(...each, state, Math.min(main.clientWidth, 960)));
  if (!made.length) made.push(element("p", {}, "No setting is left by these filters."));
  if (made.length > 1) {
    made.unshift(element("p", { class: "quiet" }, `${made.length} settings: rows are ranked within their own table, since numbers of different models, facts or tasks cannot be compared.`));
  }
  main.replaceChildren(...made);
}

addEventListener("hashchange", draw);
addEventListener("resize", draw);
document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => {
  if (form.method !== "dialog") event.preventDefault();
}));
draw();
