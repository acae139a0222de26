// Draws the figures that the page carries as JSON, in the page's own ink, and again when that changes.
(() => {
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // the same hues, bright enough for a dark page
  const bright = { "#0072b2": "#56b4e9", "#d55e00": "#ff9a4d", "#009e73": "#35c79a", "#cc79a7": "#e6a3c8" };
  const hued = (told) => document.documentElement.dataset.theme === "dark"
    ? told.replace(/#[0-9a-f]{6}/g, (hue) => bright[hue] ?? hue) : told;
  const dressed = (layout) => {
    const axis = { gridcolor: ink("--line"), zerolinecolor: ink("--line"), linecolor: ink("--soft") };
    const found = { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { color: ink("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", ...layout.legend },
      hoverlabel: { ...layout.hoverlabel, bgcolor: ink("--panel"), font: { color: ink("--ink") } } };
    for (const name of Object.keys({ xaxis: 0, yaxis: 0, ...layout })) {
      if (/^[xy]axis\d*$/.test(name)) found[name] = { ...axis, ...layout[name] };
    }
    found.shapes = (layout.shapes ?? []).map((shape) => ({ ...shape, line: { color: ink("--ink"), ...shape.line } }));
    found.annotations = (layout.annotations ?? []).map((one) => ({ bgcolor: ink("--paper"), borderpad: 1, ...one }));
    return found;
  };
  const draw = (root) => {
    for (const place of root.querySelectorAll(".plot")) {
      const told = place.querySelector("script");
      if (told) place.told = told.textContent;
      if (!place.told || typeof Plotly === "undefined") continue;
      const { data, layout } = JSON.parse(hued(place.told));
      Plotly.react(place, data, dressed(layout), { responsive: true, displaylogo: false, displayModeBar: "hover",
        modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
    }
  };
  draw(document);
  document.addEventListener("themed", () => draw(document));
  // not before: until then htmx gives the new elements the classes of the old ones, and takes away the chart's own
  document.addEventListener("htmx:afterSettle", () => draw(document));
  for (const field of document.querySelectorAll("[data-submits]")) {
    field.addEventListener("change", () => field.form.submit());
  }
})();
