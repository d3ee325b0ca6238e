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

// Asked only for charts that want it: a browser may do it in software and warn of that.
function hasWebgl() {
  return Boolean(document.createElement("canvas").getContext("webgl"));
}

// Sets layout.font.color for "font.color".
function set(layout, path, value) {
  const names = path.split(".");
  const last = names.pop();
  for (const name of names) layout = layout[name] ??= {};
  layout[last] = value;
}

// Those that are seen and not drawn yet.
function drawCharts() {
  for (const chart of document.querySelectorAll(".chart:not(.js-plotly-plot)")) {
    if (chart.offsetParent) draw(chart);
  }
}

function draw(chart) {
  const { data, layout } = JSON.parse(chart.nextElementSibling.textContent);
  for (const trace of data) {
    if (trace.type === "scattergl" && !hasWebgl()) trace.type = "scatter";
  }
  for (const [path, value] of Object.entries(theme())) set(layout, path, value);
  // Many long names would leave little room for what they are the names of.
  if (chart.matches(".long") && chart.clientWidth < 520) layout.yaxis.showticklabels = false;
  Plotly.newPlot(chart, data, layout, { responsive: true, displayModeBar: false }).then(() =>
    chart.on("plotly_click", ({ points: [point] }) =>
      chart.matches(".overview") ? showDecision(chart, point.y) : showTrial(point.customdata),
    ),
  );
}

// Charts have the size of the screen; on paper they would be cut.
const PAGE_WIDTH = 680;
function resizeCharts(width) {
  document.body.style.width = width ? width + "px" : "";
  for (const chart of document.querySelectorAll(".js-plotly-plot")) {
    if (chart.offsetParent) Plotly.relayout(chart, { width: chart.clientWidth, ...theme() });
  }
}
addEventListener("beforeprint", () => resizeCharts(PAGE_WIDTH));
addEventListener("afterprint", () => resizeCharts(0));

dark.addEventListener("change", () => {
  for (const chart of document.querySelectorAll(".js-plotly-plot")) {
    Plotly.relayout(chart, theme());
  }
});

// Shows the row of a trial that was clicked in a chart.
function showTrial(data) {
  const row = data && document.getElementById("trial-" + data[0]);
  if (!row) return;
  for (const other of document.querySelectorAll("tr.picked")) other.classList.remove("picked");
  row.classList.add("picked");
  row.scrollIntoView({ behavior: "smooth", block: "center" });
}

// Shows the panel of a kind of decisions, or the one with the chart of a decision.
function showDecision(chart, name) {
  const section = chart.closest("section");
  const select = section.querySelector("select");
  const captions = [...section.querySelectorAll("figcaption")];
  const panel = captions.find((caption) => caption.textContent === name)?.closest(".panel");
  const panels = [...section.querySelectorAll(".panel")];
  const kind = [...select.options].findIndex((option) => option.textContent === name);
  select.selectedIndex = kind >= 0 ? kind : panels.indexOf(panel);
  select.dispatchEvent(new Event("change"));
}

for (const select of document.querySelectorAll(".picker select")) {
  const panels = select.closest("section").querySelectorAll(".panel");
  select.addEventListener("change", () => {
    panels.forEach((panel, place) => (panel.hidden = place !== select.selectedIndex));
    drawCharts();
  });
}

for (const slider of document.querySelectorAll("input.score")) {
  const section = slider.closest("section");
  slider.addEventListener("input", () => {
    slider.previousElementSibling.textContent = Number(slider.value).toFixed(2);
    for (const box of section.querySelectorAll("[data-score]")) {
      box.classList.toggle("low", Number(box.dataset.score) < Number(slider.value));
    }
    for (const box of section.querySelectorAll("[data-found]")) {
      box.classList.toggle("low", Number(box.dataset.found) >= Number(slider.value));
    }
  });
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
