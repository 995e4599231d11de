"use strict";
// Tables are sorted by their first numbers, else by their texts; figures are shown at full size when clicked.
const number = (text) => { const found = text.match(/^[+-]?\d+(\.\d+)?/); return found ? parseFloat(found[0]) : null; };
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [row.cells[head.cellIndex].textContent, row]);
    rows.sort(([a], [b]) => {
      const x = number(a), y = number(b);
      if (x === null || y === null) { // a dash is below every number, whichever way the table is sorted
        if (x !== y) return x === null ? 1 : -1;
        return (up ? 1 : -1) * a.localeCompare(b);
      }
      return (up ? 1 : -1) * (x - y);
    });
    body.append(...rows.map(([, row]) => row));
  });
}
const dialog = document.querySelector("dialog");
for (const image of document.querySelectorAll("figure img")) {
  image.parentNode.addEventListener("click", () => { dialog.replaceChildren(image.cloneNode()); dialog.showModal(); });
}
dialog.addEventListener("click", () => dialog.close());
