"use strict";
// Sorts and filters the tables of seeds. Without it the report is complete, only not sortable.
for (const table of document.querySelectorAll("table.seeds")) {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent;
    const number = Number(text);
    return text === "" || Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const before = (a, b) => {
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? 1 : -1; // what has no number comes first: seeds without a reward
  };
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows];
      rows.sort((a, b) => before(value(a, head.cellIndex), value(b, head.cellIndex)) * (down ? -1 : 1));
      body.append(...rows);
    });
  }
  const controls = table.closest("details").querySelector(".controls");
  const [text, kind, shown] = ["input", "select", "output"].map((name) => controls.querySelector(name));
  const filter = () => {
    const wanted = text.value.toLowerCase();
    let n = 0;
    for (const row of body.rows) {
      row.hidden =
        (kind.value !== "" && !row.classList.contains(kind.value)) ||
        (wanted !== "" && !row.textContent.toLowerCase().includes(wanted));
      if (!row.hidden) n += 1;
    }
    shown.textContent = `${n} of ${body.rows.length} seeds`;
  };
  text.addEventListener("input", filter);
  kind.addEventListener("change", filter);
  controls.hidden = false;
  filter();
}
