"use strict";
// A table as CSV, JSON or LaTeX, and the citation, to copy or to save.

function ends(row, column) {
  const value = row.values[column.id] ?? {};
  return [value.mean ?? null, value.low ?? null, value.high ?? null];
}

function asCsv(columns, rows) {
  // A text that a spreadsheet would take for a formula starts with an apostrophe.
  const quoted = (value) => {
    const text = value === null ? "" : String(value);
    const harmless = typeof value === "string" && /^[=+\-@\t]/.test(text) ? `'${text}` : text;
    return /[",\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
  };
  const header = ["method", "family", ...columns.flatMap(({ id }) => [id, `${id}_low`, `${id}_high`])];
  const lines = rows.map((row) => [row.label, row.family, ...columns.flatMap((column) => ends(row, column))]);
  return [header, ...lines].map((line) => line.map(quoted).join(",") + "\n").join("");
}

function asJson(section, protocol, columns, rows) {
  const records = rows.map((row) => ({
    method: row.label,
    family: row.family,
    ...Object.fromEntries(
      columns.map((column) => {
        const [mean, low, high] = ends(row, column);
        return [column.id, { mean, low, high }];
      }),
    ),
  }));
  return JSON.stringify({ setting: section.title, conditions: section.line, inputs: section.inputs, protocol, rows: records }, null, 2) + "\n";
}

const LATEX = {
  "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "$": "\\$", "&": "\\&", "#": "\\#", "%": "\\%",
  "_": "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "↑": "$\\uparrow$",
  "↓": "$\\downarrow$", "–": "--", "†": "$\\dagger$", "‡": "$\\ddagger$", "§": "\\S{}", "¶": "\\P{}", "×": "$\\times$",
};

function asLatex(section, protocol, columns, rows) {
  const plain = (text) => text.replace(/[\\{}$&#%_~^↑↓–†‡§¶×]/g, (character) => LATEX[character]).replaceAll("\n", " ");
  const cell = (row, column) => {
    const value = row.values[column.id];
    const text = plain(value?.text ?? "–");
    return value?.ahead ? `\\textbf{${text}}` : text;
  };
  const line = (cells) => `${cells.join(" & ")} \\\\\n`;
  return (
    `% ${plain(section.title)}, protocol ${protocol}; intervals of 95 %; needs the package booktabs\n` +
    `\\begin{tabular}{l${"r".repeat(columns.length)}}\n\\toprule\n` +
    line(["Method", ...columns.map((column) => plain(column.title))]) +
    "\\midrule\n" +
    rows.map((row) => line([plain(`${row.label} ${row.marks}`.trim()), ...columns.map((column) => cell(row, column))])).join("") +
    "\\bottomrule\n\\end{tabular}\n"
  );
}

// Show a text in the dialog, where it can be copied or saved under `name`.
function offer(title, text, name) {
  const dialog = document.getElementById("copies");
  const box = dialog.querySelector("textarea");
  const [copy, save] = ["copy", "save"].map((id) => document.getElementById(id));
  dialog.querySelector("h2").textContent = title;
  box.value = text;
  copy.textContent = "Copy";
  copy.onclick = async () => {
    box.select();
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Selected: press Ctrl+C";
    }
  };
  save.onclick = () => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    element("a", { href: url, download: name }).click();
    URL.revokeObjectURL(url);
  };
  dialog.showModal();
  box.select();
}

function copyButtons(section, protocol, columns, rows) {
  const made = {
    CSV: [() => asCsv(columns, rows), "table.csv"],
    JSON: [() => asJson(section, protocol, columns, rows), "table.json"],
    LaTeX: [() => asLatex(section, protocol, columns, rows), "table.tex"],
    Cite: [() => data.citation, "editbench.bib"],
  };
  const buttons = Object.entries(made).map(([title, [text, name]]) => {
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => offer(title, text(), name));
    return button;
  });
  return element("p", { class: "copies" }, element("span", { class: "quiet" }, "This table as "), ...buttons);
}
