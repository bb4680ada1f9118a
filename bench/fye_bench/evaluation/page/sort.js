for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const number = (cell) => parseFloat(cell.textContent.replace("−", "-"));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
      const numeric = !head.classList.contains("short");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [a.cells[column], b.cells[column]];
        if (!numeric) return order * x.textContent.localeCompare(y.textContent);
        const [p, q] = [number(x), number(y)];
        return isNaN(p) || isNaN(q) ? isNaN(p) - isNaN(q) : order * (p - q);
      });
      body.append(...rows);
    });
  });
}
