// The token stands after the # of a personal link: no server, proxy or preview ever sees it there.
// It goes into the form, and out of the address bar. Who decides is checked by the server.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  try {
    const content = atob(token.split(".")[0].replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(content, (letter) => letter.charCodeAt(0));
    const grant = JSON.parse(new TextDecoder().decode(bytes));
    const form = document.querySelector("form");
    form.elements.token.value = token;
    form.querySelector("[data-approver]").textContent = grant.approver;
    form.hidden = false;
    document.querySelector("[data-no-link]").hidden = true;
  } catch {
    document.querySelector("[data-no-link] p").textContent =
      "This link is incomplete. Open it from your alert again.";
  }
}
