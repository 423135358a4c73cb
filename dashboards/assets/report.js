// A report: everything is in the page.
{
  const payload = JSON.parse(document.getElementById("data").textContent);
  const words = "Made by fedscape. Everything is in this page: it opens without a network.";
  makePage(document.getElementById("page"), words).show(payload.runs, payload.compare);
}
