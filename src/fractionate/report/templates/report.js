// Sorts a table by the column whose heading is pressed; cells carry their raw value in data-v.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), row = heading.parentElement, body = heading.closest("table").tBodies[0];
    const column = [...row.children].indexOf(heading);
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (line) => line.children[column].dataset.v;
    const order = (a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const numeric = !isNaN(x) && !isNaN(y);
      return (numeric ? x - y : x.localeCompare(y)) * (down ? -1 : 1);
    };
    body.append(...[...body.rows].sort(order));
  });
}
// A folded section opens where its address is followed, and all of them open while the page is printed.
const folded = () => document.querySelectorAll("details.folded:not([open])");
const follow = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");
let closed = [];
addEventListener("hashchange", follow);
addEventListener("beforeprint", () => { closed = [...folded()]; for (const one of closed) one.open = true; });
addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
follow();
