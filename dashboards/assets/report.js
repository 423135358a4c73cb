// A report: everything is in the page.
{
  const payload = JSON.parse(document.getElementById("data").textContent);
  makePage(document.getElementById("page")).show(payload.runs, payload.compare);
}
