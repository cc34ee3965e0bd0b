// The login page: shows the secret once, in a JSON body; what comes back is a cookie no script can read.

import { recall } from "./storage.js";

document.documentElement.dataset.theme = recall("theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");

const form = document.getElementById("login");
const secret = document.getElementById("secret");
const problem = document.getElementById("problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  const answer = await fetch("api/v1/login", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Shmcam": "1" },
    body: JSON.stringify({ secret: secret.value }),
  }).catch(() => null);
  if (answer?.ok) {
    location.replace("./");
    return;
  }
  problem.textContent = answer ? (await answer.json()).reason : "The server does not answer";
  secret.select();
});
