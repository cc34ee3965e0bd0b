// Talking to the server: JSON both ways; a refusal becomes an Error with the server's own reason.

async function answered(answer) {
  if (answer.status === 401) { location.replace("/login"); throw new Error("logged out"); }
  const body = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Error(body?.reason ?? `HTTP ${answer.status}`);
  return body;
}

export const get = async (path) => answered(await fetch(`/api/v1${path}`, { headers: { Accept: "application/json" } }));

export const post = async (path, body = {}) => answered(await fetch(`/api/v1${path}`, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Shmcam": "1" },
  body: JSON.stringify(body),
}));

export function socket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url);
}
