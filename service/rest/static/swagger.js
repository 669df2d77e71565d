// Starts Swagger UI; in a file of its own, so that a Content-Security-Policy can forbid inline scripts.
SwaggerUIBundle({ url: "../openapi.json", dom_id: "#documentation", deepLinking: true });

// Levels of headings without a gap below the title's 1.
const LEVELS = [["h3.opblock-tag, .models > h4", "2"], [".opblock-body h4", "3"], [".opblock-body h5", "4"]];

// What Swagger UI leaves out for those who hear the page or use the keyboard.
function mend() {
  for (const link of document.querySelectorAll(".opblock-summary-control a[href]")) link.removeAttribute("href"); // in a button
  for (const [headings, level] of LEVELS) for (const heading of document.querySelectorAll(headings)) heading.ariaLevel = level;
  for (const field of document.querySelectorAll(":is(select, input, textarea):not([aria-label], [id])")) {
    const row = field.closest("[data-param-name]");
    field.ariaLabel = row?.dataset.paramName ?? field.closest("label")?.textContent ?? field.placeholder ?? "";
    if (!field.ariaLabel) field.ariaLabel = field.matches("textarea") ? "Body" : "Choice";
  }
  for (const block of document.querySelectorAll("pre:not([tabindex])")) block.tabIndex = 0; // scrolls
}

new MutationObserver(mend).observe(document.getElementById("documentation"), { childList: true, subtree: true });
