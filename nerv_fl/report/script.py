"""The page's script: tooltips and sorting, both of which the page can do without."""

from typing import Final

SCRIPT: Final = """
"use strict";
// Tooltips: the titles of the charts' invisible columns, shown at once instead of after a second.
const tip = document.getElementById("tip");
for (const area of document.querySelectorAll(".hit")) {
  const title = area.querySelector("title");
  const text = title.textContent;
  title.remove();
  area.setAttribute("aria-label", text);
  area.addEventListener("pointermove", (event) => {
    tip.textContent = text;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 16;
    const top = below + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 12 : below;
    tip.style.transform = `translate(${Math.max(8, left)}px, ${top}px)`;
  });
  area.addEventListener("pointerleave", () => { tip.hidden = true; });
}
// Sorting: a click on a column's head orders the rows by it, a second click turns them round.
const key = (row, column) => {
  const raw = row.cells[column].dataset.sort;
  return raw === undefined ? null : raw !== "" && Number.isFinite(Number(raw)) ? Number(raw) : raw;
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, two) => {
        const [a, b] = [key(one, column), key(two, column)];
        return a === null || b === null ? (a === null) - (b === null) : direction * compare(a, b);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
"""
