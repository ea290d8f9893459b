// The page is complete without this: it only unfolds everything for print and makes breakdown tables sortable.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; part.dataset.folded = ""; }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-folded]")) { part.open = false; delete part.dataset.folded; }
});
for (const table of document.querySelectorAll("table.heat")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? "";
      const order = (a, b) => column === 0 ? key(b).localeCompare(key(a)) : (key(b) || -Infinity) - (key(a) || -Infinity);
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? 1 : -1) * (order(a, b) || 0));
      table.tBodies[0].append(...rows);
    });
  });
}
