"use strict";
// What both kinds of page need: the data, elements, the state in the address, tooltips.

const data = JSON.parse(document.getElementById("data").textContent);

// Return an element. Children that are strings become text, never markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...children);
  return made;
}

// The address after # holds the view: its fields, without those that have their default.
function readState(defaults) {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [name, given.get(name) ?? value]),
  );
}

function address(state, defaults) {
  const fields = Object.entries(state).filter(([name, value]) => value !== defaults[name]);
  return "#" + new URLSearchParams(fields);
}

// Return a labelled select. Options are [value, text], or {group, options}; one alone is disabled.
function select(name, label, options, value, change) {
  const flat = options.flatMap((each) => each.options ?? [each]);
  const box = element("select", { name, disabled: flat.length < 2 });
  const option = ([id, text]) => element("option", { value: id, selected: id === value }, text);
  for (const each of options) {
    box.append(
      each.options
        ? element("optgroup", { label: each.group }, ...each.options.map(option))
        : option(each),
    );
  }
  box.addEventListener("change", () => change({ [name]: box.value }));
  return element("label", {}, element("span", {}, label), box);
}

// Return a labelled search box, which waits for a pause in typing.
function searchBox(name, label, value, change) {
  const box = element("input", { name, type: "search", value, autocomplete: "off" });
  let timer;
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => change({ [name]: box.value }), 150);
  });
  return element("label", { class: "search" }, element("span", {}, label), box);
}

// Show `text` beside `target` while it is pointed at or focused.
function explain(target, text) {
  const tip = document.getElementById("tooltip");
  if (!text) return;
  const show = () => {
    tip.textContent = text;
    tip.hidden = false;
    const place = target.getBoundingClientRect();
    const left = Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = place.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 0 ? above : place.bottom + 6}px`;
  };
  const hide = () => (tip.hidden = true);
  target.setAttribute("aria-describedby", "tooltip");
  target.addEventListener("pointerenter", show);
  target.addEventListener("focus", show);
  target.addEventListener("pointerleave", hide);
  target.addEventListener("blur", hide);
}
