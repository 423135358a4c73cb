// The report page. It is self-contained.
{
  const payload = JSON.parse(document.getElementById("data").textContent);
  const words = "Made by fedscape. This page is self-contained and opens without a network.";
  makePage(document.getElementById("page"), words, [], payload.introduction).show(payload.runs, payload.compare);
}
