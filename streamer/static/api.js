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

/** The server's answer to an offer of WebRTC, and the address of the session. */
export async function answerTo(path, offer) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/sdp", "X-Shmcam": "1" }, body: offer });
  if (answer.status !== 201) throw new Error(`HTTP ${answer.status}`);
  return { sdp: await answer.text(), session: new URL(answer.headers.get("Location"), answer.url).href };
}

/** Ends a session, also while the page is being left. */
export const leave = (session) => fetch(session, { method: "DELETE", headers: { "X-Shmcam": "1" }, keepalive: true }).catch(() => {});

export function socket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url);
}
