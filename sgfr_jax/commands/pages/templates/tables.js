// Tables that sort by any column: a header is a button, so that the keyboard reaches it.
// A cell is a text, [text, value] with the value it is sorted by, {text, value, tone}, or, in a
// column that is `live`, a function of nothing that returns one of these.

const PAGE = 100; // rows shown at a time
const ORDER = new Intl.Collator("en", { numeric: true });

function cellOf(content) {
  if (typeof content === "function") return cellOf(content());
  if (typeof content === "string") return { text: content, value: content };
  return Array.isArray(content) ? { text: content[0], value: content[1] } : content;
}

class SortedTable {
  constructor({ caption, columns, rows, foot = [] }) {
    this.columns = columns;
    this.rows = this.ordered = rows;
    this.sorted = null; // {column, ascending}
    this.first = 0; // of the rows that are shown
    this.headers = columns.map((column, i) =>
      el("th", { scope: "col", class: column.number ? "number" : null },
        el("button", { type: "button", onclick: () => this.sortBy(i) },
          column.name, el("span", { class: "arrow", "aria-hidden": "true" }))));
    this.body = el("tbody");
    const table = el("table", {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, this.headers)),
      this.body,
      foot.length ? el("tfoot", {}, foot.map((row) => this.row(row))) : null);
    this.shown = el("span");
    const turn = (by) => () => { this.first += by * PAGE; this.draw(); };
    this.back = el("button", { type: "button", onclick: turn(-1) }, "Previous");
    this.next = el("button", { type: "button", onclick: turn(1) }, "Next");
    this.pager = el("p", { class: "pager" }, this.back, this.shown, this.next);
    this.element = el("div", { class: "tabular" },
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table),
      this.pager);
    this.caption = caption;
    this.draw();
  }

  // After live cells have changed: the same rows, in the order that was chosen.
  refresh() {
    if (this.sorted && this.columns[this.sorted.column].live) this.order();
    this.draw();
  }

  sortBy(column) {
    const same = this.sorted?.column === column;
    // Of numbers the large ones are of interest first.
    const ascending = same ? !this.sorted.ascending : !this.columns[column].number;
    this.sorted = { column, ascending };
    this.first = 0;
    const direction = ascending ? "ascending" : "descending";
    this.headers.forEach((header, i) => {
      if (i === column) header.setAttribute("aria-sort", direction);
      else header.removeAttribute("aria-sort");
    });
    this.order();
    this.draw();
    announce(`${this.caption}: sorted by ${this.columns[column].name}, ${direction}`);
  }

  order() {
    const { column, ascending } = this.sorted;
    const sign = ascending ? 1 : -1;
    const keyed = this.rows.map((row) => [cellOf(row[column]).value, row]);
    keyed.sort(([x], [y]) => {
      if (x == null || y == null) return (x == null) - (y == null); // what is not known comes last
      return sign * (typeof x === "number" ? x - y : ORDER.compare(x, y));
    });
    this.ordered = keyed.map(([, row]) => row);
  }

  row(cells) {
    return el("tr", {}, cells.map((content, i) => {
      const { text, tone } = cellOf(content);
      const classes = [this.columns[i].number ? "number" : "", tone ?? ""].join(" ").trim();
      return el(i ? "td" : "th", { class: classes || null, scope: i ? null : "row" }, text);
    }));
  }

  draw() {
    const total = this.rows.length;
    this.first = Math.max(0, Math.min(this.first, PAGE * Math.floor((total - 1) / PAGE)));
    const last = Math.min(total, this.first + PAGE);
    this.body.replaceChildren(...this.ordered.slice(this.first, last).map((r) => this.row(r)));
    this.pager.hidden = total <= PAGE;
    this.shown.textContent = `${this.first + 1} to ${last} of ${total}`;
    this.back.disabled = this.first === 0;
    this.next.disabled = last === total;
  }
}
