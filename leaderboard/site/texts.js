"use strict";
// The page of texts: questions, with the answers of the chosen methods that the filters leave.

const DEFAULTS = { method: "all", what: "all", protocol: "generation", show: "failed", search: "", case: "" };
const STEP = 40; // questions at a time
const WHAT = {
  rewrite: "the fact's own prompt", paraphrase: "paraphrases", neighborhood: "neighbors", portability: "what follows",
  in_context: "in context", distracted: "neighbors, distracted", denial: "denial", reversion: "reversion", fluency: "free texts",
};
const SHOW = {
  failed: ["failed", "failed", (verdict) => verdict === "wrong"],
  passed: ["passed", "passed", (verdict) => verdict === "right"],
  lost: ["right before, wrong now", "were right and are wrong", (verdict, was) => was === "right" && verdict === "wrong"],
  gained: ["wrong before, right now", "were wrong and are right", (verdict, was) => was === "wrong" && verdict === "right"],
  all: ["all", "", () => true],
};
// Verdict -> its name, its words in the count, and whether an answer has it.
// Protocol -> the place of its score in an answer. The verdict of `generation` comes with its rule.
const PLACES = { argmax: 4, likelihood: 5, judge: 6 };
const isTask = (question) => question.what.startsWith("task:");
// Two task files of one name have different places.
const nameOf = (what) => what.replace(/^(task|evaluator):/, "").replace(/#[0-9a-f]{6}$/, "");
const labels = Object.fromEntries(data.rows.map((row) => [row.key, row.label]));
// Case -> its fact in words.
const facts = Object.fromEntries(
  data.questions.filter((question) => question.what === "rewrite").map((question) => [question.case, `${question.prompt} → ${question.expected[0]}`]),
);
const severalSeeds = new Set(data.questions.map((question) => question.seed)).size > 1;
let limit = STEP;

function change(fields) {
  limit = STEP;
  history.replaceState(null, "", address({ ...readState(DEFAULTS), case: "", ...fields }, DEFAULTS));
  draw();
}

// Opening a case is a step that the browser's back button undoes.
function caseAddress(question) {
  const what = isTask(question) ? question.what : "all";
  return address({ ...DEFAULTS, what, show: "all", case: question.case }, DEFAULTS);
}

function asked(question, what) {
  const [axis, kind] = what.split("/");
  if (what === "all" || question.what === what) return true;
  if (what === "retention") return isTask(question);
  return question.what === axis && question.kind === kind;
}

// A protocol says how a probe is scored; a document of a task has one score.
function verdictOf(question, answer, protocol) {
  if (protocol === "generation" || isTask(question)) return answer[2];
  const score = answer[PLACES[protocol]];
  return typeof score === "number" ? (score ? "right" : "wrong") : "";
}

const verdictBefore = (question, protocol) => question.was[isTask(question) ? "generation" : protocol] ?? "";

function protocolOptions() {
  const every = Object.values(data.answers).flat();
  const others = Object.keys(PLACES).filter((name) => every.some((answer) => typeof answer[PLACES[name]] === "number"));
  return ["generation", ...others].map((name) => [name, name]);
}

function whatOptions() {
  const found = [...new Set(data.questions.map((question) => question.what))];
  const tasks = found.filter((what) => what.startsWith("task:")).sort();
  const kinds = [...new Set(data.questions.filter((q) => q.kind && !q.what.startsWith("task:")).map((q) => `${q.what}/${q.kind}`))];
  const evaluators = found.filter((what) => what.startsWith("evaluator:")).sort();
  const named = Object.keys(WHAT).filter((what) => found.includes(what));
  return [
    ["all", "all"],
    ...(named.length ? [{ group: "Facts", options: [...named.map((what) => [what, WHAT[what]]), ...kinds.sort().map((what) => [what, what])] }] : []),
    ...(tasks.length ? [{ group: "Retention tasks", options: [["retention", "all tasks"], ...tasks.map((what) => [what, nameOf(what)])] }] : []),
    ...(evaluators.length ? [{ group: "Evaluators", options: evaluators.map((what) => [what, nameOf(what)]) }] : []),
  ];
}

function drawFilters(state) {
  const form = document.getElementById("filters");
  const answered = data.rows.filter((row) => data.answers[row.key]);
  const boxes = [
    select("method", "Method", [["all", "all"], ...answered.map((row) => [row.key, row.label])], state.method, change),
    select("what", "Asked", whatOptions(), state.what, change),
    select("protocol", "Protocol", protocolOptions(), state.protocol, change),
    select("show", "Verdict", Object.entries(SHOW).map(([name, [title]]) => [name, title]), state.show, change),
  ];
  const old = form.querySelector("input");
  if (!old) form.append(searchBox("search", "Search the texts", state.search, change));
  else if (old !== document.activeElement) old.value = state.search;
  form.querySelectorAll("label:not(.search)").forEach((label) => label.remove());
  form.prepend(...boxes);
}

// Return question -> the answers that the filters leave, and how many there are before the verdict.
function selected(state) {
  const found = new Map();
  let total = 0, left = 0;
  const wanted = state.search.toLowerCase();
  const keep = (SHOW[state.show] ?? SHOW.all)[2];
  for (const row of data.rows) {
    // The unedited model fails by design; its answers are those before.
    if (state.method === "all" ? row.base && state.show !== "all" : state.method !== row.key) continue;
    for (const answer of data.answers[row.key] ?? []) {
      const question = data.questions[answer[0]];
      if (!asked(question, state.what) || (state.case && question.case !== state.case)) continue;
      if (wanted && ![question.case, question.prompt, question.before, answer[1], ...question.expected].some((text) => text.toLowerCase().includes(wanted))) continue;
      total += 1;
      if (!keep(verdictOf(question, answer, state.protocol), verdictBefore(question, state.protocol))) continue;
      left += 1;
      if (!found.has(answer[0])) found.set(answer[0], []);
      found.get(answer[0]).push([row, answer]);
    }
  }
  return { found, total, left };
}

const verdictMark = (verdict) => element("span", { class: `verdict ${verdict}` }, { right: "✓ right", wrong: "✗ wrong", "": "not scored" }[verdict]);
const named = (title, ...texts) => element("div", {}, element("dt", {}, title), ...texts.map((text) => element("dd", {}, text.trim() || element("span", { class: "quiet" }, "(nothing)"))));

function drawQuestion(index, answers, protocol) {
  const question = data.questions[index];
  const task = isTask(question);
  const what = task ? nameOf(question.what) : WHAT[question.what] ?? nameOf(question.what);
  const place = [task ? "" : question.kind, severalSeeds ? `seed ${question.seed}` : ""].filter(Boolean).join(", ");
  const fact = question.what === "rewrite" || task ? "" : facts[question.case];
  const expected = question.expected.slice(0, 6);
  return element(
    "article",
    {},
    element("header", {}, element("a", { href: caseAddress(question) }, `${task ? `${what} ` : ""}${question.case}`), " ", element("span", { class: "quiet" }, task ? place : `${what}${place && ` (${place})`} `, fact ? `of: ${fact}` : "")),
    ...(question.what.startsWith("evaluator:") ? [] : [element(
      "dl",
      { class: "question" },
      named("Prompt", question.prompt),
      named("Expected", ...(expected.length ? expected : [""])),
      named("Before", question.before),
    )]),
    ...answers.map(([row, answer]) => drawAnswer(question, row, answer, protocol)),
  );
}

function drawAnswer(question, row, answer, protocol) {
  const verdict = verdictOf(question, answer, protocol);
  const [, text, , rule, , , , answerLogprob, otherLogprob, first] = answer;
  const parts = [named(row.base ? `${row.label} (unedited)` : `After, ${row.label}`, text)];
  if (first !== null && first !== undefined) parts.push(named("Right after its chunk", first));
  const said = {
    generation: [answer[2], data.rules[rule]],
    argmax: [verdictOf(question, answer, "argmax"), data.protocols.argmax],
    likelihood: [
      verdictOf(question, answer, "likelihood"),
      `log-probability a token: ${answerLogprob} of “${question.expected[0]}”, ${otherLogprob} of “${question.other}”.`,
    ],
    judge: [verdictOf(question, answer, "judge"), data.protocols.judge],
  };
  const chosen = isTask(question) ? "generation" : protocol;
  const why = element("div", { class: "why" }, verdictMark(verdict), " ", element("span", {}, said[chosen][1]));
  const others = Object.keys(said).filter((name) => name !== chosen && said[name][0]);
  const mark = (name) => `${name} ${said[name][0] === "right" ? "✓" : "✗"}${name === "likelihood" ? ` (${said[name][1].slice(0, -1)})` : ""}`;
  if (others.length) why.append(element("small", {}, `Other protocols: ${others.map(mark).join(" · ")}`));
  return element("div", { class: `answer ${verdict}` }, element("dl", {}, ...parts), why);
}

function draw() {
  const state = readState(DEFAULTS);
  drawFilters(state);
  const { found, total, left } = selected(state);
  const row = data.rows.find((each) => each.key === state.method);
  const who = row ? `${labels[row.key]}: ` : "";
  const failed = row?.note ? ` ${row.status}: ${row.note}` : "";
  const which = SHOW[state.show]?.[1] ? ` ${SHOW[state.show][1]}` : "";
  const count = document.getElementById("count");
  count.textContent = `${who}${left} of ${total} answers${which}${state.case ? `, case ${state.case}` : ""}.${failed}`;
  if (state.case) count.append(" ", element("a", { href: "#" }, "Leave the case"));
  if (!left && total) {
    const all = address({ ...state, show: "all" }, DEFAULTS);
    count.append(" ", element("a", { href: all }, total > 1 ? `Show all ${total}` : "Show it"));
  }
  const shown = [...found].sort(([a], [b]) => a - b);
  document.getElementById("answers").replaceChildren(...shown.slice(0, limit).map((each) => drawQuestion(...each, state.protocol)));
  document.getElementById("more").hidden = shown.length <= limit;
}

document.getElementById("more").addEventListener("click", () => {
  limit += STEP;
  draw();
});
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  limit = STEP;
  draw();
  scrollTo(0, 0);
});
draw();
