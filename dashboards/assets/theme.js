// Runs in the head, so that the page is never seen in the wrong colours.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("fedscape-theme");
  } catch {
    /* a page opened from disk may have no storage */
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
