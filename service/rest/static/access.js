// The token that a service may ask for: kept for this tab only, sent as header or subprotocol, never in a URL.

const KEY = "pranet-token";
const SENDABLE = /^[\w.!#$%&'*+^`|~-]+$/; // RFC 9110's token: what a subprotocol may hold

export function remember(token) {
  if (!SENDABLE.test(token)) throw new Error("This is not a token: paste all of it, without spaces or quotes.");
  sessionStorage.setItem(KEY, token);
}

export function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export function protocols() {
  const token = sessionStorage.getItem(KEY);
  return token ? ["pranet.v1", `pranet.bearer.${token}`] : ["pranet.v1"];
}
