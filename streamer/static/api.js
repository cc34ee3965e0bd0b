// Talking to the server: JSON both ways; a refusal becomes an Error with the server's own reason.
// Addresses are relative, so that the page also works below a path of a reverse proxy.

async function answered(answer) {
  if (answer.status === 401) { location.replace("login"); throw new Error("logged out"); }
  const body = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Error(body?.reason ?? `HTTP ${answer.status}`);
  return body;
}

async function asked(path, options) {
  try { return await fetch(`api/v1${path}`, options); } catch { throw new Error("The server does not answer"); } // "Failed to fetch", say browsers
}

export const get = async (path) => answered(await asked(path, { headers: { Accept: "application/json", "X-Shmcam": "1" } }));

export const post = async (path, body = {}) => answered(await asked(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Shmcam": "1" },
  body: JSON.stringify(body),
}));

export function socket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url);
}
