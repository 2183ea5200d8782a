// Comfort for who has JavaScript; every page works without.
"use strict";

const root = document.documentElement;
const THEMES = ["auto", "light", "dark"];

function remembered() {
  try {
    return localStorage.getItem("limosa-theme");
  } catch {
    return null; // storage may be switched off
  }
}

function wear(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
}

// Before the page is drawn, so that it does not flash in the other theme.
wear(remembered());

function themeToggle(button) {
  const say = () => {
    const theme = root.dataset.theme ?? "auto";
    button.lastElementChild.textContent = theme;
  };
  button.hidden = false;
  say();
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
    wear(next);
    try {
      localStorage.setItem("limosa-theme", next);
    } catch {
      // it holds for this page then
    }
    say();
  });
}

function copyButton(button) {
  const code = button.previousElementSibling;
  button.hidden = false;
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      getSelection().selectAllChildren(code); // no permission, or no HTTPS
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

function valueOf(row, column, numeric) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (!numeric) return text.toLowerCase();
  return text === "" ? NaN : Number(text.replaceAll(",", ""));
}

function compare(a, b, sign) {
  if (typeof a === "string") return sign * a.localeCompare(b, "en", { numeric: true });
  // What has no value is last in both directions.
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return sign * (a > b) - sign * (a < b);
}

function sort(table, heading) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  const numeric = heading.dataset.sort === "number";
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row, heading.cellIndex, numeric), row]);
  rows.sort(([a], [b]) => compare(a, b, descending ? -1 : 1));
  for (const [, row] of rows) body.append(row);
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

function sortable(table) {
  for (const heading of table.tHead.querySelectorAll("th[data-sort]")) {
    const link = heading.querySelector("a.sort");
    if (link) {
      // Several pages: only the server can sort them all.
      if (!("complete" in table.dataset)) continue;
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        sort(table, heading);
      });
      continue;
    }
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, heading));
  }
}

function filter(input) {
  const table = document.getElementById(input.dataset.filter);
  const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  if (!table || (input.form && !("complete" in table.dataset))) return;
  input.parentElement.hidden = false;
  input.form?.querySelector("button")?.setAttribute("hidden", "");
  input.form?.addEventListener("submit", (event) => event.preventDefault());
  const all = count.textContent;
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = wanted ? `${shown} of ${all}` : all;
  });
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-theme-toggle]").forEach(themeToggle);
  document.querySelectorAll("[data-copy]").forEach(copyButton);
  document.querySelectorAll("table[data-sortable]").forEach(sortable);
  document.querySelectorAll("input[data-filter]").forEach(filter);
  // History reads to the right: begin at its end, where the news is.
  for (const box of document.querySelectorAll(".framed, .recent")) box.scrollLeft = box.scrollWidth;
});
