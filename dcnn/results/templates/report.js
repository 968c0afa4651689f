// Sorts and filters the tables of arms. Without this script the page is whole, and has no controls.
"use strict";

const LONG = 8;  // rows from which a table has a field to filter it

// What a cell is sorted by: the number that it begins with, or its words in a column of words.
// Where there is no number (inf, a dash, nothing) it is null, and the row comes last.
function key(cell) {
  const words = (cell.dataset.sort ?? cell.textContent).trim();
  if (cell.matches(".name, .word")) return words;
  const number = Number.parseFloat(words.replace(/^\(/, ""));
  return Number.isFinite(number) ? number : null;
}

// The rows by a column: ascending in the direction 1, descending in -1, and as they are in 0.
function sorted(rows, column, direction) {
  const keyed = rows.map((row) => [key(row.cells[column]), row]);
  if (direction) keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return direction * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  });
  return keyed.map(([, row]) => row);
}

// A button in each head of a column: ascending, descending, and as it was.
function makeSortable(table) {
  const body = table.tBodies[0], rows = [...body.rows];
  const heads = [...[...table.tHead.rows].at(-1).cells];
  const next = { none: "ascending", ascending: "descending", descending: "none" };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const sorting = next[head.getAttribute("aria-sort")];
      for (const each of heads) each.setAttribute("aria-sort", each === head ? sorting : "none");
      const direction = { none: 0, ascending: 1, descending: -1 }[sorting];
      body.append(...sorted(rows, column, direction));
    });
  });
}

// A field above a long table, which shows only the rows whose arm holds all words of the field.
function makeFilterable(table) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < LONG) return;
  const line = document.createElement("p"), label = document.createElement("label");
  const field = document.createElement("input"), count = document.createElement("output");
  line.className = "filter";
  field.type = "search";
  label.append("Arms with ", field);
  line.append(label, " ", count);
  table.parentElement.before(line);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const arm = row.cells[0].textContent.toLowerCase();
      row.hidden = !words.every((word) => arm.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.value = words.length ? `${shown} of ${rows.length} arms` : "";
  });
}

for (const table of document.querySelectorAll("table.arms")) {
  makeSortable(table);
  makeFilterable(table);
}
