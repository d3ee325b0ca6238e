"use strict";

const phone = matchMedia("(pointer: coarse)").matches;
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axes = {};
  for (const axis of ["xaxis", "yaxis"]) {
    axes[axis + ".gridcolor"] = color("--line");
    axes[axis + ".linecolor"] = color("--line");
  }
  return {
    ...axes,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    "font.color": color("--soft"),
    "font.family": getComputedStyle(document.body).fontFamily,
    "hoverlabel.bgcolor": color("--surface"),
    "hoverlabel.bordercolor": color("--line"),
    "hoverlabel.font.family": getComputedStyle(document.body).fontFamily,
    "hoverlabel.font.color": color("--text"),
    // A finger that scrolls the page must not zoom the chart.
    dragmode: phone ? false : "zoom",
  };
}

function drawCharts() {
  for (const chart of document.querySelectorAll(".chart")) {
    const figure = JSON.parse(chart.nextElementSibling.textContent);
    const config = { responsive: true, displayModeBar: false };
    Plotly.newPlot(chart, figure.data, figure.layout, config)
      .then(() => Plotly.relayout(chart, theme()))
      .then(() => chart.on("plotly_click", (event) => pick(event.points[0].customdata)));
    dark.addEventListener("change", () => Plotly.relayout(chart, theme()));
  }
}

// Shows the row of a trial that was clicked in the frontier chart.
function pick(data) {
  const row = data && document.getElementById("trial-" + data[0]);
  if (!row) return;
  for (const other of document.querySelectorAll("tr.picked")) other.classList.remove("picked");
  row.classList.add("picked");
  row.scrollIntoView({ behavior: "smooth", block: "center" });
}

// Numbers by value, text by letter, what is empty last.
function sortTable(header) {
  const body = header.closest("table").tBodies[0];
  const descending = header.getAttribute("aria-sort") !== "descending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = (row) => row.cells[header.cellIndex].dataset.value;
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (!x || !y) return !x - !y;
    return descending ? compare(y, x) : compare(x, y);
  });
  body.append(...rows);
}

for (const header of document.querySelectorAll("table.sortable th")) {
  header.querySelector("button").addEventListener("click", () => sortTable(header));
}
drawCharts();
